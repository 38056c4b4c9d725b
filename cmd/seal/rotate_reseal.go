package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/gitseal/gitseal/crypto"
)

// A resealer seals files anew, with private keys that are at hand here or elsewhere.
// It answers for each file of the batch, in their order.
type resealer interface {
	reseal(ctx context.Context, batch []plannedFile) []resealed
}

type resealed struct {
	content     []byte
	reformatted bool
	err         error
}

// offlineKeys are private keys that the user holds.
type offlineKeys struct {
	ring         crypto.Keyring
	certificates []crypto.CertificateKey
}

func (k offlineKeys) none() bool {
	return len(k.ring.Identities) == 0 && len(k.ring.PGPKeys) == 0 && len(k.certificates) == 0
}

// keys reads those of the flags, and those that sops takes from the environment.
func (o rotateOptions) keys(cmd *cobra.Command) (offlineKeys, error) {
	var k offlineKeys
	add := func(name string, file crypto.Secret) error {
		ids, err := crypto.ParseIdentities(file)
		if err == nil {
			k.ring.Identities = append(k.ring.Identities, ids...)
			return nil
		}
		if pgp, err := crypto.ParsePGPKeys(file); err == nil {
			k.ring.PGPKeys = append(k.ring.PGPKeys, pgp...)
			return nil
		}
		return fmt.Errorf("%s: %w", name, err)
	}
	files := o.identities
	if f := os.Getenv("SOPS_AGE_KEY_FILE"); f != "" {
		files = append(files[:len(files):len(files)], f)
	}
	for _, name := range files {
		file, err := readPlain(cmd, name)
		if err == nil {
			err = add(name, file)
		}
		if err != nil {
			return k, err
		}
	}
	if text := os.Getenv("SOPS_AGE_KEY"); text != "" {
		if err := add("SOPS_AGE_KEY", crypto.NewSecretString(text)); err != nil {
			return k, err
		}
	}
	for _, name := range o.sealKeys {
		file, err := readPlain(cmd, name)
		if err != nil {
			return k, err
		}
		certificates, err := crypto.ParseCertificateKeys(file)
		if err != nil {
			return k, fmt.Errorf("%s: %w", name, err)
		}
		k.certificates = append(k.certificates, certificates...)
	}
	return k, nil
}

// offline is the resealer that needs no cluster.
type offline struct {
	keys offlineKeys
	now  time.Time
}

func (o offline) reseal(ctx context.Context, batch []plannedFile) []resealed {
	out := make([]resealed, len(batch))
	for i, p := range batch {
		if out[i].err = context.Cause(ctx); out[i].err == nil {
			out[i] = o.one(p)
		}
	}
	return out
}

func (o offline) one(p plannedFile) resealed {
	content, reformatted := p.raw, false
	if len(p.units) > 0 {
		r, err := crypto.ResealSOPS(crypto.ResealRequest{
			File: content, Format: p.format, Keys: o.keys.ring, KeepDataKey: p.keep, Now: o.now,
			Recipients: func([]string) ([]crypto.Recipient, error) { return p.recipients, nil },
		})
		if err != nil {
			return resealed{err: err}
		}
		content, reformatted = r.File, r.Reformatted
	}
	if len(p.sealedSecrets) > 0 {
		r, _, err := crypto.ResealSealedSecrets(crypto.SealedSecretsRequest{File: content, Keys: o.keys.certificates, To: p.cert, Namespace: p.namespace, Now: o.now})
		if errors.Is(err, crypto.ErrNamespaceMissing) {
			err = hint(err, "say -n NAMESPACE")
		}
		if err != nil {
			return resealed{err: err}
		}
		content = r
	}
	return resealed{content: content, reformatted: reformatted}
}

// rotation is one run over a tree.
type rotation struct {
	resealer resealer
	size     int // files of a batch
	state    *rotationState
	progress *progress
}

// Files go to the resealer in batches: one request to a cluster holds many.
const (
	offlineBatch = 16
	clusterBatch = 50
)

// run seals the files anew, and notes in the plan what became of each.
func (r rotation) run(ctx context.Context, plan []plannedFile) {
	var todo []int
	for i, p := range plan {
		if p.err == nil && !p.done {
			todo = append(todo, i)
		}
	}
	size := max(1, min(r.size, len(todo)/runtime.GOMAXPROCS(0)))
	batches := (len(todo) + size - 1) / size
	r.progress.add(len(plan) - len(todo))
	defer r.progress.end()
	inParallel(context.WithoutCancel(ctx), batches, func(n int) {
		which := todo[n*size : min(len(todo), (n+1)*size)]
		batch := make([]plannedFile, len(which))
		for i, at := range which {
			batch[i] = plan[at]
		}
		for i, result := range r.resealer.reseal(ctx, batch) {
			r.finish(ctx, &plan[which[i]], result)
			r.progress.add(1)
		}
	})
}

func (r rotation) finish(ctx context.Context, p *plannedFile, result resealed) {
	if p.err = result.err; p.err == nil {
		p.err = context.Cause(ctx)
	}
	if p.err == nil {
		p.err = r.state.finish(*p, result.content)
	}
	if p.err == nil {
		p.err = replaceFile(p.path, p.raw, result.content, p.mode)
	}
	p.changed = p.err == nil
	p.reformatted = p.changed && result.reformatted
}

// inParallel calls f for each number below n, on all processors.
func inParallel(ctx context.Context, n int, f func(int)) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(n, runtime.GOMAXPROCS(0)) {
		wg.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				f(i)
			}
		})
	}
	wg.Wait()
}
