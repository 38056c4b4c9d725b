package main

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/gitseal/gitseal/build"
	"github.com/gitseal/gitseal/crypto"
	"github.com/gitseal/gitseal/decrypt"
)

const (
	sopsFiles     = 1000
	sealedSecrets = 300
)

// ring holds one key of each kind.
type ring struct {
	id   crypto.Identity
	cert crypto.CertificateKey
}

func (r ring) Keyring() crypto.Keyring {
	return crypto.Keyring{Identities: []crypto.Identity{r.id}}
}
func (r ring) CertificateKeys() []crypto.CertificateKey { return []crypto.CertificateKey{r.cert} }

// opening measures decryption alone, without a cluster.
func opening(ctx context.Context) error {
	id, err := crypto.GenerateIdentity()
	if err != nil {
		return err
	}
	cert, err := crypto.GenerateCertificateKey(time.Now())
	if err != nil {
		return err
	}
	digester, err := decrypt.NewDigester(crypto.NewSecretString("bench-token-key-of-thirty-two-by"), "bench")
	if err != nil {
		return err
	}
	keys := ring{id, cert}
	fmt.Printf("\n%-58s %9s %9s\n", "decryption alone", "time", "CPU")
	if err := openSOPS(ctx, keys, digester); err != nil {
		return err
	}
	return openSealedSecrets(keys, digester)
}

func openSOPS(ctx context.Context, keys ring, digester decrypt.Digester) error {
	sealed, plain := map[string][]byte{}, map[string][]byte{}
	list := "resources:\n"
	for i := range sopsFiles {
		name := fmt.Sprintf("s%04d", i)
		b, err := sealedSecret("bench", name, []crypto.Recipient{keys.id.Recipient()})
		if err != nil {
			return err
		}
		sealed[name+".yaml"] = []byte(b)
		plain[name+".yaml"] = []byte(secret("bench", name))
		list += "  - " + name + ".yaml\n"
	}
	sealed["kustomization.yaml"], plain["kustomization.yaml"] = []byte(list), []byte(list)

	cache := decrypt.NewCache()
	masker := func() *decrypt.Masker {
		return decrypt.NewMasker(decrypt.MaskerConfig{Tree: memory(sealed), Keys: keys, Digester: digester, Cache: cache})
	}
	m := masker()
	row(fmt.Sprintf("open %d SOPS files of 4 values, on all processors", sopsFiles), func() { m.Prefetch(ctx, ".") })
	first := cache.Opened().Files
	again := masker()
	row("the same in a second pass, nothing changed", func() { again.Prefetch(ctx, ".") })
	if first != sopsFiles || cache.Opened().Files != first {
		return fmt.Errorf("opened %d files in the first pass and %d in the second", first, cache.Opened().Files-first)
	}
	var err error
	building := row("kustomize build of the plaintext", func() { _, err = build.Run(ctx, memory(plain), ".", build.AsWritten) })
	if err != nil {
		return err
	}
	var objects []*unstructured.Unstructured
	masking := row("mask: read the placeholders of what is open", func() {
		for _, name := range slices.Sorted(maps.Keys(sealed)) {
			if _, readErr := again.ReadFile(name); readErr != nil {
				err = readErr
			}
		}
	})
	if err != nil {
		return err
	}
	row("kustomize build of the masked tree", func() { objects, err = build.Run(ctx, again, ".", build.AsWritten) })
	if err != nil {
		return err
	}
	var gated decrypt.Gated
	gate := row("gate", func() { gated = again.Pass().Gate(objects) })
	if len(gated.Refused) > 0 || len(gated.Objects) != sopsFiles {
		return fmt.Errorf("refused: %v", gated.Refused)
	}
	back := row("put back: the bodies", func() { err = bodies(gated.Objects, 1) })
	if err != nil {
		return err
	}
	fmt.Printf("masking and putting back are %.2f of the build, with the gate %.2f\n", float64(masking+back)/float64(building), float64(masking+gate+back)/float64(building))
	return nil
}

func openSealedSecrets(keys ring, digester decrypt.Digester) error {
	var objects []*unstructured.Unstructured
	for i := range sealedSecrets {
		name := fmt.Sprintf("s%03d", i)
		encrypted := map[string]any{}
		for _, key := range []string{"user", "password", "host", "dsn"} {
			text, err := crypto.SealValue(keys.cert.Certificate(), crypto.Target{Namespace: "bench", Name: name, Scope: crypto.Strict}, crypto.NewSecretString(name+key), time.Now())
			if err != nil {
				return err
			}
			encrypted[key] = text
		}
		objects = append(objects, &unstructured.Unstructured{Object: map[string]any{"apiVersion": "bitnami.com/v1alpha1", "kind": "SealedSecret",
			"metadata": map[string]any{"name": name, "namespace": "bench"}, "spec": map[string]any{"encryptedData": encrypted}}})
	}
	floor, err := rsaFloor(4 * sealedSecrets)
	if err != nil {
		return err
	}
	cache := decrypt.NewCache()
	gate := func() decrypt.Gated {
		return decrypt.NewMasker(decrypt.MaskerConfig{Tree: memory(nil), Keys: keys, Digester: digester, Cache: cache}).Pass().Gate(objects)
	}
	first := gate()
	opening := row(fmt.Sprintf("open %d SealedSecrets of 4 values, on all processors", sealedSecrets), func() { err = bodies(first.Objects, runtime.GOMAXPROCS(0)) })
	if err != nil {
		return err
	}
	fmt.Printf("opening SealedSecrets is %.2f of its RSA\n", float64(opening)/float64(floor))
	opened := cache.Opened().Values
	second := gate()
	row("the same in a second pass, nothing changed", func() { err = bodies(second.Objects, runtime.GOMAXPROCS(0)) })
	if opened != 4*sealedSecrets || cache.Opened().Values != opened {
		return fmt.Errorf("opened %d values in the first pass and %d in the second", opened, cache.Opened().Values-opened)
	}
	return err
}

// rsaFloor is what so many SealedSecret values cost in RSA alone.
func rsaFloor(values int) (time.Duration, error) {
	key, err := rsa.GenerateKey(rand.Reader, 4096)
	if err != nil {
		return 0, err
	}
	sealed, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, &key.PublicKey, make([]byte, 32), nil)
	if err != nil {
		return 0, err
	}
	took := row(fmt.Sprintf("raw floor: %d RSA-4096 decryptions, on all processors", values), func() {
		err = spread(values, runtime.GOMAXPROCS(0), func(int) error {
			_, err := rsa.DecryptOAEP(sha256.New(), nil, key, sealed, nil)
			return err
		})
	})
	return took, err
}

// bodies makes what would be sent.
func bodies(objects []decrypt.Object, workers int) error {
	return spread(len(objects), workers, func(i int) error {
		_, _, err := objects[i].Body(nil)
		return err
	})
}

// spread does n things with so many workers.
func spread(n, workers int, do func(i int) error) error {
	var wg sync.WaitGroup
	errs := make([]error, workers)
	for w := range workers {
		wg.Go(func() {
			for i := w; i < n; i += workers {
				if err := do(i); err != nil {
					errs[w] = err
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// row measures one step and prints it.
func row(what string, f func()) time.Duration {
	runtime.GC()
	before, start := cpu(), time.Now()
	f()
	took := time.Since(start)
	fmt.Printf("%-58s %9s %9s\n", what, ms(took), ms(cpu()-before))
	return took
}

// cpu is what this process used so far.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
