package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"time"
)

const (
	// startLimit bounds the start of each process, on a busy machine.
	startLimit = 90 * time.Second
	// portAttempts is how often we choose new ports after losing one.
	portAttempts = 5
	// grace is how long a child may take to stop before it is killed.
	grace = 5 * time.Second
	// pollInterval is how often readiness is asked for.
	pollInterval = 25 * time.Millisecond
)

// cluster is the three processes and what they share. It is not safe for
// concurrent use.
type cluster struct {
	cfg    config
	ca     *authority
	admin  pair
	client *http.Client // as admin

	server  string // URL of the API server
	etcdURL string

	etcd, controllerManager *child
	apiserver               *child // nil while it is stopped on purpose
}

// newCluster makes the certificates and fixed files; it starts nothing.
func newCluster(cfg config) (*cluster, error) {
	ca, err := newAuthority()
	if err != nil {
		return nil, err
	}
	server, err := ca.server()
	if err != nil {
		return nil, err
	}
	admin, err := ca.client("admin", "system:masters")
	if err != nil {
		return nil, err
	}
	tokens, err := newKey()
	if err != nil {
		return nil, err
	}
	client, err := adminClient(ca, admin)
	if err != nil {
		return nil, err
	}
	return &cluster{cfg: cfg, ca: ca, admin: admin, client: client}, write(cfg.dir, map[string][]byte{
		"ca.crt":              ca.pem,
		"apiserver.crt":       server.certificate,
		"apiserver.key":       server.key,
		"service-account.key": tokens,
		"audit-policy.json":   []byte(auditPolicy),
	})
}

func adminClient(ca *authority, admin pair) (*http.Client, error) {
	certificate, err := tls.X509KeyPair(admin.certificate, admin.key)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca.certificate)
	return &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		// A connection that outlives a stopped API server would answer for it.
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS13},
	}}, nil
}

// ready is what the parent is told.
func (c *cluster) ready() any {
	return struct {
		Kubeconfig string `json:"kubeconfig"`
		AuditLog   string `json:"auditLog"`
		Server     string `json:"server"`
		Etcd       string `json:"etcd"`
		BinDir     string `json:"binDir"`
	}{filepath.Join(c.cfg.dir, "kubeconfig"), filepath.Join(c.cfg.dir, "audit.log"), c.server, c.etcdURL, c.cfg.bin}
}

// start brings everything up and returns when the default service account
// exists. On error the caller must still call stop.
func (c *cluster) start(ctx context.Context) error {
	if err := retryPorts(func() (*child, error) { return c.startEtcd(ctx) }); err != nil {
		return err
	}
	err := retryPorts(func() (*child, error) {
		ports, err := freePorts(1)
		if err != nil {
			return nil, err
		}
		c.server = fmt.Sprintf("https://127.0.0.1:%d", ports[0])
		return c.startAPIServer(ctx)
	})
	if err != nil {
		return err
	}
	if err := c.writeKubeconfigs(); err != nil {
		return err
	}
	return c.startControllerManager(ctx)
}

// retryPorts calls start again, with new ports, while its child lost a port to
// somebody else. start returns the child also when it failed; it has ended then.
func retryPorts(start func() (*child, error)) error {
	for attempt := 1; ; attempt++ {
		lost, err := start()
		if err == nil || lost == nil || attempt == portAttempts || !lost.couldNotBind() {
			return err
		}
	}
}

// freePorts returns n TCP ports of the loopback interface that are free now.
func freePorts(n int) ([]int, error) {
	var ports []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() // after all are chosen, so that they differ
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

func (c *cluster) startEtcd(ctx context.Context) (*child, error) {
	ports, err := freePorts(2)
	if err != nil {
		return nil, err
	}
	c.etcdURL = fmt.Sprintf("http://127.0.0.1:%d", ports[0])
	peer := fmt.Sprintf("http://127.0.0.1:%d", ports[1])
	name := "gitseal-" + rand.Text()
	started, err := startChild("etcd", filepath.Join(c.cfg.bin, "etcd"), c.cfg.dir, []string{
		"--name=" + name,
		"--data-dir=" + filepath.Join(c.cfg.dir, "etcd"),
		"--listen-client-urls=" + c.etcdURL,
		"--advertise-client-urls=" + c.etcdURL,
		"--listen-peer-urls=" + peer,
		"--initial-advertise-peer-urls=" + peer,
		"--initial-cluster=" + name + "=" + peer,
		"--unsafe-no-fsync", // the data need not outlive the machine
		"--quota-backend-bytes=8589934592",
		"--log-level=warn",
	})
	if err != nil {
		return nil, err
	}
	// The name tells our etcd from one that took the port before us.
	err = c.await(ctx, started, "etcd", func(ctx context.Context) error {
		body, err := c.request(ctx, http.MethodPost, c.etcdURL+"/v3/cluster/member/list", "{}")
		if err == nil && !strings.Contains(body, name) {
			err = errors.New("another etcd answers")
		}
		return err
	})
	if err != nil {
		return started, errors.Join(err, started.stop(grace))
	}
	c.etcd = started
	return started, nil
}

// startAPIServer starts it on the port of c.server and waits for /readyz.
func (c *cluster) startAPIServer(ctx context.Context) (*child, error) {
	if c.apiserver != nil {
		return nil, errors.New("the API server runs already")
	}
	port := c.server[strings.LastIndex(c.server, ":")+1:]
	file := func(name string) string { return filepath.Join(c.cfg.dir, name) }
	started, err := startChild("kube-apiserver", filepath.Join(c.cfg.bin, "kube-apiserver"), c.cfg.dir, []string{
		"--etcd-servers=" + c.etcdURL,
		"--bind-address=127.0.0.1",
		"--advertise-address=127.0.0.1",
		"--secure-port=" + port,
		"--endpoint-reconciler-type=none", // it refuses loopback addresses
		"--service-cluster-ip-range=10.96.0.0/16",
		"--client-ca-file=" + file("ca.crt"),
		"--tls-cert-file=" + file("apiserver.crt"),
		"--tls-private-key-file=" + file("apiserver.key"),
		"--cert-dir=" + c.cfg.dir,
		"--authorization-mode=Node,RBAC",
		"--allow-privileged=true",
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + file("service-account.key"),
		"--service-account-signing-key-file=" + file("service-account.key"),
		"--audit-policy-file=" + file("audit-policy.json"),
		"--audit-log-path=" + file("audit.log"),
		"--audit-log-mode=blocking",                       // an event is in the file before its response ends
		"--audit-log-maxsize=1000000",                     // MB: never rotate
		"--shutdown-watch-termination-grace-period=500ms", // else open watches hold up a stop
		"--profiling=false",
	})
	if err != nil {
		return nil, err
	}
	err = c.await(ctx, started, "kube-apiserver", func(ctx context.Context) error {
		_, err := c.request(ctx, http.MethodGet, c.server+"/readyz", "")
		return err
	})
	if err != nil {
		return started, errors.Join(err, started.stop(grace))
	}
	c.apiserver = started
	return started, nil
}

// stopAPIServer stops it and keeps etcd and the controller manager running.
func (c *cluster) stopAPIServer() error {
	if c.apiserver == nil {
		return errors.New("the API server does not run")
	}
	err := c.apiserver.stop(grace)
	c.apiserver = nil
	return err
}

func (c *cluster) writeKubeconfigs() error {
	admin, err := kubeconfig(c.server, "admin", c.ca.pem, c.admin)
	if err != nil {
		return err
	}
	const user = "system:kube-controller-manager"
	manager, err := c.ca.client(user)
	if err != nil {
		return err
	}
	controllerManager, err := kubeconfig(c.server, user, c.ca.pem, manager)
	if err != nil {
		return err
	}
	return write(c.cfg.dir, map[string][]byte{
		"kubeconfig":                    admin,
		"controller-manager.kubeconfig": controllerManager,
	})
}

func (c *cluster) startControllerManager(ctx context.Context) error {
	started, err := startChild("kube-controller-manager", filepath.Join(c.cfg.bin, "kube-controller-manager"), c.cfg.dir, []string{
		"--kubeconfig=" + filepath.Join(c.cfg.dir, "controller-manager.kubeconfig"),
		"--secure-port=0", // serves nothing
		"--leader-elect=false",
		"--use-service-account-credentials=true",
		"--service-account-private-key-file=" + filepath.Join(c.cfg.dir, "service-account.key"),
		"--root-ca-file=" + filepath.Join(c.cfg.dir, "ca.crt"),
		"--kube-api-qps=200", // so that many namespaces can come and go
		"--kube-api-burst=400",
		"--profiling=false",
	})
	if err != nil {
		return err
	}
	c.controllerManager = started
	return c.await(ctx, started, "the default service account", func(ctx context.Context) error {
		_, err := c.request(ctx, http.MethodGet, c.server+"/api/v1/namespaces/default/serviceaccounts/default", "")
		return err
	})
}

// stop ends what runs, in order, and waits for it.
func (c *cluster) stop() error {
	err := errors.Join(
		c.controllerManager.stop(grace),
		c.apiserver.stop(grace),
		c.etcd.stop(grace),
	)
	c.client.CloseIdleConnections()
	return err
}
