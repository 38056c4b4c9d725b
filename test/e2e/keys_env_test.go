package e2e

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sigs.k8s.io/yaml"

	"github.com/gitseal/gitseal/crypto"
	"github.com/gitseal/gitseal/test/harness"
)

// soon is when a test gives up; what it took is logged. A change of the keys is to count
// within two seconds, which a busy machine may well miss.
const soon = 30 * time.Second

// newKeysEnv is an env of its own control plane, for commands that look at all Syncs.
func newKeysEnv(t *testing.T) *env {
	t.Helper()
	e := newEnvOn(t, harness.NewControlPlane(t))
	e.cp.InstallSyncs(t)
	e.git = harness.NewGitHTTP(t, harness.GitHTTPConfig{Root: filepath.Dir(e.repo.Bare)})
	return e
}

// listed is what `seal keys list -o json` gives.
type listed struct {
	Number                     int
	State, Recipient, BackedUp string
	CertificateFingerprint     string
	SealedTo                   bool
	NeededBy                   []struct {
		Sync  string
		Files int
	}
}

func (e *env) keysList() []listed {
	e.t.Helper()
	var out []listed
	if err := json.Unmarshal([]byte(e.seal("", "keys", "list", "-n", e.system, "-o", "json")), &out); err != nil {
		e.t.Fatal(err)
	}
	return out
}

// shortly waits for something that comes without a commit, and logs how long it took.
func (e *env) shortly(what string, check func(ctx context.Context) error) {
	e.t.Helper()
	start := time.Now()
	if err := harness.Until(e.t.Context(), soon, 20*time.Millisecond, what, check); err != nil {
		e.t.Fatal(err)
	}
	e.t.Logf("%s: %s", what, time.Since(start).Round(10*time.Millisecond))
}

// fetched waits until the agent has published, and writes its keys into the repository.
func (e *env) fetched() {
	e.t.Helper()
	e.eventually("the agent has published", func(ctx context.Context) error {
		_, err := e.client.CoreV1().ConfigMaps(e.system).Get(ctx, "gitseal-keys", metav1.GetOptions{})
		return err
	})
	e.seal("", "keys", "fetch", "--accept", "-n", e.system)
}

// readyIs waits for the condition Ready of a Sync of the agent's namespace.
func (e *env) readyIs(sync, status string) func(context.Context) error {
	return func(context.Context) error {
		out := e.kubectl("", "get", "sync", sync, "-n", e.system, "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].status} {.status.conditions[?(@.type=="Ready")].message}`)
		if !strings.HasPrefix(out, status+" ") {
			return errors.New(out)
		}
		return nil
	}
}

// keySecrets are the names of generations.
func (e *env) keySecrets() []string {
	e.t.Helper()
	l, err := e.client.CoreV1().Secrets(e.system).List(e.t.Context(), metav1.ListOptions{LabelSelector: "gitseal.io/key"})
	if err != nil {
		e.t.Fatal(err)
	}
	var out []string
	for _, s := range l.Items {
		out = append(out, s.Name)
	}
	return out
}

// secrecy remembers private keys, and looks for them in texts.
type secrecy struct {
	t       *testing.T
	needles map[string]string
}

func (e *env) secrecy() *secrecy {
	e.t.Helper()
	s := &secrecy{e.t, map[string]string{}}
	l, err := e.client.CoreV1().Secrets(e.system).List(e.t.Context(), metav1.ListOptions{})
	if err != nil {
		e.t.Fatal(err)
	}
	for _, secret := range l.Items {
		for key, value := range secret.Data {
			switch key {
			case "identity.agekey", "token.key":
				s.needles[secret.Name+" "+key] = string(value)
			case "tls.key":
				s.needles[secret.Name+" "+key] = string(value)[100:160]
			default:
				continue
			}
			s.needles[secret.Name+" "+key+" in base64"] = base64.StdEncoding.EncodeToString(value)[:30]
			s.needles[secret.Name+" "+key+" in hex"] = fmt.Sprintf("%x", value[:16])
		}
	}
	if len(s.needles) < 9 {
		e.t.Fatalf("only %d forms of keys to look for", len(s.needles))
	}
	return s
}

func (s *secrecy) look(what, text string) {
	s.t.Helper()
	for name, needle := range s.needles {
		if strings.Contains(text, needle) {
			s.t.Errorf("%s is in %s", name, what)
		}
	}
}

// keys runs `seal keys …` for the agent's namespace, and looks for private keys in what
// it says.
func (e *env) keys(s *secrecy, code int, line string, texts ...string) (stdout, stderr string) {
	e.t.Helper()
	stdout, stderr = e.says(code, append([]string{"keys"}, append(words(line), "-n", e.system)...), texts...)
	if s != nil {
		s.look("what `seal keys "+line+"` says", stdout+stderr)
	}
	return stdout, stderr
}

// harnessIdentity writes an age identity to id.txt of the home folder, and returns its
// recipient.
func harnessIdentity(t *testing.T, e *env) string {
	t.Helper()
	id, err := crypto.GenerateIdentity()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(e.home, "id.txt"), id.Text().Reveal(), 0o600); err != nil {
		t.Fatal(err)
	}
	return id.Recipient().String()
}

// asNobody makes the programs of the env act as a user without rights.
func (e *env) asNobody() {
	e.t.Helper()
	file := filepath.Join(e.home, "nobody.kubeconfig")
	b, err := os.ReadFile(e.cp.Kubeconfig)
	if err != nil {
		e.t.Fatal(err)
	}
	var c map[string]any
	if err := yaml.Unmarshal(b, &c); err != nil {
		e.t.Fatal(err)
	}
	for _, u := range c["users"].([]any) {
		u.(map[string]any)["user"].(map[string]any)["as"] = "nobody"
	}
	if b, err = yaml.Marshal(c); err != nil {
		e.t.Fatal(err)
	}
	if err := os.WriteFile(file, b, 0o600); err != nil {
		e.t.Fatal(err)
	}
	e.kubeconfig = file
}
