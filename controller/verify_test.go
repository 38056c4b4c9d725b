package controller

import (
	"context"
	"errors"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/gitseal/gitseal/api/v1alpha1"
	"github.com/gitseal/gitseal/test/harness"
	"github.com/gitseal/gitseal/test/syncs"
)

// signers makes a Secret of public keys in the team's namespace.
func (w *world) signers(secret string, who ...harness.Signer) {
	w.t.Helper()
	data := map[string][]byte{}
	for i, s := range who {
		data[string(rune('a'+i))+".pub"] = s.Public
	}
	w.admin.Make(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.team, Name: secret}, Data: data})
}

func verified(edit func(*v1alpha1.Verify)) func(*v1alpha1.Sync) {
	return func(s *v1alpha1.Sync) {
		s.Spec.Source.Verify = &v1alpha1.Verify{SecretRef: v1alpha1.LocalReference{Name: "signers"}}
		if edit != nil {
			edit(s.Spec.Source.Verify)
		}
	}
}

func TestOnlySignedCommitsAreLetIn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ada, mallory := harness.NewSigner(t, "ada"), harness.NewSigner(t, "mallory")
	w.signers("signers", ada)
	w.repo.SignAs(ada)
	first := w.commit("signed", "web.yaml", syncs.ConfigMap("", "web", "one"))
	s := w.sync(w.team, "app", "", verified(nil))
	w.start()
	got := w.ready(s)
	if len(got.Status.Applied.Signers) != 1 || !strings.Contains(got.Status.Applied.Signers[0], "SHA256:") {
		t.Errorf("signers: %q", got.Status.Applied.Signers)
	}
	for name, by := range map[string]harness.Signer{"unsigned": {}, "by somebody unknown": mallory} {
		w.repo.SignAs(by)
		w.commit(name, "web.yaml", syncs.ConfigMap("", "web", name))
		want := "not signed"
		if by.File != "" {
			want = "not trusted"
		}
		got = w.condition(s, v1alpha1.Ready, metav1.ConditionFalse, VerificationFailed)
		harness.Eventually(t, "the reason", w.says(s, want))
		if got.Status.Applied.Hash != first {
			t.Errorf("%s: applied %s", name, got.Status.Applied.Hash)
		}
		w.change(w.team, "web", "edited") // the last good one stays in force
		w.value(w.team, "web", "one")
	}
	// The settings change while the newest commit is not let in: what is applied is kept.
	w.edit(s, func(s *v1alpha1.Sync) { s.Spec.Force = true })
	w.condition(s, v1alpha1.Ready, metav1.ConditionFalse, VerificationFailed)
	w.change(w.team, "web", "edited")
	w.value(w.team, "web", "one")

	w.repo.SignAs(ada)
	w.commit("signed again", "web.yaml", syncs.ConfigMap("", "web", "two"))
	w.ready(s)
	w.value(w.team, "web", "two")
}

func TestSignersOfFolders(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ada, bob := harness.NewSigner(t, "ada"), harness.NewSigner(t, "bob")
	w.signers("signers", ada, bob)
	w.signers("prod", ada)
	w.repo.SignAs(ada)
	w.commit("first", "dev/web.yaml", syncs.ConfigMap("", "dev", "one"), "prod/web.yaml", syncs.ConfigMap("", "prod", "one"))
	s := w.sync(w.team, "app", "", verified(func(v *v1alpha1.Verify) {
		v.Paths = []v1alpha1.VerifyPath{{Path: "prod", SecretRef: v1alpha1.LocalReference{Name: "prod"}}}
	}))
	w.start()
	w.ready(s)
	w.repo.SignAs(bob)
	w.commit("bob in dev", "dev/web.yaml", syncs.ConfigMap("", "dev", "two"))
	w.ready(s)
	w.commit("bob in prod", "prod/web.yaml", syncs.ConfigMap("", "prod", "two"))
	got := w.condition(s, v1alpha1.Ready, metav1.ConditionFalse, VerificationFailed)
	contains(t, "Ready", said(got), "prod/web.yaml")
	w.stays(w.team, "prod", "one")
}

func TestAReplayedCommitIsNotLetIn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ada := harness.NewSigner(t, "ada")
	w.signers("signers", ada)
	w.repo.SignAs(ada)
	old := w.commit("with a hole", "app/web.yaml", syncs.ConfigMap("", "web", "hole"))
	signed := w.sync(w.team, "signed", "app", verified(nil))
	plain := w.sync(w.team, "plain", "other", nil)
	w.commit("other", "other/web.yaml", syncs.ConfigMap("", "other", "one"))
	w.start()
	w.ready(signed)
	mended := w.commit("mended", "app/web.yaml", syncs.ConfigMap("", "web", "mended"), "other/web.yaml", syncs.ConfigMap("", "other", "two"))
	w.ready(signed)
	w.value(w.team, "other", "two")
	w.repo.Git("reset", "-q", "--hard", old)
	w.repo.Git("push", "-q", "--force", "origin", "HEAD:main")
	got := w.condition(signed, v1alpha1.Ready, metav1.ConditionFalse, NotADescendant)
	contains(t, "Ready", said(got), "does not descend from "+mended[:12], v1alpha1.AllowRollbackAnnotation+": "+old)
	w.stays(w.team, "web", "mended")
	// Without verify a force-pushed branch is followed, and said.
	harness.Eventually(t, "it is said", func(ctx context.Context) error {
		l := &eventsv1.EventList{}
		if err := w.admin.List(ctx, l, client.InNamespace(w.team)); err != nil {
			return err
		}
		for _, e := range l.Items {
			if e.Regarding.Name == "plain" && e.Reason == "HistoryRewritten" && strings.Contains(e.Note, old) {
				return nil
			}
		}
		return errors.New("no event")
	})
	w.condition(plain, v1alpha1.Ready, metav1.ConditionFalse, BuildFailed) // the folder is not there
	// A commit that is named may go back; another one not.
	w.edit(signed, func(s *v1alpha1.Sync) {
		s.Annotations = map[string]string{v1alpha1.AllowRollbackAnnotation: strings.Repeat("0", 40)}
	})
	w.condition(signed, v1alpha1.Ready, metav1.ConditionFalse, NotADescendant)
	w.edit(signed, func(s *v1alpha1.Sync) { s.Annotations[v1alpha1.AllowRollbackAnnotation] = old })
	w.ready(signed)
	w.value(w.team, "web", "hole")
}

func TestALowerVersionIsNotLetIn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ada := harness.NewSigner(t, "ada")
	w.signers("signers", ada)
	w.repo.SignAs(ada)
	w.commit("one", "web.yaml", syncs.ConfigMap("", "web", "1.0.0"))
	w.repo.Git("tag", "-s", "-m", "release", "v1.0.0")
	w.commit("two", "web.yaml", syncs.ConfigMap("", "web", "1.1.0"))
	w.repo.Git("tag", "-s", "-m", "release", "v1.1.0")
	w.repo.Git("push", "-q", "origin", "--tags")
	s := w.sync(w.team, "app", "", func(s *v1alpha1.Sync) {
		verified(func(v *v1alpha1.Verify) { v.Mode = "Tag" })(s)
		s.Spec.Source.Ref.SemVer = "1.x"
	})
	w.start()
	got := w.ready(s)
	contains(t, "revision", got.Status.Applied.Revision, "v1.1.0@sha1:")
	w.repo.Git("push", "-q", "origin", ":refs/tags/v1.1.0")
	got = w.condition(s, v1alpha1.Ready, metav1.ConditionFalse, NotADescendant)
	contains(t, "Ready", said(got), "v1.0.0 is a lower version than v1.1.0")
	w.stays(w.team, "web", "1.1.0")
}
