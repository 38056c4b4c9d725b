package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gitseal/gitseal/crypto"
)

// meddler is a resealer while somebody else changes a file.
type meddler struct {
	offline
	path string
}

func (m meddler) reseal(ctx context.Context, batch []plannedFile) []resealed {
	out := m.offline.reseal(ctx, batch)
	for _, p := range batch {
		if p.path == m.path {
			if err := os.WriteFile(m.path, []byte("mine\n"), 0o600); err != nil {
				panic(err)
			}
		}
	}
	return out
}

// rotateTree is a folder with sealed files and what rotates them.
type rotateTree struct {
	dir       string
	old, next crypto.Identity
}

func newRotateTree(t *testing.T, files int) rotateTree {
	t.Helper()
	tree := rotateTree{dir: t.TempDir()}
	for _, id := range []*crypto.Identity{&tree.old, &tree.next} {
		var err error
		if *id, err = crypto.GenerateIdentity(); err != nil {
			t.Fatal(err)
		}
	}
	tree.write(t, ".git/HEAD", nil)
	tree.write(t, ".sops.yaml", []byte("creation_rules: [{age: "+tree.next.Recipient().String()+"}]\n"))
	tree.write(t, "old.key", tree.old.Text().Reveal())
	for i := range files {
		name := fmt.Sprintf("apps/%03d/secret.yaml", i)
		sealed, err := crypto.SealSOPS(crypto.SealRequest{
			Plain: crypto.NewSecretString(fmt.Sprintf("# c\na: value-%d\nb: [1, true]\n", i)), Format: crypto.YAML,
			Rule: crypto.Rule{Recipients: []crypto.Recipient{tree.old.Recipient()}}, Now: time.Now(),
		})
		if err != nil {
			t.Fatal(err)
		}
		tree.write(t, name, sealed)
	}
	return tree
}

func (r rotateTree) write(t *testing.T, name string, content []byte) {
	t.Helper()
	path := filepath.Join(r.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// openWith returns the files that a key opens, and fails the test for one that neither
// key does, or that holds something else than it did.
func (r rotateTree) openWith(t *testing.T, id crypto.Identity) map[string]string {
	t.Helper()
	files, err := filepath.Glob(r.dir + "/apps/*/secret.yaml")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for i, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		f, err := crypto.OpenSOPS(crypto.OpenRequest{File: b, Format: crypto.YAML, Keys: crypto.Keyring{Identities: []crypto.Identity{r.old, r.next}}})
		if err != nil {
			t.Fatalf("%s does not open: %v", file, err)
		}
		if got := string(f.Leaves[0].Text.Reveal()); got != "value-"+strconv.Itoa(i) {
			t.Fatalf("%s holds %q", file, got)
		}
		if f.OpenedBy()[0] == id.Recipient().Fingerprint() {
			out[file] = string(b)
		}
	}
	return out
}

func (r rotateTree) plan(t *testing.T) []plannedFile {
	t.Helper()
	tree, err := findSealed(t.Context(), r.dir, offlineKeys{})
	if err != nil {
		t.Fatal(err)
	}
	return rotateOptions{}.plan(tree, r.dir)
}

func (r rotateTree) keys() offlineKeys {
	return offlineKeys{ring: crypto.Keyring{Identities: []crypto.Identity{r.old}}}
}

func TestAFileThatSomebodyChangesMeanwhileIsLeftAsItIs(t *testing.T) {
	t.Parallel()
	tree := newRotateTree(t, 4)
	state, err := openRotation(tree.dir, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	defer state.close()
	if _, err := openRotation(tree.dir, time.Now()); !errors.Is(err, errRotating) {
		t.Errorf("a second rotation at the same time: %v", err)
	}
	plan := tree.plan(t)
	changed := plan[1].path
	r := rotation{resealer: meddler{offline{tree.keys(), time.Now()}, changed}, state: state, progress: newProgress(&bytes.Buffer{}, len(plan))}
	r.run(t.Context(), plan)
	for i, p := range plan {
		if want := i != 1; p.changed != want || errors.Is(p.err, errChangedMeanwhile) == want {
			t.Errorf("%s: changed %v, %v", p.path, p.changed, p.err)
		}
	}
	if b, err := os.ReadFile(changed); err != nil || string(b) != "mine\n" {
		t.Errorf("%q, %v", b, err)
	}
	if left, _ := filepath.Glob(tree.dir + "/apps/*/.*"); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestAnInterruptedRotationSaysSo(t *testing.T) {
	t.Parallel()
	tree := newRotateTree(t, 3)
	state, err := openRotation(tree.dir, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	defer state.close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	plan := tree.plan(t)
	rotation{resealer: offline{tree.keys(), time.Now()}, state: state, progress: newProgress(&bytes.Buffer{}, len(plan))}.run(ctx, plan)
	if err := rotateOutcome(ctx, plan); err == nil || !strings.Contains(err.Error(), "3 of 3 files are left") {
		t.Errorf("got %v", err)
	}
	if n := len(tree.openWith(t, tree.old)); n != 3 {
		t.Errorf("%d files are sealed to the old key, want 3", n)
	}
}

func TestAnOldStateIsOfAnotherRotation(t *testing.T) {
	t.Parallel()
	tree := newRotateTree(t, 1)
	for name, c := range map[string]struct {
		later time.Duration
		want  bool
	}{"an hour later": {time.Hour, true}, "two days later": {48 * time.Hour, false}} {
		p := plannedFile{sealedFile: sealedFile{path: name}}
		state, err := openRotation(tree.dir, time.Now())
		if err == nil {
			err = state.finish(p, []byte(name))
		}
		if err != nil {
			t.Fatal(err)
		}
		state.close()
		if state, err = openRotation(tree.dir, time.Now().Add(c.later)); err != nil {
			t.Fatal(err)
		}
		if got := state.finished(p, []byte(name)); got != c.want || state.finished(p, []byte("other")) {
			t.Errorf("%s: done %v, want %v", name, got, c.want)
		}
		if err := state.remove(); err != nil {
			t.Fatal(err)
		}
		state.close()
	}
}

// TestARotationThatIsKilledSoak: after each kill every file opens, and what comes after
// finishes the work, without doing again what was done. GITSEAL_SOAK kills, 30 without.
func TestARotationThatIsKilledSoak(t *testing.T) {
	t.Parallel()
	kills := 30
	if n, err := strconv.Atoi(os.Getenv("GITSEAL_SOAK")); err == nil {
		kills = n
	}
	seal, err := exec.LookPath("seal") // that of testscript, which is this test
	if err != nil {
		seal = buildSeal(t)
	}
	const files = 80
	tree := newRotateTree(t, files)
	rotate := func() *exec.Cmd {
		cmd := exec.Command(seal, "rotate", "--identity", filepath.Join(tree.dir, "old.key"), tree.dir)
		cmd.Env = append(os.Environ(), "SOPS_AGE_KEY=", "SOPS_AGE_KEY_FILE=", "SOPS_AGE_KEY="+string(tree.next.Text().Reveal()))
		return cmd
	}
	began := time.Now()
	if out, err := rotate().CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	whole := time.Since(began)
	if n := len(tree.openWith(t, tree.next)); n != files {
		t.Fatalf("%d files are sealed to the new key, want %d", n, files)
	}
	between, leftovers := 0, 0
	for i := range kills {
		tree = newRotateTree(t, files)
		for done := map[string]string{}; len(done) < files; { // until it has come through, with kills on the way
			cmd := rotate()
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &out
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			timer := time.AfterFunc(whole/3+rand.N(whole*3/4), func() { _ = cmd.Process.Kill() }) // it may have ended
			err := cmd.Wait()
			timer.Stop()
			if err != nil && !cmd.ProcessState.Exited() {
				err = nil // killed
			}
			if err != nil {
				t.Fatalf("kill %d: %v\n%s", i, err, out.String())
			}
			now := tree.openWith(t, tree.next)
			for file, content := range done {
				if now[file] != content {
					t.Fatalf("%s was done, and was done again", file)
				}
			}
			if done = now; len(done) > 0 && len(done) < files {
				between++
			}
			if left, _ := filepath.Glob(tree.dir + "/apps/*/.*"); len(left) > 0 {
				leftovers++
			}
		}
		out, err := rotate().CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if left, _ := filepath.Glob(tree.dir + "/apps/*/.*"); len(left) > 0 {
			t.Errorf("left behind: %q", left)
		}
		if _, err := os.Stat(filepath.Join(tree.dir, ".git", stateName)); !notExist(err) {
			t.Errorf("the state is still there: %v", err)
		}
	}
	t.Logf("%d of the kills came between two files, %d left a new file behind that had not taken its place", between, leftovers)
	if kills >= 30 && between == 0 {
		t.Error("no kill came between two files: the test tests nothing")
	}
}

func buildSeal(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "seal")
	if out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return path
}
