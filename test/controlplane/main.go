// Command controlplane runs a real Kubernetes control plane (etcd,
// kube-apiserver and kube-controller-manager; no nodes) on free loopback ports.
// It is meant for tests, benchmarks and the demo, which start it through package
// test/harness; that package also builds this command and the three binaries.
// It uses the standard library only: the requirements of this module exist to
// build Kubernetes from, and are not linked into this command.
//
//	controlplane up --dir DIR --bin DIR [--remove]
//
// When the cluster is ready it prints one JSON line, for instance
//
//	{"kubeconfig":"DIR/kubeconfig","auditLog":"DIR/audit.log","server":"https://127.0.0.1:41287","etcd":"http://127.0.0.1:33605","binDir":"..."}
//
// or, when it can not start, {"error":"..."}. Then it obeys lines on standard
// input: stop-apiserver, start-apiserver and stop. Each is answered by one line,
// {"ok":true} or {"error":"..."}. It ends on "stop", at the end of standard
// input, on SIGTERM and on SIGINT; it then stops its children in order and waits
// for them.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// run is main without the process: it returns the exit code.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	cfg, err := parse(args, stderr)
	if err != nil {
		fmt.Fprintln(stderr, "controlplane:", err)
		return exitUsage
	}
	// A parent that died leaves broken pipes; writing to them must not kill us
	// before the children are stopped in order.
	signal.Ignore(syscall.SIGPIPE)
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer cancel()

	err = up(ctx, cfg, stdin, stdout)
	if err == nil {
		return exitOK
	}
	fmt.Fprintln(stderr, "controlplane:", err)
	answer(stdout, err)
	return exitFailed
}

// config is what one run needs.
type config struct {
	dir    string // certificates, data, logs; made if missing
	bin    string // holds etcd, kube-apiserver and kube-controller-manager
	remove bool   // remove dir after a clean end; after an error it stays, for its logs
}

func parse(args []string, stderr io.Writer) (config, error) {
	if len(args) == 0 || args[0] != "up" {
		return config{}, errors.New("usage: controlplane up --dir DIR --bin DIR [--remove]")
	}
	var cfg config
	flags := flag.NewFlagSet("controlplane up", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&cfg.dir, "dir", "", "directory for certificates, data and logs")
	flags.StringVar(&cfg.bin, "bin", "", "directory that holds etcd, kube-apiserver and kube-controller-manager")
	flags.BoolVar(&cfg.remove, "remove", false, "remove --dir after a clean end")
	if err := flags.Parse(args[1:]); err != nil {
		return config{}, err
	}
	if cfg.dir == "" || cfg.bin == "" || flags.NArg() > 0 {
		return config{}, errors.New("up needs --dir and --bin, and no arguments")
	}
	// Children run with dir as their working directory.
	var err error
	if cfg.dir, err = filepath.Abs(cfg.dir); err != nil {
		return config{}, err
	}
	if cfg.bin, err = filepath.Abs(cfg.bin); err != nil {
		return config{}, err
	}
	return cfg, nil
}

// answer prints the JSON line for the outcome of a command.
func answer(w io.Writer, err error) {
	reply := struct {
		OK    bool   `json:"ok,omitempty"`
		Error string `json:"error,omitempty"`
	}{OK: err == nil}
	if err != nil {
		reply.Error = err.Error()
	}
	// Nobody is left to tell when the parent has gone.
	_ = json.NewEncoder(w).Encode(reply)
}
