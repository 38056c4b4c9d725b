package harness

import (
	"bufio"
	"bytes"
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"
)

// sealWith runs kubeseal as a user does, with a certificate that it fetches
// itself, and creates the SealedSecret.
func sealWith(t *testing.T, c *ControlPlane, s *SealedSecrets, name, value string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), Oracle(t, "kubeseal"), "--cert", s.URL+"/v1/cert.pem", "-o", "yaml")
	cmd.Stdin = strings.NewReader(fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata: {name: %s, namespace: default}\nstringData: {password: %s}\n", name, value))
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	sealed := &unstructured.Unstructured{}
	if err := yaml.Unmarshal(out, &sealed.Object); err != nil {
		t.Fatal(err)
	}
	config, err := c.RESTConfig()
	if err != nil {
		t.Fatal(err)
	}
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Resource(SealedSecretsResource()).Namespace("default").Create(t.Context(), sealed, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// awaitSecret waits for the Secret of a SealedSecret.
func awaitSecret(t *testing.T, c *ControlPlane, name string) *corev1.Secret {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		secret, err := c.client(t).CoreV1().Secrets("default").Get(ctx, name, metav1.GetOptions{})
		if err == nil {
			return secret
		}
		select {
		case <-ctx.Done():
			t.Fatalf("no Secret %s: %v", name, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func TestSealedSecretsControllerOpensWhatKubesealSeals(t *testing.T) {
	t.Parallel()
	c := NewControlPlane(t)
	s := NewSealedSecrets(t, c, SealedSecretsConfig{})
	if !bytes.Contains(s.CertPEM, []byte("CERTIFICATE")) || !bytes.Contains(s.KeyPEM, []byte("PRIVATE KEY")) {
		t.Errorf("got a certificate of %d bytes and a key of %d, want both in PEM", len(s.CertPEM), len(s.KeyPEM))
	}
	sealWith(t, c, s, "first", "hunter2")
	secret := awaitSecret(t, c, "first")
	owner := metav1.GetControllerOf(secret)
	if string(secret.Data["password"]) != "hunter2" || owner == nil || owner.Kind != "SealedSecret" {
		t.Errorf("got %q and the owner %v, want hunter2 and a SealedSecret", secret.Data["password"], owner)
	}
	if !strings.Contains(s.Log(), "default/first") {
		t.Errorf("the log does not name the SealedSecret:\n%s", s.Log())
	}

	old := s.CertPEM
	if err := s.Renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(old, s.CertPEM) {
		t.Error("after Renew: got the old certificate, want a new one")
	}

	if err := s.Pause(); err != nil {
		t.Fatal(err)
	}
	paused, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, _, err := s.serving(paused); err == nil {
		t.Error("paused: it answers")
	}
	if err := s.Resume(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.serving(t.Context()); err != nil {
		t.Errorf("resumed: %v", err)
	}
	if err := s.Pause(); err != nil {
		t.Fatal(err)
	}

	dir, done := s.dir, s.done // Stop ends a paused one, too
	s.Stop()
	s.Stop()
	select {
	case <-done:
	default:
		t.Error("after Stop: the process is left")
	}
	if exists(dir) {
		t.Errorf("after Stop: %s is left", dir)
	}
	if !strings.Contains(s.Log(), "default/first") {
		t.Errorf("after Stop: got the log %q, want what it was", s.Log())
	}

	again := NewSealedSecrets(t, c, SealedSecretsConfig{Namespace: s.Namespace, Args: []string{"--update-status=false"}})
	if !bytes.Equal(again.CertPEM, s.CertPEM) {
		t.Error("in the namespace of the controller before it: got another certificate, want the same")
	}
	sealWith(t, c, again, "second", "hunter3")
	if secret := awaitSecret(t, c, "second"); string(secret.Data["password"]) != "hunter3" {
		t.Errorf("got %q, want hunter3", secret.Data["password"])
	}
}

func TestSealedSecretsControllerThatCanNotStartSaysWhy(t *testing.T) {
	t.Parallel()
	c := NewControlPlane(t)
	s, err := StartSealedSecrets(t.Context(), os.Stderr, c, SealedSecretsConfig{Args: []string{"--key-cutoff-time=never"}})
	if err == nil {
		s.Stop()
	}
	if err == nil || !strings.Contains(err.Error(), `cannot parse \"never\"`) && !strings.Contains(err.Error(), `cannot parse "never"`) {
		t.Errorf("got %v, want an error that quotes its log", err)
	}
}

// jailHelper makes TestHelperOfJails start a controller and wait to be killed. It
// holds the address of an API server.
const jailHelper = "GITSEAL_TEST_JAIL"

func TestHelperOfJails(t *testing.T) {
	address := os.Getenv(jailHelper)
	if address == "" {
		return // it is called by the next test only
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	s := &SealedSecrets{}
	if err := s.makeRoot(&rest.Config{}, Oracle(t, "controller"), "token"); err != nil {
		t.Fatal(err)
	}
	ways := jails(s.dir)
	if flag.Arg(0) == "last" {
		ways = ways[len(ways)-1:]
	}
	err = s.run(ways, func() *exec.Cmd {
		cmd := exec.Command("/controller")
		cmd.Env = []string{"KUBERNETES_SERVICE_HOST=" + host, "KUBERNETES_SERVICE_PORT=" + port}
		return cmd
	})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println("\npid", s.cmd.Process.Pid)
	<-s.done
}

func TestAKilledTestLeavesNoSealedSecretsController(t *testing.T) {
	t.Parallel()
	Oracle(t, "controller") // not built by the helpers
	for _, way := range []string{"first", "last"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			l, err := net.Listen("tcp", "127.0.0.1:0") // an API server that never answers
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestHelperOfJails$", way)
			cmd.Env = append(os.Environ(), jailHelper+"="+l.Addr().String(), "TMPDIR="+t.TempDir())
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			var said []string
			pid := 0
			for lines := bufio.NewScanner(stdout); pid == 0 && lines.Scan(); {
				said = append(said, lines.Text())
				_, _ = fmt.Sscanf(lines.Text(), "pid %d", &pid) // most lines are not it
			}
			if pid == 0 {
				t.Fatalf("no controller was started:\n%s", strings.Join(said, "\n"))
			}
			conn, err := l.Accept() // so it has read its token, and waits now
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if !alive(pid) {
				t.Fatal("the controller ended by itself")
			}
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait() // it was killed
			if left := leftAfter(5*time.Second, map[string]int{"controller": pid}); len(left) > 0 {
				t.Errorf("process %d is left", pid)
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		})
	}
}
