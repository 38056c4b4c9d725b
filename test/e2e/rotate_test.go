package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"filippo.io/age"

	"github.com/gitseal/gitseal/test/harness"
)

const rotatedDeployment = `apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: APP}
spec:
  replicas: 0
  selector: {matchLabels: {a: web}}
  template:
    metadata: {labels: {a: web}}
    spec: {containers: [{name: c, image: "web:1", envFrom: [{secretRef: {name: conf}}, {secretRef: {name: db}}]}]}
`

// rotateEnv is a team whose secrets the agent applies, and one who may rotate: he has the
// Role gitseal-resealer, and no other right.
type rotateEnv struct {
	*env
	rotator string // kubeconfig
}

func newRotateEnv(t *testing.T) *rotateEnv {
	t.Helper()
	e := &rotateEnv{env: newKeysEnv(t)}
	root, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	role, err := os.ReadFile(filepath.Join(root, "deploy", "base", "resealer.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	e.kubectl(strings.ReplaceAll(string(role), "gitseal-system", e.system), "create", "-f", "-")
	e.kubectl("", "create", "serviceaccount", "rotator", "-n", e.system)
	e.kubectl("", "create", "rolebinding", "rotator", "-n", e.system, "--role", "gitseal-resealer", "--serviceaccount", e.system+":rotator")
	e.rotator = e.cp.AccountKubeconfig(t, e.system, "rotator")
	e.controller()
	e.fetched()
	e.repo.Git("config", "user.name", "Ada")
	e.repo.Git("config", "user.email", "ada@example.com")
	e.repo.Git("config", "push.autoSetupRemote", "true")
	return e
}

func (e *rotateEnv) rotateArgs(more ...string) []string {
	return append([]string{"rotate", "--kubeconfig", e.rotator, "--agent-namespace", e.system}, more...)
}

func (e *rotateEnv) rotate(more ...string) (out, errOut string, code int) {
	e.t.Helper()
	return e.run("", filepath.Join(e.bin, "seal"), e.rotateArgs(more...)...)
}

// identities are the age keys of these generations, as somebody who leaves has them.
func (e *rotateEnv) identities(numbers ...int) string {
	e.t.Helper()
	var out string
	for _, n := range numbers {
		s, err := e.client.CoreV1().Secrets(e.system).Get(e.t.Context(), fmt.Sprintf("gitseal-key-%d", n), metav1.GetOptions{})
		if err != nil {
			e.t.Fatal(err)
		}
		out += string(s.Data["identity.agekey"]) + "\n"
	}
	return out
}

// A laptop that holds no private key rotates the cluster's key in one command: all files
// are sealed to the new one, nothing else of them changes, and no workload is touched.
// Then the old key can be retired.
func TestRotationThroughTheCluster(t *testing.T) {
	t.Parallel()
	sops := harness.Oracle(t, "sops")
	e := newRotateEnv(t)
	person, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	e.repo.Write("apps/kustomization.yaml", "namespace: "+e.app+"\nresources: [db.yaml, api.yaml, web.yaml]\nsecretGenerator: [{name: conf, envs: [conf.env]}]\n")
	e.repo.Write("apps/web.yaml", strings.ReplaceAll(rotatedDeployment, "APP", e.app))
	e.sealSecret("apps/db.yaml", "db", "password", "rotate-canary-1")
	e.repo.Write("apps/db.yaml", "# written by Ada\n"+e.read("apps/db.yaml"))
	e.repo.Write("apps/conf.env", e.seal("KEY=rotate-canary-2\n", "encrypt", "--for", e.app+"/conf", "--filename", "conf.env", "-"))
	e.repo.Write("apps/api.yaml", "# by kubeseal\n"+e.seal("apiVersion: v1\nkind: Secret\nmetadata: {name: api, namespace: "+e.app+"}\nstringData: {token: rotate-canary-3}\n", "sealedsecret"))
	before := e.repo.Commit("begin")
	e.makeSync(e.system, "shop", hourly+"  targetNamespace: "+e.app+"\n  retryInterval: 1s\n")
	e.says(0, []string{"reconcile", "shop", "-n", e.system}, "ready")
	versions := func() string {
		return e.kubectl("", "get", "secrets,deployments", "-n", e.app, "-o", `jsonpath={range .items[*]}{.kind}/{.metadata.name} {.metadata.uid} {.metadata.generation} {.data}{"\n"}{end}`)
	}
	was := versions()
	if n := strings.Count(was, "\n"); n != 4 {
		t.Fatalf("%d objects:\n%s", n, was)
	}

	t.Log("one command")
	out, errOut, code := e.rotate("--commit")
	if code != 0 || !strings.Contains(errOut, "sealing to generation 2") {
		t.Fatalf("exit code %d\n%s%s", code, out, errOut)
	}
	if strings.Contains(out+errOut, "rotate-canary") {
		t.Error("a value was printed")
	}
	changed := strings.Fields(e.repo.Git("diff", "--name-only", before, "HEAD"))
	if want := []string{".gitseal/cert.pem", ".gitseal/recipients.txt", ".sops.yaml", "apps/api.yaml", "apps/conf.env", "apps/db.yaml"}; !slices.Equal(changed, want) {
		t.Errorf("the commit changes %v, want %v", changed, want)
	}
	if subject := strings.TrimSpace(e.repo.Git("log", "-1", "--format=%an: %s")); subject != "Ada: seal rotate: 3 files" {
		t.Errorf("the commit is %q", subject)
	}
	if left := e.kubectl("", "get", "reseals", "-n", e.system, "-o", "name"); left != "" {
		t.Errorf("Reseals are left: %s", left)
	}
	for file, canary := range map[string]string{"apps/db.yaml": "rotate-canary-1", "apps/conf.env": "rotate-canary-2"} {
		for n, opens := range map[int]bool{1: false, 2: true} {
			out, _, code := e.run("", "env", "SOPS_AGE_KEY="+e.identities(n), sops, "decrypt", file)
			if (code == 0 && strings.Contains(out, canary)) != opens {
				t.Errorf("%s opens for generation %d in stock sops: exit code %d, want %v", file, n, code, opens)
			}
		}
	}
	if !strings.HasPrefix(e.read("apps/db.yaml"), "# written by Ada\napiVersion: v1\n") || !strings.HasPrefix(e.read("apps/api.yaml"), "# by kubeseal\n") {
		t.Error("comments were lost")
	}
	if out, errOut, code := e.rotate("--check"); code != 0 {
		t.Errorf("--check: exit code %d\n%s%s", code, out, errOut)
	}

	t.Log("the old key is needed until the commit is applied; then it can go")
	e.keys(nil, 1, "retire 1", "!"+e.system+"/shop")
	e.repo.Git("push", "-q")
	e.says(0, []string{"reconcile", "shop", "-n", e.system}, "ready")
	if now := versions(); now != was {
		t.Errorf("objects were\n%sand are\n%s", was, now)
	}
	e.repo.Git("revert", "--no-edit", "HEAD")
	e.repo.Git("push", "-q")
	e.says(0, []string{"reconcile", "shop", "-n", e.system}, "ready") // back, while the old key is there
	e.repo.Git("revert", "--no-edit", "HEAD")
	e.repo.Git("push", "-q")
	e.says(0, []string{"reconcile", "shop", "-n", e.system}, "ready")
	e.keys(nil, 0, "retire 1")
	if now := versions(); now != was {
		t.Errorf("objects were\n%sand are\n%s", was, now)
	}

	t.Log("people keep their access if an administrator has listed them, and nobody else gets any")
	config := e.read(".sops.yaml")
	active := strings.TrimSpace(e.read(".gitseal/recipients.txt"))
	e.repo.Write(".sops.yaml", strings.ReplaceAll(config, active, active+","+person.Recipient().String()))
	db := e.read("apps/db.yaml")
	if out, errOut, code := e.rotate("--same-key"); code != 2 || !strings.Contains(out+errOut, "UnlistedRecipient") || e.read("apps/db.yaml") != db {
		t.Errorf("an unlisted recipient: exit code %d\n%s%s", code, out, errOut)
	}
	e.kubectl("", "create", "configmap", "gitseal-recipients", "-n", e.system, "--from-literal", "recipients.txt="+person.Recipient().String())
	if out, errOut, code := e.rotate("--same-key"); code != 0 {
		t.Fatalf("a listed recipient: exit code %d\n%s%s", code, out, errOut)
	}
	if out, errOut, code := e.run("", "env", "SOPS_AGE_KEY="+person.String(), sops, "decrypt", "apps/db.yaml"); code != 0 || !strings.Contains(out, "rotate-canary-1") {
		t.Errorf("it does not open for a listed recipient: %s", errOut)
	}
	if keys := e.keysList(); len(keys) != 2 {
		t.Errorf("--same-key has made a new key: %+v", keys)
	}

	t.Log("wrong input")
	for name, c := range map[string]struct {
		args []string
		code int
		want string
	}{
		"nobody":         {[]string{"rotate", "--kubeconfig", e.cp.AccountKubeconfig(t, e.app, "default"), "--agent-namespace", e.system}, 3, "gitseal-resealer"},
		"another agent":  {[]string{"rotate", "--kubeconfig", e.rotator, "--agent-namespace", e.app}, 3, "forbidden"},
		"two ways":       {e.rotateArgs("--cluster", "--identity", "x"), 2, "[cluster identity]"},
		"no such folder": {e.rotateArgs("nowhere"), 2, "nowhere"},
	} {
		if out, errOut, code := e.run("", filepath.Join(e.bin, "seal"), c.args...); code != c.code || !strings.Contains(errOut, c.want) {
			t.Errorf("%s: exit code %d, want %d with %q\n%s%s", name, code, c.code, c.want, out, errOut)
		}
	}
}

// Killed at any point, a rotation leaves a tree in which every file opens, and the next
// run goes on with the key that was made for it.
func TestSoakRotationThroughTheClusterIsKilled(t *testing.T) {
	t.Parallel()
	sops := harness.Oracle(t, "sops")
	e := newRotateEnv(t)
	e.repo.Write("apps/begin.yaml", configMap(e.app, "begin", "a", "b"))
	const files = 60
	for i := range files {
		e.sealSecret(fmt.Sprintf("apps/%d.yaml", i), fmt.Sprintf("db-%d", i), "password", fmt.Sprintf("value-%d", i))
	}
	e.repo.Commit("begin")
	kills := number(t, "GITSEAL_SOAK", soakRounds) / 6
	killed := 0
	for range kills {
		cmd := exec.CommandContext(t.Context(), filepath.Join(e.bin, "seal"), e.rotateArgs()...)
		cmd.Dir = e.repo.Work
		cmd.Env = append(harness.GitEnv(), "HOME="+e.home)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(rand.IntN(1800)) * time.Millisecond)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // it was killed, or has ended
		if _, err := os.Stat(filepath.Join(e.repo.Work, ".git", "gitseal-rotate")); err == nil {
			killed++
		}
		all := make([]int, len(e.keysList()))
		for i := range all {
			all[i] = i + 1
		}
		for _, i := range []int{0, rand.IntN(files), rand.IntN(files), files - 1} {
			file := fmt.Sprintf("apps/%d.yaml", i)
			if out, errOut, code := e.run("", "env", "SOPS_AGE_KEY="+e.identities(all...), sops, "decrypt", file); code != 0 || !strings.Contains(out, fmt.Sprintf("value-%d\n", i)) {
				t.Fatalf("after a kill %s does not open: %s", file, errOut)
			}
		}
	}
	if out, errOut, code := e.rotate(); code != 0 {
		t.Fatalf("the last run: exit code %d\n%s%s", code, out, errOut)
	}
	last := len(e.keysList())
	for i := range files {
		file := fmt.Sprintf("apps/%d.yaml", i)
		if out, errOut, code := e.run("", "env", "SOPS_AGE_KEY="+e.identities(last), sops, "decrypt", file); code != 0 || !strings.Contains(out, fmt.Sprintf("value-%d\n", i)) {
			t.Errorf("%s does not open with the newest key: %s", file, errOut)
		}
	}
	// The first, and one for each run that ended. A kill right after the agent was asked may
	// cost one more.
	if ended := kills - killed + 1; last > 1+ended+1 {
		t.Errorf("%d generations for %d runs that ended: those that were killed were not gone on with", last, ended)
	}
	t.Logf("%d of %d runs were killed at work; %d generations", killed, kills, last)
}
