package controller

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/gitseal/gitseal/api/v1alpha1"
	"github.com/gitseal/gitseal/crypto"
	"github.com/gitseal/gitseal/keys"
	"github.com/gitseal/gitseal/test/harness"
	"github.com/gitseal/gitseal/test/syncs"
)

// reseal makes a Reseal and waits for its answer.
func (w *world) reseal(name string, spec v1alpha1.ResealSpec) *v1alpha1.Reseal {
	w.t.Helper()
	r := &v1alpha1.Reseal{ObjectMeta: metav1.ObjectMeta{Namespace: w.system, Name: name}, Spec: spec}
	w.admin.Make(r)
	harness.Eventually(w.t, "Reseal "+name+" is answered", func(ctx context.Context) error {
		if err := w.admin.Get(ctx, client.ObjectKeyFromObject(r), r); err != nil {
			return err
		}
		if r.Status.CompletedAt == nil {
			return fmt.Errorf("status %+v", r.Status)
		}
		return nil
	})
	return r
}

func TestAResealIsAnsweredOnceAndGoes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	person, err := crypto.GenerateIdentity()
	if err != nil {
		t.Fatal(err)
	}
	w.admin.Make(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: w.system, Name: keys.RecipientsConfigMap},
		Data: map[string]string{keys.RecipientsKey: "# Ada\n" + person.Recipient().String() + "\n"}})
	w.start()
	good := syncs.Seal(t, append([]crypto.Recipient{person.Recipient()}, w.public.Recipients...), syncs.Secret{Namespace: w.team, Name: "db", Password: "hunter2", Binding: w.team + "/db"})
	stranger, err := crypto.GenerateIdentity()
	if err != nil {
		t.Fatal(err)
	}
	bad := syncs.Seal(t, append([]crypto.Recipient{stranger.Recipient()}, w.public.Recipients...), syncs.Secret{Namespace: w.team, Name: "db", Password: "hunter2", Binding: w.team + "/db"})
	spec := v1alpha1.ResealSpec{Files: []v1alpha1.ResealFile{{Name: "apps/db.yaml", Format: "yaml", Content: good}, {Name: "apps/bad.yaml", Format: "yaml", Content: bad}}}
	r := w.reseal("first", spec)
	if r.Status.Generation != 1 || r.Status.Resealed != 1 || r.Status.Refused != 1 || len(r.Status.Files) != 2 || r.Status.Files[1].Reason != v1alpha1.ResealUnlistedRecipient {
		t.Fatalf("answer %+v", r.Status)
	}
	again := r.Status.Files[0].Content
	f, err := crypto.OpenSOPS(crypto.OpenRequest{File: []byte(again), Format: crypto.YAML, Keys: crypto.Keyring{Identities: []crypto.Identity{person}}, MAC: crypto.MACRequired})
	if err != nil || again == good || len(f.Bindings()) != 1 || string(f.Bindings()[0]) != w.team+"/db" {
		t.Fatalf("it does not open for whom it should, or is bound otherwise: %v", err)
	}
	for _, line := range []string{`"action":"reseal","reseal":"first","file":"apps/db.yaml","generation":1`, `"file":"apps/bad.yaml","generation":1,"key":"` + w.public.Recipients[0].Fingerprint() + `","outcome":"refused","reason":"UnlistedRecipient"`} {
		harness.Eventually(t, "the audit lines say it", func(context.Context) error {
			if got := w.audit.String(); !strings.Contains(got, line) {
				return fmt.Errorf("no %s in\n%s", line, got)
			}
			return nil
		})
	}
	if log := w.log.String() + w.audit.String(); strings.Contains(log, "hunter2") || strings.Contains(log, "ENC[") {
		t.Error("the agent's log holds content")
	}

	t.Log("what was answered stays so, whatever becomes of the question")
	r.Spec.Files = r.Spec.Files[:1]
	if err := w.admin.Update(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	elsewhere := &v1alpha1.Reseal{ObjectMeta: metav1.ObjectMeta{Namespace: w.team, Name: "elsewhere"}, Spec: spec}
	w.admin.Make(elsewhere)
	w.reseal("second", spec)
	if err := w.admin.Get(t.Context(), client.ObjectKeyFromObject(r), r); err != nil || len(r.Status.Files) != 2 {
		t.Errorf("%v, answer %+v", err, r.Status)
	}
	if err := w.admin.Get(t.Context(), client.ObjectKeyFromObject(elsewhere), elsewhere); err != nil || elsewhere.Status.CompletedAt != nil {
		t.Errorf("a Reseal of a tenant's namespace: %v, %+v", err, elsewhere.Status)
	}

	t.Log("it goes when its time is over")
	r.Status.CompletedAt = &metav1.Time{Time: time.Now().Add(-resealAge)}
	if err := w.admin.Status().Update(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, "it is deleted", func(ctx context.Context) error {
		if err := w.admin.Get(ctx, client.ObjectKeyFromObject(r), r); !apierrors.IsNotFound(err) {
			return fmt.Errorf("got %w", err)
		}
		return nil
	})

	t.Log("the schema bounds it")
	many := v1alpha1.ResealSpec{Files: make([]v1alpha1.ResealFile, v1alpha1.ResealFiles+1)}
	for i := range many.Files {
		many.Files[i] = v1alpha1.ResealFile{Name: "x", Format: "yaml", Content: "x"}
	}
	for name, c := range map[string]struct {
		spec v1alpha1.ResealSpec
		want string
	}{
		"none":      {v1alpha1.ResealSpec{}, "spec.files"},
		"too many":  {many, "at most 200 items"},
		"too large": {v1alpha1.ResealSpec{Files: []v1alpha1.ResealFile{{Name: "x", Format: "yaml", Content: strings.Repeat("x", v1alpha1.ResealBytes+1)}}}, "Too long"},
		"a format":  {v1alpha1.ResealSpec{Files: []v1alpha1.ResealFile{{Name: "x", Format: "toml", Content: "x"}}}, "Unsupported value"},
		"no name":   {v1alpha1.ResealSpec{Files: []v1alpha1.ResealFile{{Format: "yaml", Content: "x"}}}, "files[0].name"},
	} {
		r := &v1alpha1.Reseal{ObjectMeta: metav1.ObjectMeta{Namespace: w.system, Name: "bad"}, Spec: c.spec}
		if err := w.admin.Create(t.Context(), r); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
}
