package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"

	"github.com/gitseal/gitseal/api/v1alpha1"
	"github.com/gitseal/gitseal/crypto"
	"github.com/gitseal/gitseal/keys"
)

// clusterRotation has the agent seal files anew, which alone can open them: ciphertext
// goes to it, and comes back, in Reseals. It implements resealer.
type clusterRotation struct {
	store   keys.Store
	reseals dynamic.ResourceInterface
	answer  time.Duration // longest wait for one Reseal
	public  keys.Public   // what is sealed to
}

func (o rotateOptions) connect() (*clusterRotation, error) {
	cfg, err := o.config()
	if err != nil {
		return nil, hint(err, "say --kubeconfig, or set KUBECONFIG; to rotate offline, with private keys that you hold, say --identity FILE for SOPS files, and --seal-key FILE for SealedSecrets")
	}
	cfg.QPS = -1 // the API server's priority and fairness throttles
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, err
	}
	objects, err := dynamic.NewForConfig(cfg)
	if err != nil {
		return nil, err
	}
	return &clusterRotation{
		store:   keys.Store{Client: client, Namespace: o.agent, Now: time.Now},
		reseals: objects.Resource(v1alpha1.GroupVersion.WithResource("reseals")).Namespace(o.agent), answer: o.timeout,
	}, nil
}

// newKey asks the agent for a new generation, unless the rotation that is gone on with
// has one, and writes its public half into the repository. It returns those files.
func (c *clusterRotation) newKey(cmd *cobra.Command, dir string, sameKey bool, state *rotationState) ([]string, error) {
	ctx, cancel := context.WithTimeout(cmd.Context(), c.answer)
	defer cancel()
	explain := func(err error) error {
		if ctx.Err() != nil && cmd.Context().Err() == nil {
			err = &timeoutError{fmt.Sprintf("the agent has published no new key within %s", c.answer)}
		}
		return hint(err, "is the agent running, with --namespace %s? You need the rights of its Role gitseal-resealer", c.store.Namespace)
	}
	if state.generation == 0 && !sameKey {
		n, err := c.store.Ask(ctx)
		if err != nil {
			return nil, explain(err)
		}
		if err := state.begun(n); err != nil {
			return nil, err
		}
	}
	if n := state.generation; n > 0 {
		g, err := awaitGeneration(ctx, c.store, n)
		if err != nil {
			return nil, explain(err)
		}
		if g.State == keys.Standby {
			return nil, hint(fmt.Errorf("key generation %d is on standby: the agent wants a backup first", n), "seal keys backup, then run this again")
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "sealing to generation %d of the cluster's key\n", n)
	}
	var err error
	if c.public, err = keys.FetchPublic(ctx, c.store.Client, c.store.Namespace); err != nil {
		return nil, explain(err)
	}
	old, err := readCommitted(dir)
	if err != nil {
		return nil, err
	}
	var recipients []string
	for _, r := range c.public.Recipients {
		recipients = append(recipients, r.String())
	}
	if _, err = writeKeys(cmd, dir, old, c.public, recipients); err != nil {
		return nil, err
	}
	return []string{filepath.Join(dir, sopsConfigName), filepath.Join(dir, certPath), filepath.Join(dir, recipientsPath)}, nil
}

// repositoryOf is the folder above DIR that .sops.yaml lies in, or else git's.
func repositoryOf(dir string) string {
	for _, name := range []string{sopsConfigName, ".git"} {
		if found, err := findUp(dir, name); err == nil {
			return filepath.Dir(found)
		}
	}
	return dir
}

// reseal makes as few Reseals as their limits allow.
func (c *clusterRotation) reseal(ctx context.Context, batch []plannedFile) []resealed {
	out := make([]resealed, len(batch))
	var which []int
	var spec v1alpha1.ResealSpec
	size := 0
	send := func() {
		if len(which) > 0 {
			for i, answer := range c.ask(ctx, spec) {
				out[which[i]] = answer
			}
		}
		which, spec, size = nil, v1alpha1.ResealSpec{}, 0
	}
	for i, p := range batch {
		f, err := p.asked()
		if err != nil {
			out[i].err = err
			continue
		}
		if size+len(f.Content) > v1alpha1.ResealBytes || len(which) == v1alpha1.ResealFiles {
			send()
		}
		which, size = append(which, i), size+len(f.Content)
		spec.Files, spec.KeepDataKey = append(spec.Files, f), p.keep
	}
	send()
	for i, p := range batch {
		if out[i].err == nil {
			out[i].err = p.fits(out[i].content, c.public)
		}
	}
	return out
}

// asked is the file as a Reseal has it.
func (p plannedFile) asked() (v1alpha1.ResealFile, error) {
	f := v1alpha1.ResealFile{Name: p.path, Format: string(p.format), Namespace: p.namespace, Content: string(p.raw)}
	switch {
	case len(p.units) > 0 && len(p.sealedSecrets) > 0:
		return f, errors.New("it holds SOPS values and SealedSecrets: put them into files of their own")
	case len(p.raw) > v1alpha1.ResealBytes:
		return f, hint(fmt.Errorf("it is larger than the %d KiB that fit into a Reseal", v1alpha1.ResealBytes>>10), "rotate it offline, with --identity")
	case !utf8.Valid(p.raw):
		return f, hint(errors.New("it is not text in UTF-8"), "rotate it offline, with --identity")
	case len(p.sealedSecrets) > 0:
		f.Format = v1alpha1.FormatSealedSecret
	}
	for _, r := range p.recipients {
		f.Recipients = append(f.Recipients, r.String())
	}
	return f, nil
}

// fits looks whether what came back can be what was asked for: nothing else is written
// into the repository. Whether it opens only the cluster can say, which has tried.
func (p plannedFile) fits(content []byte, public keys.Public) error {
	wrong := func(what string) error { return fmt.Errorf("the agent's answer is not used: %s", what) }
	if len(p.sealedSecrets) > 0 {
		got, err := crypto.ListSealedSecrets(crypto.SealedSecretsRequest{File: content})
		if err != nil || len(got) != len(p.sealedSecrets) {
			return wrong("it holds other SealedSecrets")
		}
		for i, s := range got {
			if s.Target != p.sealedSecrets[i].Target || !slices.Equal(s.Fields, p.sealedSecrets[i].Fields) {
				return wrong("it holds other values")
			}
		}
		return nil
	}
	got, err := crypto.ListSOPS(content, p.format)
	if err != nil || len(got) != len(p.units) {
		return wrong("it holds other sealed units")
	}
	for i, u := range got {
		if !slices.Equal(u.Values, p.units[i].Values) {
			return wrong("it holds other values")
		}
		for _, r := range public.Recipients {
			if !slices.Contains(u.Recipients, r.String()) {
				return wrong("it is not sealed to the cluster's key")
			}
		}
		for _, r := range u.Recipients {
			if !slices.ContainsFunc(p.recipients, func(a crypto.Recipient) bool { return a.String() == r }) && !slices.Contains(p.units[i].Recipients, r) {
				return wrong("it is sealed to " + shortKey(r) + ", whom nobody has asked for")
			}
		}
	}
	return nil
}

// ask makes one Reseal, waits for its answer and deletes it.
func (c *clusterRotation) ask(ctx context.Context, spec v1alpha1.ResealSpec) []resealed {
	out := make([]resealed, len(spec.Files))
	answer, err := c.answered(ctx, spec)
	if err == nil && len(answer.Files) != len(spec.Files) {
		err = errors.New("the agent's answer is not used: it is about other files")
	}
	for i := range out {
		switch {
		case err != nil:
			out[i].err = err
		case answer.Files[i].Reason != "":
			out[i].err = &refusedError{answer.Files[i].Reason, answer.Files[i].Message}
		default:
			out[i] = resealed{content: []byte(answer.Files[i].Content), reformatted: answer.Files[i].Reformatted}
		}
	}
	return out
}

// refusedError is what the agent says of a file.
type refusedError struct{ reason, message string }

func (e *refusedError) Error() string { return e.message + " (" + e.reason + ")" }

func (c *clusterRotation) answered(ctx context.Context, spec v1alpha1.ResealSpec) (v1alpha1.ResealStatus, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, c.answer, fmt.Errorf("the agent has not answered within %s", c.answer))
	defer cancel()
	reseal := v1alpha1.Reseal{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "Reseal"},
		ObjectMeta: metav1.ObjectMeta{GenerateName: "rotate-"}, Spec: spec,
	}
	raw, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&reseal)
	if err != nil {
		return v1alpha1.ResealStatus{}, err
	}
	made, err := c.reseals.Create(ctx, &unstructured.Unstructured{Object: raw}, metav1.CreateOptions{FieldManager: "gitseal-seal"})
	if err != nil {
		if apierrors.IsNotFound(err) {
			err = hint(errors.New("the cluster knows no Reseals"), "upgrade the agent and its CRDs: seal install")
		}
		return v1alpha1.ResealStatus{}, cmpCause(ctx, err)
	}
	defer c.remove(ctx, made.GetName())
	for {
		status, err := c.await(ctx, made)
		if err != nil || status.CompletedAt != nil {
			return status, cmpCause(ctx, err)
		}
	}
}

// await watches one Reseal, until it is answered or the watch ends.
func (c *clusterRotation) await(ctx context.Context, made *unstructured.Unstructured) (v1alpha1.ResealStatus, error) {
	w, err := c.reseals.Watch(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", made.GetName()).String(), ResourceVersion: made.GetResourceVersion()})
	if err != nil {
		return v1alpha1.ResealStatus{}, err
	}
	defer w.Stop()
	for {
		select {
		case <-ctx.Done():
			return v1alpha1.ResealStatus{}, ctx.Err()
		case e, open := <-w.ResultChan():
			switch {
			case !open:
				return v1alpha1.ResealStatus{}, nil
			case e.Type == watch.Deleted:
				return v1alpha1.ResealStatus{}, errors.New("somebody has deleted the Reseal before it was answered")
			case e.Type == watch.Error:
				return v1alpha1.ResealStatus{}, apierrors.FromObject(e.Object)
			}
			u, ok := e.Object.(*unstructured.Unstructured)
			if !ok {
				continue
			}
			var got v1alpha1.Reseal
			if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &got); err != nil {
				return v1alpha1.ResealStatus{}, fmt.Errorf("read the answer: %w", err)
			}
			if got.Status.CompletedAt != nil {
				return got.Status, nil
			}
		}
	}
}

// remove clears away also where the command was interrupted. The agent does so itself,
// later.
func (c *clusterRotation) remove(ctx context.Context, name string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	_ = c.reseals.Delete(ctx, name, metav1.DeleteOptions{})
}

// cmpCause is the reason why ctx has ended, if it has, or the error.
func cmpCause(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
