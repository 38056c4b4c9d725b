package harness

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
)

const (
	// sealedSecretsAccount is the controller's service account.
	sealedSecretsAccount = "sealed-secrets-controller"
	// sealedSecretsKeyLabel is on the Secrets that hold its keys.
	sealedSecretsKeyLabel = "sealedsecrets.bitnami.com/sealed-secrets-key"
	// sealedSecretsLimit bounds its start, with the making of an RSA key of 4096
	// bits on a busy machine.
	sealedSecretsLimit = 90 * time.Second
	// sealedSecretsGrace is how long it may take to stop before it is killed.
	sealedSecretsGrace = 10 * time.Second
	// sealedSecretsAttempts is how often other ports are tried.
	sealedSecretsAttempts = 5
	// inClusterFolder is where a Pod has its token; the controller looks nowhere else.
	inClusterFolder = "var/run/secrets/kubernetes.io/serviceaccount"
)

// SealedSecretsConfig says how to run the controller of sealed-secrets.
type SealedSecretsConfig struct {
	// Namespace of the controller and of its keys; empty for a new one. With the
	// namespace of a stopped controller this one has the same keys.
	Namespace string
	// Args are flags of the controller, such as --all-namespaces=false.
	Args []string
}

// SealedSecrets is a running, unmodified controller of sealed-secrets. It sees
// every namespace, so only one should run on a control plane, and tests that
// share that one keep away from SealedSecrets.
type SealedSecrets struct {
	Namespace string // of the controller and of its keys
	URL       string // of its HTTP server; kubeseal takes URL/v1/cert.pem as --cert
	// CertPEM is what the controller wants to be sealed to, KeyPEM its private
	// key; after Renew both are of the new key.
	CertPEM, KeyPEM []byte

	client kubernetes.Interface
	dir    string // root of what the controller sees
	log    string // path of its output
	// lastLog is that output after Stop.
	lastLog string

	mu   sync.Mutex // the process is stopped once
	cmd  *exec.Cmd
	done chan struct{} // closed when the process was waited for
}

// StartSealedSecrets installs the CRD and the controller's rights, starts the
// controller and returns when it serves a certificate of its own key. ctx bounds
// the start; the caller ends the controller by Stop. It also ends when this
// process does. It needs Linux, and either root or user namespaces.
func StartSealedSecrets(ctx context.Context, progress io.Writer, c *ControlPlane, cfg SealedSecretsConfig) (*SealedSecrets, error) {
	binary, err := BuildOracle(ctx, progress, "controller")
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, sealedSecretsLimit)
	defer cancel()
	config, err := c.RESTConfig()
	if err != nil {
		return nil, err
	}
	config.UserAgent = userAgent
	s := &SealedSecrets{Namespace: cfg.Namespace}
	if s.client, err = kubernetes.NewForConfig(config); err != nil {
		return nil, err
	}
	if err := installSealedSecretsCRD(ctx, config); err != nil {
		return nil, fmt.Errorf("install the CRD of SealedSecrets: %w", err)
	}
	token, err := s.prepareNamespace(ctx)
	if err != nil {
		return nil, fmt.Errorf("prepare the namespace of the sealed-secrets controller: %w", err)
	}
	if err := s.makeRoot(config, binary, token); err != nil {
		return nil, errors.Join(fmt.Errorf("prepare the sealed-secrets controller: %w", err), os.RemoveAll(s.dir))
	}
	for attempt := 1; ; attempt++ {
		err := s.startOnce(ctx, config, cfg.Args)
		if err == nil {
			return s, nil
		}
		lost := strings.Contains(s.Log(), "address already in use")
		if !lost || attempt == sealedSecretsAttempts || ctx.Err() != nil {
			s.Stop()
			return nil, fmt.Errorf("start the sealed-secrets controller: %w", err)
		}
		s.stopProcess()
	}
}

// NewSealedSecrets is StartSealedSecrets for the length of a test. The control
// plane should be one of its own, see [NewControlPlane].
func NewSealedSecrets(t testing.TB, c *ControlPlane, cfg SealedSecretsConfig) *SealedSecrets {
	t.Helper()
	s, err := StartSealedSecrets(t.Context(), os.Stderr, c, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of the sealed-secrets controller:\n%s", tail([]byte(s.Log()), outputBytes))
		}
		s.Stop()
	})
	return s
}

// Log returns what the controller has printed.
func (s *SealedSecrets) Log() string {
	content, err := os.ReadFile(s.log)
	if err != nil { // Stop removed it
		return s.lastLog
	}
	return string(content)
}

// Stop ends the controller and waits for it. What it made in the cluster stays:
// the CRD, its keys, the SealedSecrets and their Secrets. It may be called again.
func (s *SealedSecrets) Stop() {
	s.stopProcess()
	s.lastLog = s.Log()
	_ = os.RemoveAll(s.dir) // a folder of its own among temporary ones
}

// Pause holds the controller as if its machine were overloaded, until Resume.
func (s *SealedSecrets) Pause() error {
	if err := s.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	// The signal is delivered to one thread after the other.
	for range 400 {
		if s.stopped() {
			return nil
		}
		time.Sleep(5 * time.Millisecond)
	}
	return errors.New("the sealed-secrets controller does not stop")
}

// stopped reports whether every thread is; also where that can not be seen.
func (s *SealedSecrets) stopped() bool {
	stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", s.cmd.Process.Pid))
	if err != nil {
		return true
	}
	for _, file := range stats {
		b, err := os.ReadFile(file)
		if _, state, ok := bytes.Cut(b, []byte(") ")); err == nil && ok && !bytes.HasPrefix(state, []byte("T")) {
			return false
		}
	}
	return true
}

// Resume lets it go on.
func (s *SealedSecrets) Resume() error { return s.cmd.Process.Signal(syscall.SIGCONT) }

// Renew makes the controller make a new key and seal to it from now on; the keys
// before it still open.
func (s *SealedSecrets) Renew(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, sealedSecretsLimit)
	defer cancel()
	before := s.CertPEM
	block, _ := pem.Decode(before)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return fmt.Errorf("renew the sealing key: %w", err)
	}
	// Of two keys of one second, a restarted controller seals to either.
	select {
	case <-time.After(time.Until(cert.NotBefore.Add(time.Second))):
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := s.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
		return fmt.Errorf("renew the sealing key: %w", err)
	}
	if err := s.await(ctx, func(cert []byte) bool { return !bytes.Equal(cert, before) }); err != nil {
		return fmt.Errorf("renew the sealing key: %w", err)
	}
	return nil
}

// prepareNamespace makes the namespace, the service account and its rights, and
// returns a token. What is there already stays.
func (s *SealedSecrets) prepareNamespace(ctx context.Context) (token string, err error) {
	if s.Namespace == "" {
		made, err := s.client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "sealed-secrets-"}}, metav1.CreateOptions{})
		if err != nil {
			return "", err
		}
		s.Namespace = made.Name
	}
	accounts := s.client.CoreV1().ServiceAccounts(s.Namespace)
	_, err = accounts.Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: sealedSecretsAccount}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return "", err
	}
	_, err = s.client.RbacV1().ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: sealedSecretsAccount + "-" + s.Namespace},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: s.Namespace, Name: sealedSecretsAccount}},
	}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return "", err
	}
	request, err := accounts.CreateToken(ctx, sealedSecretsAccount, &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: ptr.To[int64](24 * 60 * 60)},
	}, metav1.CreateOptions{})
	if err != nil {
		return "", err
	}
	return request.Status.Token, nil
}

// makeRoot fills the folder that the controller will see as its whole file
// system: itself, which is linked statically, and what a Pod has of the cluster.
func (s *SealedSecrets) makeRoot(config *rest.Config, binary, token string) (err error) {
	if s.dir, err = os.MkdirTemp("", "gitseal-sealed-secrets-"); err != nil {
		return err
	}
	s.log = filepath.Join(s.dir, "controller.log")
	if err := rest.LoadTLSFiles(config); err != nil {
		return err
	}
	folder := filepath.Join(s.dir, filepath.FromSlash(inClusterFolder))
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	for name, content := range map[string][]byte{"token": []byte(token), "ca.crt": config.CAData, "namespace": []byte(s.Namespace)} {
		if err := os.WriteFile(filepath.Join(folder, name), content, 0o600); err != nil {
			return err
		}
	}
	inside := filepath.Join(s.dir, "controller")
	if os.Link(binary, inside) == nil {
		return nil
	}
	content, err := os.ReadFile(binary) // on another file system
	if err != nil {
		return err
	}
	return os.WriteFile(inside, content, 0o700)
}

// startOnce starts the controller on free ports and waits until it serves. On
// error the process may still run.
func (s *SealedSecrets) startOnce(ctx context.Context, config *rest.Config, args []string) error {
	server, err := url.Parse(config.Host)
	if err != nil {
		return err
	}
	listen, metrics, err := freeAddresses()
	if err != nil {
		return err
	}
	s.URL = "http://" + listen
	log, err := os.Create(s.log)
	if err != nil {
		return err
	}
	defer log.Close()
	err = s.run(jails(s.dir), func() *exec.Cmd {
		cmd := exec.Command("/controller", append([]string{
			"--listen-addr=" + listen,
			"--listen-metrics-addr=" + metrics,
			"--kubeclient-qps=-1", // no limit
		}, args...)...)
		cmd.Env = []string{"KUBERNETES_SERVICE_HOST=" + server.Hostname(), "KUBERNETES_SERVICE_PORT=" + server.Port(), "POD_NAMESPACE=" + s.Namespace}
		cmd.Stdout, cmd.Stderr = log, log
		return cmd
	})
	if err != nil {
		return fmt.Errorf("%w (it reads its token from a fixed path, so it gets a root folder of its own; "+
			"that needs root, or user namespaces with their capabilities: sysctl kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0)", err)
	}
	return s.await(ctx, func([]byte) bool { return true })
}

// run starts the command in the first way that works, and has it waited for.
func (s *SealedSecrets) run(ways []*syscall.SysProcAttr, command func() *exec.Cmd) error {
	var cmd *exec.Cmd
	started, done := make(chan error), make(chan struct{})
	go func() {
		// The kernel sends the parent-death signal when the *thread* that
		// started the child ends, so this thread waits for as long as it lives.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(done)
		var err error
		for _, way := range ways {
			cmd = command()
			cmd.Dir, cmd.SysProcAttr = "/", way
			if err = cmd.Start(); err == nil {
				break
			}
		}
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended is in cmd.ProcessState
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cmd, s.done = cmd, done
	return nil
}

func (s *SealedSecrets) stopProcess() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Signal(syscall.SIGTERM) // fails only if it has ended
	_ = s.cmd.Process.Signal(syscall.SIGCONT) // it may be paused
	select {
	case <-s.done:
	case <-time.After(sealedSecretsGrace):
		_ = s.cmd.Process.Kill() // fails only if it has ended
		<-s.done
	}
	s.cmd = nil
}

// await waits until the controller serves a certificate that ok accepts and
// whose key is in its namespace: another program may have taken its port.
func (s *SealedSecrets) await(ctx context.Context, ok func(cert []byte) bool) error {
	for {
		cert, key, err := s.serving(ctx)
		if err == nil && ok(cert) {
			s.CertPEM, s.KeyPEM = cert, key
			return nil
		}
		if strings.Contains(s.Log(), "address already in use") {
			return errors.New("it lost its port to another process")
		}
		select {
		case <-s.done:
			return fmt.Errorf("it ended (%s)\n%s", s.cmd.ProcessState, tail([]byte(s.Log()), outputBytes))
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err, fmt.Errorf("log:\n%s", tail([]byte(s.Log()), outputBytes)))
		case <-time.After(25 * time.Millisecond):
		}
	}
}

// serving returns the certificate that the controller serves, and its key.
func (s *SealedSecrets) serving(ctx context.Context) (cert, key []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/v1/cert.pem", nil)
	if err != nil {
		return nil, nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	if cert, err = io.ReadAll(resp.Body); err != nil {
		return nil, nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, nil, fmt.Errorf("its certificate: %s", resp.Status)
	}
	keys, err := s.client.CoreV1().Secrets(s.Namespace).List(ctx, metav1.ListOptions{LabelSelector: sealedSecretsKeyLabel + "=active"})
	if err != nil {
		return nil, nil, err
	}
	for _, secret := range keys.Items {
		if bytes.Equal(secret.Data[corev1.TLSCertKey], cert) {
			return cert, secret.Data[corev1.TLSPrivateKeyKey], nil
		}
	}
	return nil, nil, fmt.Errorf("no Secret of %s holds the key of the certificate that is served", s.Namespace)
}

// freeAddresses returns two addresses of the loopback interface that are free now.
func freeAddresses() (string, string, error) {
	a, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", "", err
	}
	defer a.Close()
	b, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", "", err
	}
	defer b.Close()
	return a.Addr().String(), b.Addr().String(), nil
}
