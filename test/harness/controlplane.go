package harness

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// ControlPlane is a running Kubernetes control plane. Its fields are read-only;
// its methods may be called from any goroutine.
type ControlPlane struct {
	Kubeconfig string `json:"kubeconfig"` // file, with the credentials of a cluster admin
	AuditLog   string `json:"auditLog"`   // file; read it by Requests
	Server     string `json:"server"`     // URL of the API server; the same after a restart
	Etcd       string `json:"etcd"`       // URL of etcd, plain HTTP without a password
	BinDir     string `json:"binDir"`     // folder with etcd, kube-apiserver, kube-controller-manager, kubectl
	Dir        string `json:"-"`          // logs (*.log) and process ids (*.pid); removed by Stop

	launcher *launcher
	audit    auditLog
}

// BuildControlPlane builds the binaries of the control plane and returns their
// folder. [Start] does it too; call it to have the minutes pass elsewhere.
func BuildControlPlane(ctx context.Context, progress io.Writer) (string, error) {
	const version = "-X k8s.io/component-base/version."
	return Build{
		Name:   "controlplane",
		Module: "test/controlplane",
		Targets: []Target{
			{Name: "etcd", Package: "go.etcd.io/etcd/server/v3"},
			{Name: "kube-apiserver", Package: "k8s.io/kubernetes/cmd/kube-apiserver"},
			{Name: "kube-controller-manager", Package: "k8s.io/kubernetes/cmd/kube-controller-manager"},
			{Name: "kubectl", Package: "k8s.io/kubernetes/cmd/kubectl"},
		},
		LDFlags: version + "gitVersion=v1.36.3 " + version + "gitMajor=1 " + version + "gitMinor=36",
		Hint:    "about 7 minutes on two cores for all",
	}.Run(ctx, progress)
}

func buildLauncher(ctx context.Context, progress io.Writer) (string, error) {
	folder, err := Build{
		Name:    "launcher",
		Module:  "test/controlplane",
		Targets: []Target{{Name: "controlplane", Package: "."}},
		Own:     true,
	}.Run(ctx, progress)
	return filepath.Join(folder, "controlplane"), err
}

// Start builds what is missing and starts a control plane of its own; that takes
// about four seconds when everything is built. ctx bounds the start, not what
// was started: the caller ends it by Stop. It also ends when this process does,
// however that happens.
func Start(ctx context.Context, progress io.Writer) (*ControlPlane, error) {
	bin, err := BuildControlPlane(ctx, progress)
	if err != nil {
		return nil, err
	}
	binary, err := buildLauncher(ctx, progress)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "gitseal-controlplane-")
	if err != nil {
		return nil, err
	}
	l, ready, err := startLauncher(ctx, binary, bin, dir)
	if err != nil {
		return nil, fmt.Errorf("start the control plane: %w", err)
	}
	c := &ControlPlane{Dir: dir, launcher: l}
	if err := json.Unmarshal(ready, c); err != nil {
		l.stop()
		return nil, fmt.Errorf("start the control plane: %w", err)
	}
	return c, nil
}

// Stop ends all of its processes, waits for them and removes Dir. It may be
// called again.
func (c *ControlPlane) Stop() { c.launcher.stop() }

// StopAPIServer stops the API server and leaves its data, about a second later.
// Watches get half a second to end; what they would have logged then is lost.
func (c *ControlPlane) StopAPIServer(ctx context.Context) error {
	return c.launcher.command(ctx, "stop-apiserver")
}

// StartAPIServer starts it again, at the same address, with the same data and
// certificates, and returns when it is ready.
func (c *ControlPlane) StartAPIServer(ctx context.Context) error {
	return c.launcher.command(ctx, "start-apiserver")
}

// RESTConfig returns a configuration with the rights of a cluster admin and
// without a client-side rate limit. It is the caller's to change.
func (c *ControlPlane) RESTConfig() (*rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig)
	if err != nil {
		return nil, err
	}
	config.QPS = -1
	return config, nil
}
