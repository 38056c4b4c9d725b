package main

import (
	"context"
	"os"
	"path/filepath"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/gitseal/gitseal/source"
	"github.com/gitseal/gitseal/test/harness"
)

// bench is what a measurement goes on: an agent, a control plane and a git server.
type bench struct {
	options
	dir    string
	repos  string // folder of the git server's repositories
	cp     *harness.ControlPlane
	rest   *rest.Config
	client kubernetes.Interface
	git    *harness.GitHTTP
	repo   *harness.Repo
	report *report

	credentials source.Credentials // of the repositories; zero for none
	password    string             // file that holds it
}

// setUp starts everything but the agent; the git server is one with these credentials.
// On error, too, what it has started is tearDown's to end.
func (b *bench) setUp(ctx context.Context, git harness.GitHTTPConfig) (err error) {
	if b.bin, err = filepath.Abs(b.bin); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp("", "gitseal-bench-"); err != nil {
		return err
	}
	if b.cp, err = harness.Start(ctx, os.Stderr); err != nil {
		return err
	}
	if b.rest, err = b.cp.RESTConfig(); err != nil {
		return err
	}
	if b.client, err = kubernetes.NewForConfig(b.rest); err != nil {
		return err
	}
	b.repos = filepath.Join(b.dir, "git")
	git.Root = b.repos
	if b.git, err = harness.StartGitHTTP(git); err != nil {
		return err
	}
	b.report = newReport(b.objects)
	return nil
}

func (b *bench) tearDown() {
	if b.git != nil {
		b.git.Close()
	}
	if b.cp != nil {
		b.cp.Stop()
	}
	if b.dir != "" {
		_ = os.RemoveAll(b.dir) // a temporary folder
	}
}
