package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/gitseal/gitseal/test/harness"
)

// A key's life: made, sealed to, followed by another one, backed up, retired, taken back.
// Then the cluster is lost, and another one takes its place.
func TestTheLifeOfKeysAndOfTheClusterAfterThem(t *testing.T) {
	t.Parallel()
	e := newKeysEnv(t)
	agent := e.controller()
	e.fetched()
	e.repo.Write("apps/begin.yaml", configMap(e.app, "begin", "a", "b"))
	e.sealSecret("apps/old.yaml", "old", "password", "OLD-CANARY")
	e.repo.Commit("begin")
	e.makeSync(e.system, "shop", hourly+"  targetNamespace: "+e.app+"\n")
	e.says(0, []string{"reconcile", "shop", "-n", e.system}, "ready")
	first := e.keysList()
	if len(first) != 1 || first[0].State != "active" || !first[0].SealedTo || first[0].BackedUp != "" || len(first[0].NeededBy) != 1 || first[0].NeededBy[0].Files != 1 || first[0].NeededBy[0].Sync != e.system+"/shop" {
		t.Fatalf("got %+v", first)
	}

	t.Log("new")
	e.keys(nil, 0, "new", "!generation 2 is active", "!seal keys backup")
	e.keys(nil, 1, "fetch", "!differ")
	e.fetched()
	e.sealSecret("apps/new.yaml", "new", "password", "NEW-CANARY")
	e.repo.Commit("one that is sealed to the new key")
	e.says(0, []string{"reconcile", "shop", "-n", e.system}, "ready")
	keys := e.keysList()
	if len(keys) != 2 || !keys[0].SealedTo || keys[1].SealedTo || keys[1].Recipient != first[0].Recipient || len(keys[0].NeededBy) != 1 || len(keys[1].NeededBy) != 1 {
		t.Fatalf("got %+v", keys)
	}
	e.keys(nil, 0, "list -o wide", "GENERATION", "2            active *", "SHA256:")
	s := e.secrecy()

	t.Log("backup, by a passphrase; nobody overwrites one")
	word := filepath.Join(e.home, "word")
	if err := os.WriteFile(word, []byte("correct horse\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(e.home, "keys.age")
	e.keys(s, 2, "backup -f "+file, "!--passphrase-file")
	e.keys(s, 1, "backup -f "+file+" --age "+keys[0].Recipient, "!only the keys in the backup would open it")
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a refused backup left a file: %v", err)
	}
	e.keys(s, 0, "backup -f "+file+" --passphrase-file "+word, "!wrote "+file, "!generations 2, 1 and the token key")
	backup := e.file(file)
	s.look("the backup", backup)
	if info, err := os.Stat(file); err != nil || info.Mode() != 0o600 || !strings.HasPrefix(backup, "-----BEGIN AGE ENCRYPTED FILE-----") {
		t.Errorf("the backup is %v, %v", info.Mode(), err)
	}
	e.keys(s, 2, "backup -f "+file+" --passphrase-file "+word, "!exists", "!--force")
	if e.file(file) != backup {
		t.Error("it was overwritten")
	}
	e.shortly("the backup is published", func(context.Context) error {
		for _, k := range e.keysList() {
			if k.BackedUp == "" {
				return fmt.Errorf("not of generation %d", k.Number)
			}
		}
		return nil
	})
	e.keys(s, 0, "restore -f "+file+" --passphrase-file "+word, "!there already: secret "+e.system+"/gitseal-key-2")

	t.Log("retire: not the one that is sealed to, not one that is needed")
	e.keys(s, 1, "retire 2", "!sealed to", "!seal keys new")
	e.keys(s, 1, "retire 1", "!sync "+e.system+"/shop opens 1 files with it", "!--force")
	e.keys(s, 2, "retire 7", "!no such key generation")
	e.keys(s, 0, "retire 1 --force", "!generation 1 is retired", "!--undo")
	e.shortly("without a commit the Sync does not open the old file any more", e.readyIs("shop", "False"))
	e.keys(s, 1, "retire 1", "!sync "+e.system+"/shop is not ready")
	time.Sleep(4 * time.Second) // the next try by itself is four seconds away by now
	e.keys(s, 0, "retire 1 --undo", "!generation 1 is active")
	e.shortly("and heals without one", e.readyIs("shop", "True"))

	t.Log("when the file has left git, the key may go")
	if err := os.Remove(filepath.Join(e.repo.Work, "apps/old.yaml")); err != nil {
		t.Fatal(err)
	}
	e.repo.Commit("without the old one")
	e.says(0, []string{"reconcile", "shop", "-n", e.system}, "ready")
	e.keys(s, 0, "retire 1", "!generation 1 is retired")
	e.eventually("the Sync stays ready", e.readyIs("shop", "True"))
	agent.stop()
	s.look("the agent's log", agent.log())
	e.lost(s, file, word)
}

// lost is what is done after the cluster burnt down.
func (e *env) lost(s *secrecy, file, word string) {
	t := e.t
	t.Helper()
	t.Log("another cluster, with nothing in it")
	b := newEnvOn(t, harness.NewControlPlane(t))
	b.cp.InstallSyncs(t)
	b.repo, b.git, b.home = e.repo, e.git, e.home
	b.app = e.app
	b.kubectl("", "create", "namespace", e.app)
	b.system = e.system // it is made by the restore

	bad := filepath.Join(e.home, "bad")
	if err := os.WriteFile(bad, []byte("correct horsE\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cut := filepath.Join(e.home, "cut.age")
	whole := e.file(file)
	if err := os.WriteFile(cut, []byte(whole[:len(whole)-200]), 0o600); err != nil {
		t.Fatal(err)
	}
	b.keys(s, 2, "restore -f "+file+" --passphrase-file "+bad, "!the passphrase or identity does not open it")
	b.keys(s, 2, "restore -f "+cut+" --passphrase-file "+word, "!cut off, or was changed")
	b.keys(s, 2, "restore -f "+word+" --passphrase-file "+word, "!not an armored age file")
	if _, err := b.client.CoreV1().Namespaces().Get(t.Context(), b.system, metav1.GetOptions{}); err == nil {
		t.Error("a restore that failed made the namespace")
	}
	b.keys(s, 0, "restore -f "+file+" --passphrase-file "+word, "!restored: secret "+b.system+"/gitseal-key-2", "!next: start the agent")
	b.keys(s, 0, "restore -f "+file+" --passphrase-file "+word, "!there already: secret "+b.system+"/gitseal-key-2")
	began := time.Now()
	agent := b.controller()
	b.makeSync(b.system, "shop", hourly+"  targetNamespace: "+b.app+"\n")
	b.says(0, []string{"reconcile", "shop", "-n", b.system}, "ready")
	t.Logf("ready %s after the agent's start", time.Since(began).Round(time.Millisecond))
	if err := b.secret(t.Context(), "new", "password", "NEW-CANARY"); err != nil {
		t.Error(err)
	}
	if names := b.keySecrets(); len(names) != 2 {
		t.Errorf("keys are %v: the agent made one of its own", names)
	}

	t.Log("one key is another one")
	l, err := b.client.CoreV1().Secrets(b.system).Get(t.Context(), "gitseal-key-1", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	from, err := b.client.CoreV1().Secrets(b.system).Get(t.Context(), "gitseal-key-2", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	l.Data = from.Data
	if _, err := b.client.CoreV1().Secrets(b.system).Update(t.Context(), l, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	b.keys(s, 1, "restore -f "+file+" --passphrase-file "+word, "!nothing was restored: secret "+b.system+"/gitseal-key-1", "!the cluster holds age1", "!the backup age1")
	agent.stop()
	s.look("the agent's log", agent.log())
}

func (e *env) file(name string) string {
	e.t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		e.t.Fatal(err)
	}
	return string(b)
}

// Two agents, of which one is killed while it makes a key, and two people.
func TestTwoAgentsAndTwoPeopleGetOneNewGeneration(t *testing.T) {
	t.Parallel()
	e := newEnv(t).withKeys()
	e.start("--interval", "1h", "--require-key-backup")
	victim := e.start("--interval", "1h", "--name", "other", "--require-key-backup")
	var wg sync.WaitGroup
	var codes [2]int
	var outs [2]string
	for i := range codes {
		wg.Go(func() {
			var errOut string
			outs[i], errOut, codes[i] = e.run("", filepath.Join(e.bin, "seal"), "keys", "new", "-n", e.system, "-o", "json", "--timeout", "60s")
			outs[i] += errOut
		})
	}
	time.Sleep(500 * time.Millisecond) // about where a key is made
	victim.kill()
	wg.Wait()
	for i, code := range codes {
		if code != 0 || !strings.Contains(outs[i], `"number": 2`) || !strings.Contains(outs[i], `"state": "standby"`) {
			t.Errorf("exit code %d: %s", code, outs[i])
		}
	}
	e.start("--interval", "1h", "--name", "other", "--require-key-backup")
	time.Sleep(3 * time.Second)
	if names := e.keySecrets(); len(names) != 2 {
		t.Errorf("keys are %v", names)
	}
	t.Log("it is sealed to after its backup only")
	before := e.read(".gitseal/recipients.txt")
	e.keys(nil, 0, "fetch")
	if e.read(".gitseal/recipients.txt") != before {
		t.Error("a key without a backup is published")
	}
	id := harnessIdentity(t, e)
	e.keys(nil, 0, "backup -f "+filepath.Join(e.home, "b.age")+" --age "+id, "!wrote")
	e.shortly("it becomes active", func(context.Context) error {
		if k := e.keysList(); k[0].State != "active" || !k[0].SealedTo {
			return fmt.Errorf("%+v", k)
		}
		return nil
	})
	e.keys(nil, 1, "fetch", "!differ")
	e.keys(nil, 0, "restore -f "+filepath.Join(e.home, "b.age")+" --identity "+filepath.Join(e.home, "id.txt"), "!there already")
	e.keys(nil, 0, "restore --dry-run -f "+filepath.Join(e.home, "b.age")+" --identity "+filepath.Join(e.home, "id.txt"), "!there already")
	t.Log("a key of one's own")
	e.keys(nil, 0, "import --identity "+filepath.Join(e.home, "id.txt"), "!generation 3 is standby", "!"+id)
	e.keys(nil, 1, "import --identity "+filepath.Join(e.home, "id.txt"), "!the key is there already, as generation 3")
	e.shortly("it is listed", func(context.Context) error {
		if k := e.keysList(); len(k) != 3 || k[0].State != "standby" || k[0].Recipient != id || !k[1].SealedTo {
			return fmt.Errorf("%+v", k)
		}
		return nil
	})
	t.Log("an agent sync does not say what it needs")
	e.keys(nil, 1, "retire 1", "!is kept by an `agent sync`")
}

func TestKeysCommandsWithoutRights(t *testing.T) {
	t.Parallel()
	e := newEnv(t).withKeys()
	s := e.secrecy()
	e.asNobody()
	e.keys(s, 3, "new", "!orbidden")
	e.keys(s, 3, "backup -f "+filepath.Join(e.home, "b.age")+" --age "+strings.TrimSpace(e.read(".gitseal/recipients.txt")), "!only administrators")
	if _, err := os.Stat(filepath.Join(e.home, "b.age")); err == nil {
		t.Error("a file was written")
	}
	e.keys(s, 3, "retire 1 --undo", "!only administrators")
	harnessIdentity(t, e)
	e.keys(s, 3, "import --identity "+filepath.Join(e.home, "id.txt"), "!only administrators")
	e.keys(s, 0, "list", "1            active *", "?", "!you may not list the Syncs")
}
