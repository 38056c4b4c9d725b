package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/gitseal/gitseal/test/harness"
)

// reachable is an address of this machine that the API server's proxy to Services takes:
// it takes no loopback.
func reachable(t *testing.T) string {
	t.Helper()
	all, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() && n.IP.To4() != nil {
			return n.IP.String()
		}
	}
	harness.Skip(t, errors.New("this machine has no address but loopback, which the API server does not proxy to"))
	return ""
}

const behindService = `apiVersion: v1
kind: Service
metadata: {name: gitseal-kubeseal}
spec: {ports: [{name: http, port: 8081}]}
---
apiVersion: v1
kind: Pod
metadata: {name: agent}
spec: {containers: [{name: agent, image: agent}]}
---
apiVersion: v1
kind: Endpoints
metadata: {name: gitseal-kubeseal}
subsets: [{addresses: [{ip: %s, targetRef: {kind: Pod, name: agent, namespace: %s}}], ports: [{name: http, port: %d}]}]
`

// kubesealAgent is an agent behind the Service that kubeseal asks through the API server.
func (e *env) kubesealAgent(more ...string) (url string) {
	e.t.Helper()
	host := reachable(e.t)
	l, err := net.Listen("tcp", host+":0")
	if err != nil {
		e.t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	if err := l.Close(); err != nil {
		e.t.Fatal(err)
	}
	address := net.JoinHostPort(host, strconv.Itoa(port))
	a := e.startArgs(e.controllerArgs(append([]string{"--watch-namespaces", e.system, "--kubeseal-bind-address", address}, more...)...)...)
	// There is no kubelet: the API server's proxy is told that a pod has this address.
	e.kubectl(fmt.Sprintf(behindService, host, e.system, port), "create", "-n", e.system, "-f", "-")
	e.kubectl("", "patch", "pod", "agent", "-n", e.system, "--subresource=status", "--type=merge", "-p", `{"status":{"phase":"Running","podIP":"`+host+`","podIPs":[{"ip":"`+host+`"}]}}`)
	e.logSays(a, "leading")
	e.eventually("there is a certificate", func(ctx context.Context) error {
		if code, body := answer(ctx, "http://"+address+"/v1/cert.pem"); code != 200 {
			return fmt.Errorf("%d %s", code, body)
		}
		return nil
	})
	return "http://" + address
}

// kubeseal asks the agent as it would ask the controller of sealed-secrets.
func (e *env) kubeseal(stdin string, args ...string) (out, errOut string, code int) {
	e.t.Helper()
	return e.run(stdin, harness.Oracle(e.t, "kubeseal"), append([]string{"--controller-name", "gitseal-kubeseal", "--controller-namespace", e.system}, args...)...)
}

func TestAnUnmodifiedKubesealWorksWithTheAgent(t *testing.T) {
	t.Parallel()
	e := newPublicEnv(t)
	url := e.kubesealAgent("--kubeseal-endpoints", "verify,rotate")
	cert, errOut, code := e.kubeseal("", "--fetch-cert")
	if code != 0 || !strings.HasPrefix(cert, "-----BEGIN CERTIFICATE-----") {
		t.Fatalf("--fetch-cert: exit code %d\n%s%s", code, cert, errOut)
	}
	if want := string(e.keySecret().Data[corev1.TLSCertKey]); cert != want {
		t.Errorf("the certificate is\n%s, want\n%s", cert, want)
	}
	secret := "apiVersion: v1\nkind: Secret\nmetadata: {name: api, namespace: " + e.app + "}\nstringData: {token: kubeseal-canary}\n"
	sealed, errOut, code := e.kubeseal(secret, "--format", "yaml")
	if code != 0 {
		t.Fatal(errOut)
	}
	if _, errOut, code := e.kubeseal(sealed, "--validate"); code != 0 {
		t.Errorf("--validate: exit code %d, %s", code, errOut)
	}
	moved := strings.ReplaceAll(sealed, "name: api", "name: other")
	if _, errOut, code := e.kubeseal(moved, "--validate"); code == 0 || !strings.Contains(errOut, "unable to decrypt sealed secret") {
		t.Errorf("--validate of a name that it is not sealed for: exit code %d, %s", code, errOut)
	}
	again, errOut, code := e.kubeseal(sealed, "--re-encrypt", "--format", "yaml")
	if code != 0 || again == sealed {
		t.Fatalf("--re-encrypt: exit code %d, %s", code, errOut)
	}
	if _, errOut, code := e.kubeseal(again, "--validate"); code != 0 {
		t.Errorf("what came out of --re-encrypt: exit code %d, %s", code, errOut)
	}
	if out, _, code := e.kubeseal(moved, "--re-encrypt"); code == 0 {
		t.Errorf("--re-encrypt of what does not open: %s", out)
	}

	t.Log("the endpoints are no oracle")
	post := func(path, body string) (int, string) {
		t.Helper()
		r, err := http.Post(url+path, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		return r.StatusCode, string(b)
	}
	seen := map[string]int{}
	for _, path := range []string{"/v1/verify", "/v1/rotate"} {
		for _, letter := range []string{"k", "x"} {
			guess := strings.Replace(sealed, "  template:\n", "  template:\n    data: {guess: '{{ if hasPrefix \""+letter+"\" .token }}{{ fail \"yes\" }}{{ end }}'}\n", 1)
			if guess == sealed {
				t.Fatalf("no template in\n%s", sealed)
			}
			e.patient(func() int { code, _ = post(path, guess); return code })
			seen[fmt.Sprint(path, code)]++
		}
		widened := strings.Replace(sealed, "metadata:\n", "metadata:\n  annotations: {sealedsecrets.bitnami.com/cluster-wide: \"true\"}\n", 1)
		for _, body := range []string{moved, widened, strings.Replace(sealed, "token: A", "token: B", 1)} {
			var said string
			e.patient(func() int { code, said = post(path, body); return code })
			if code != http.StatusConflict || strings.Contains(said, "kubeseal-canary") {
				t.Errorf("%s: %d %s", path, code, said)
			}
			seen[path+" "+said]++
		}
	}
	if len(seen) != 4 || seen["/v1/verify200"] != 2 || seen["/v1/rotate200"] != 2 {
		t.Errorf("answers differ: %v", seen)
	}

	t.Log("limits")
	if code, said := post("/v1/rotate", strings.Repeat("x", 1<<20+1)); code != http.StatusRequestEntityTooLarge && code != http.StatusTooManyRequests {
		t.Errorf("a large request: %d %s", code, said)
	}
	refused := false
	for range 40 {
		if code, _ := post("/v1/verify", "{}"); code == http.StatusTooManyRequests {
			refused = true
		}
	}
	if !refused {
		t.Error("forty requests at once, and none was refused")
	}
	if code, said := post("/v1/verify", "kind: Secret\n"); code != http.StatusBadRequest && code != http.StatusTooManyRequests {
		t.Errorf("no SealedSecret: %d %s", code, said)
	}
}

// patient asks again while there are too many requests.
func (e *env) patient(ask func() int) {
	e.t.Helper()
	e.eventually("the agent takes the request", func(context.Context) error {
		if code := ask(); code == http.StatusTooManyRequests {
			return fmt.Errorf("%d", code)
		}
		return nil
	})
}

// Without being told so the agent opens nothing for whoever reaches it.
func TestOnlyTheCertificateIsServedToEverybody(t *testing.T) {
	t.Parallel()
	e := newPublicEnv(t)
	url := e.kubesealAgent()
	for _, path := range []string{"/v1/verify", "/v1/rotate"} {
		r, err := http.Post(url+path, "application/json", bytes.NewReader([]byte("{}")))
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Body.Close(); err != nil || r.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %d, %v", path, r.StatusCode, err)
		}
	}
	_, errOut, code := e.run("", filepath.Join(e.bin, "agent"), e.controllerArgs("--kubeseal-endpoints", "rotat")...)
	if code != 2 || !strings.Contains(errOut, `endpoint "rotat" for kubeseal is not verify or rotate`) {
		t.Errorf("a wrong name: exit code %d, %s", code, errOut)
	}
}
