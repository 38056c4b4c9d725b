package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/gitseal/gitseal/crypto"
	"github.com/gitseal/gitseal/source"
	"github.com/gitseal/gitseal/test/harness"
)

type options struct {
	objects, edits int
	bin            string
}

const gitUser, gitPassword = "bench", "bench-password"

type bench struct {
	options
	dir         string
	cp          *harness.ControlPlane
	rest        *rest.Config
	client      kubernetes.Interface
	git         *harness.GitHTTP
	repo        *harness.Repo
	credentials source.Credentials
	password    string // file
}

func run(ctx context.Context, o options) (err error) {
	b := &bench{options: o, credentials: source.Credentials{Username: gitUser, Password: crypto.NewSecretString(gitPassword)}}
	if b.bin, err = filepath.Abs(o.bin); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp("", "gitseal-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	if b.cp, err = harness.Start(ctx, os.Stderr); err != nil {
		return err
	}
	defer b.cp.Stop()
	if b.rest, err = b.cp.RESTConfig(); err != nil {
		return err
	}
	if b.client, err = kubernetes.NewForConfig(b.rest); err != nil {
		return err
	}
	root := filepath.Join(b.dir, "git")
	if b.git, err = harness.StartGitHTTP(harness.GitHTTPConfig{Root: root, Username: gitUser, Password: gitPassword}); err != nil {
		return err
	}
	defer b.git.Close()
	b.password = filepath.Join(b.dir, "password")
	if err := os.WriteFile(b.password, []byte(gitPassword), 0o600); err != nil {
		return err
	}
	fmt.Printf("%d objects, %s, %d CPUs, %s\n\n", o.objects, runtime.GOARCH, runtime.NumCPU(), runtime.Version())
	f, err := b.floor(ctx, root)
	if err != nil {
		return fmt.Errorf("floor: %w", err)
	}
	fmt.Printf("%-34s %9s %9s %9s %8s\n", "work", "time", "requests", "of floor", "peak MB")
	fmt.Printf("%-34s %9s %9d %9s %8s   git %s, SOPS %s, kustomize %s, patches %s\n", "raw floor", ms(f.total()), f.objects, "1.00", "-", ms(f.git), ms(f.sops), ms(f.kustomize), ms(f.patches))
	fmt.Printf("%-34s %9s %9d %9.2f %8s   a GET and a dry run for each object (fluxcd/pkg/ssa), nothing changed\n", "interval of agents of today", ms(f.interval), f.intervalRequests, float64(f.interval)/float64(f.total()), "-")
	return b.agent(ctx, root, f)
}

func ms(d time.Duration) string { return d.Round(time.Millisecond).String() }

// floor measures on a repository sealed to a key made for it.
func (b *bench) floor(ctx context.Context, root string) (floor, error) {
	id, err := crypto.GenerateIdentity()
	if err != nil {
		return floor{}, err
	}
	files, err := tree("floor", b.objects, []crypto.Recipient{id.Recipient()})
	if err != nil {
		return floor{}, err
	}
	repo, err := harness.CreateRepo(ctx, root, "floor")
	if err != nil {
		return floor{}, err
	}
	for name, content := range files {
		repo.Write(name, content)
	}
	repo.Commit("tree")
	if err := repo.Err(); err != nil {
		return floor{}, err
	}
	return b.measureFloor(ctx, b.git.RepoURL("floor"), []crypto.Identity{id})
}

func (b *bench) args(more ...string) []string {
	return append([]string{"sync", "--kubeconfig", b.cp.Kubeconfig, "--url", b.git.RepoURL("tree"), "--ref", harness.MainBranch, "--path", "apps",
		"--git-username", gitUser, "--git-password-file", b.password}, more...)
}

// usage of one finished process.
type usage struct {
	wall time.Duration
	peak float64 // MB resident
	out  []byte
}

func (b *bench) once(ctx context.Context) (usage, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(b.bin, "agent"), b.args("--once", "-o", "json")...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	start := time.Now()
	if err := cmd.Run(); err != nil {
		return usage{}, fmt.Errorf("agent: %w\n%s", err, errOut.String())
	}
	u := usage{wall: time.Since(start), out: out.Bytes()}
	if r, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		u.peak = float64(r.Maxrss) / 1024 // kB on Linux
	}
	return u, nil
}

func (b *bench) requests(ctx context.Context, since harness.Mark) ([]harness.AuditEvent, error) {
	return b.cp.Requests(ctx, since, func(e harness.AuditEvent) bool { return strings.HasPrefix(e.UserAgent, "gitseal-agent/") })
}

// agent measures the agent's work on a repository sealed to its own key.
func (b *bench) agent(ctx context.Context, root string, f floor) error {
	var err error
	if b.repo, err = harness.CreateRepo(ctx, root, "tree"); err != nil {
		return err
	}
	b.repo.Write("apps/cm.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: begin, namespace: default}\n")
	b.repo.Commit("begin")
	if _, err := b.once(ctx); err != nil { // makes the keys, which is not measured
		return err
	}
	cm, err := b.client.CoreV1().ConfigMaps("gitseal-system").Get(ctx, "gitseal-keys", metav1.GetOptions{})
	if err != nil {
		return err
	}
	recipients, err := crypto.ParseRecipients([]byte(cm.Data["recipients.txt"]))
	if err != nil {
		return err
	}
	files, err := tree("bench", b.objects, recipients)
	if err != nil {
		return err
	}
	b.repo.Remove("apps/cm.yaml")
	for name, content := range files {
		b.repo.Write(name, content)
	}
	b.repo.Commit("tree")
	if err := b.repo.Err(); err != nil {
		return err
	}
	for _, work := range []string{"first apply (agent --once)", "nothing changed (agent --once)"} {
		mark := b.cp.Mark()
		u, err := b.once(ctx)
		if err != nil {
			return err
		}
		ev, err := b.requests(ctx, mark)
		if err != nil {
			return err
		}
		var rep struct {
			Requests          int
			StageMilliseconds map[string]int
		}
		if err := json.Unmarshal(u.out, &rep); err != nil {
			return err
		}
		fmt.Printf("%-34s %9s %9d %9.2f %8.0f   for objects %d; stages in ms %v\n", work, ms(u.wall), len(ev), float64(u.wall)/float64(f.total()), u.peak, rep.Requests, rep.StageMilliseconds)
	}
	return b.running(ctx, f)
}

// running measures an agent that stays.
func (b *bench) running(ctx context.Context, f floor) error {
	mark := b.cp.Mark()
	cmd := exec.Command(filepath.Join(b.bin, "agent"), b.args("--interval", "1s", "--log-level", "debug")...)
	log := &harness.Log{}
	cmd.Stderr = log
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return err
	}
	defer func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // its end is waited for below
		_ = cmd.Wait()
	}()
	if err := until(ctx, "the first pass", func() bool { return strings.Contains(log.String(), "msg=pass") }); err != nil {
		return fmt.Errorf("restart: %w\n%s", err, log.String())
	}
	ready := time.Since(start)
	ev, err := b.requests(ctx, mark)
	if err != nil {
		return err
	}
	patches := 0
	for _, e := range ev {
		if e.Verb == "patch" {
			patches++
		}
	}
	fmt.Printf("%-34s %9s %9d %9.2f %8s   %d patches\n", "restart, nothing changed", ms(ready), len(ev), float64(ready)/float64(f.total()), "-", patches)

	time.Sleep(3 * time.Second) // watches start
	mark = b.cp.Mark()
	const idle = 15
	time.Sleep(idle * time.Second)
	if ev, err = b.requests(ctx, mark); err != nil {
		return err
	}
	objects := 0
	for _, e := range ev {
		if e.Resource != "leases" {
			objects++
		}
	}
	fmt.Printf("%-34s %9s %9d %9s %8.0f   %d of them for objects; settled memory\n", fmt.Sprintf("idle, %d looks at git", idle), "-", len(ev), "-", resident(cmd.Process.Pid), objects)

	if err := b.oneFile(ctx, f); err != nil {
		return err
	}
	return b.drift(ctx)
}

// oneFile times from the push to the change in the cluster, polls of git
// included: a webhook comes with a later version.
func (b *bench) oneFile(ctx context.Context, f floor) error {
	mark := b.cp.Mark()
	b.repo.Write("apps/bench-000/o03.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: o03\n  namespace: bench-000\ndata:\n  a: \"2\"\n")
	b.repo.Commit("one file")
	if err := b.repo.Err(); err != nil {
		return err
	}
	start := time.Now()
	if err := until(ctx, "the change", func() bool {
		cm, err := b.client.CoreV1().ConfigMaps("bench-000").Get(ctx, "o03", metav1.GetOptions{})
		return err == nil && cm.Data["a"] == "2"
	}); err != nil {
		return err
	}
	took := time.Since(start)
	time.Sleep(500 * time.Millisecond)
	ev, err := b.requests(ctx, mark)
	if err != nil {
		return err
	}
	fmt.Printf("%-34s %9s %9d %9.2f %8s   from push; up to 1 s of it is the interval\n", "one file changed", ms(took), len(ev), float64(took)/float64(f.total()), "-")
	return nil
}

// drift edits ConfigMaps by hand, one after another, and times the repair.
func (b *bench) drift(ctx context.Context) error {
	var times []time.Duration
	for i := range b.edits {
		ns := fmt.Sprintf("bench-%03d", i%max(b.objects/perNamespace, 1))
		name := []string{"o03", "o04", "o08", "o09", "o13", "o14", "o18", "o19", "o23", "o24"}[i/max(b.objects/perNamespace, 1)%10]
		before, err := b.client.CoreV1().ConfigMaps(ns).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		start := time.Now()
		if _, err := b.client.CoreV1().ConfigMaps(ns).Patch(ctx, name, types.MergePatchType, []byte(`{"data":{"a":"edited"}}`), metav1.PatchOptions{FieldManager: "hand"}); err != nil {
			return err
		}
		if err := until(ctx, "the repair", func() bool {
			cm, err := b.client.CoreV1().ConfigMaps(ns).Get(ctx, name, metav1.GetOptions{})
			return err == nil && cm.Data["a"] == before.Data["a"]
		}); err != nil {
			return err
		}
		times = append(times, time.Since(start))
	}
	if len(times) == 0 {
		return nil
	}
	slices.Sort(times)
	fmt.Printf("%-34s %9s %9s %9s %8s   p50 of %d edits; p99 %s, worst %s\n", "drift, edit to repaired", ms(times[len(times)/2]), "-", "-", "-", len(times), ms(times[len(times)*99/100]), ms(times[len(times)-1]))
	return nil
}

func until(ctx context.Context, what string, ok func() bool) error {
	return harness.Until(ctx, 2*time.Minute, 2*time.Millisecond, what, func(context.Context) error {
		if !ok() {
			return errors.New("not yet")
		}
		return nil
	})
}
