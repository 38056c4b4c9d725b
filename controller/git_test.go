package controller

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/gitseal/gitseal/api/v1alpha1"
	"github.com/gitseal/gitseal/test/harness"
	"github.com/gitseal/gitseal/test/syncs"
)

// A git server that hangs, lies, grows huge or vanishes stops its own Sync only: what
// that one had applied stays, drift of it is corrected, other Syncs get their commits,
// and once the server is well again it goes on by itself.
func TestABadGitServerStopsItsOwnSyncOnly(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.cfg.RepositoryBytes = 1 << 20
	repos := t.TempDir()
	repo := harness.NewRepo(t, repos, "team")
	git := harness.NewGitHTTP(t, harness.GitHTTPConfig{Root: repos})
	repo.Write("web.yaml", syncs.ConfigMap("", "web", "v0"))
	last := repo.Commit("first")
	w.commit("first", "app.yaml", syncs.ConfigMap("", "app", "v0"))
	hit := w.sync(w.team, "hit", "", func(s *v1alpha1.Sync) {
		s.Spec.Source.URL, s.Spec.Source.Timeout = git.RepoURL("team"), metav1.Duration{Duration: 10 * time.Second}
	})
	other := w.sync(w.team, "other", "", nil)
	w.start()
	w.admin.Applied(hit, last)
	w.ready(other)

	back := func() { git.SetHandler(nil) }
	over := make(chan struct{})
	t.Cleanup(func() { close(over) })
	faults := []struct {
		name  string
		begin func()
		end   func()
		says  string // besides the repository
	}{
		{"it hangs", func() {
			git.SetHandler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				select {
				case <-r.Context().Done():
				case <-over:
				}
			}))
		}, back, "not done within 10s"},
		{"it lies", func() { git.SetHandler(liar(strings.Repeat("ab", 20))) }, back, "malformed or cut short"},
		{"its refs are never over", func() { git.SetHandler(http.HandlerFunc(endless)) }, back, "over the limit"},
		{"it vanishes", func() { git.SetDown(true) }, func() { git.SetDown(false) }, "connection"},
		{"its files are huge", func() {
			for i := range 3 {
				repo.Write(fmt.Sprintf("big/%d", i), strings.Repeat(fmt.Sprint(i), 500<<10))
			}
			repo.Commit("huge")
		}, func() { repo.Remove("big") }, "over the limit of 1048576 bytes"},
	}
	for i, f := range faults {
		f.begin()
		got := w.condition(hit, v1alpha1.Ready, metav1.ConditionFalse, FetchFailed)
		harness.Eventually(t, f.name+": it is said", w.says(hit, f.says))
		contains(t, f.name, said(w.get(hit)), git.RepoURL("team"))
		if got.Status.Applied == nil || got.Status.Applied.Hash != last {
			t.Errorf("%s: applied %+v, want %s", f.name, got.Status.Applied, last)
		}
		now := fmt.Sprint("v", i+1)
		w.commit(f.name, "app.yaml", syncs.ConfigMap("", "app", now))
		w.ready(other)
		w.value(w.team, "app", now)
		w.change(w.team, "web", "edited")
		w.value(w.team, "web", fmt.Sprint("v", i))

		f.end()
		repo.Write("web.yaml", syncs.ConfigMap("", "web", now))
		last = repo.Commit("after it " + f.name)
		w.admin.Applied(hit, last)
		w.value(w.team, "web", now)
	}
}

// liar tells of a commit that it does not send.
func liar(hash string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			w.Header().Set("Content-Type", "application/x-git-upload-pack-result")
			_, _ = io.WriteString(w, "00000008NAK\nPACK, they say")
			return
		}
		w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
		line := hash + " HEAD\x00symref=HEAD:refs/heads/main shallow\n"
		branch := hash + " refs/heads/main\n"
		_, _ = fmt.Fprintf(w, "001e# service=git-upload-pack\n0000%04x%s%04x%s0000", len(line)+4, line, len(branch)+4, branch)
	})
}

// endless sends refs until nobody listens.
func endless(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
	out := bufio.NewWriterSize(w, 1<<20)
	_, err := out.WriteString("001e# service=git-upload-pack\n0000")
	for i := 0; err == nil && r.Context().Err() == nil; i++ {
		line := fmt.Sprintf("%040x refs/heads/%d\n", i, i)
		_, err = fmt.Fprintf(out, "%04x%s", len(line)+4, line)
	}
}
