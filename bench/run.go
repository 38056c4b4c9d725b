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
	"slices"
	"strings"
	"syscall"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/gitseal/gitseal/crypto"
	"github.com/gitseal/gitseal/source"
	"github.com/gitseal/gitseal/test/harness"
)

type options struct {
	objects, edits, wholeBuild int
	bin, json                  string
}

const gitUser, gitPassword = "bench", "bench-password"

func run(ctx context.Context, o options) error {
	b := &bench{options: o, credentials: source.Credentials{Username: gitUser, Password: crypto.NewSecretString(gitPassword)}}
	defer b.tearDown()
	if err := b.setUp(ctx, harness.GitHTTPConfig{Username: gitUser, Password: gitPassword}); err != nil {
		return err
	}
	b.password = filepath.Join(b.dir, "password")
	if err := os.WriteFile(b.password, []byte(gitPassword), 0o600); err != nil {
		return err
	}
	b.report.header()
	if err := b.floor(ctx); err != nil {
		return fmt.Errorf("floor: %w", err)
	}
	if err := b.agent(ctx); err != nil {
		return err
	}
	if o.json == "" {
		return nil
	}
	return b.report.save(o.json)
}

// floor measures on a repository sealed to a key made for it.
func (b *bench) floor(ctx context.Context) error {
	id, err := crypto.GenerateIdentity()
	if err != nil {
		return err
	}
	repo, err := harness.CreateRepo(ctx, b.repos, "floor")
	if err != nil {
		return err
	}
	if err := b.commit(repo, "floor", []crypto.Recipient{id.Recipient()}); err != nil {
		return err
	}
	f, err := b.measureFloor(ctx, b.git.RepoURL("floor"), []crypto.Identity{id})
	if err != nil {
		return err
	}
	b.report.addFloor(f)
	return nil
}

// commit fills a repository with the tree.
func (b *bench) commit(repo *harness.Repo, prefix string, recipients []crypto.Recipient) error {
	return step("generate and commit the tree "+prefix, nil, func() error {
		files, err := tree(prefix, b.objects, recipients)
		if err != nil {
			return err
		}
		for name, content := range files {
			repo.Write(name, content)
		}
		repo.Commit("tree")
		return repo.Err()
	})
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
	u := usage{}
	if err := step("agent sync --once", b.sent(ctx, agentName), func() error {
		if err := cmd.Start(); err != nil {
			return err
		}
		most := watchPeak(cmd.Process.Pid)
		err := cmd.Wait()
		u = usage{wall: time.Since(start), peak: most(), out: out.Bytes()}
		return err
	}); err != nil {
		return usage{}, fmt.Errorf("%w\n%s", err, errOut.String())
	}
	return u, nil
}

// agentName begins the user agent of the agent's requests.
const agentName = "gitseal-agent/"

func (b *bench) requests(ctx context.Context, since harness.Mark) ([]harness.AuditEvent, error) {
	return b.cp.Requests(ctx, since, func(e harness.AuditEvent) bool { return strings.HasPrefix(e.UserAgent, agentName) })
}

// sent tells how many requests somebody has made from now on.
func (b *bench) sent(ctx context.Context, userAgent string) func() string {
	mark := b.cp.Mark()
	return func() string {
		ev, err := b.cp.Requests(ctx, mark, func(e harness.AuditEvent) bool { return strings.HasPrefix(e.UserAgent, userAgent) })
		if err != nil {
			return "requests unknown: " + err.Error()
		}
		return fmt.Sprintf("%d requests for %d objects", len(ev), b.objects)
	}
}

// quiet waits until the agent has sent nothing for some seconds: its watches have
// begun.
func (b *bench) quiet(ctx context.Context, since harness.Mark) error {
	before := -1
	for {
		ev, err := b.requests(ctx, since)
		if err != nil || len(ev) == before {
			return err
		}
		before = len(ev)
		time.Sleep(3 * time.Second)
	}
}

// agent measures the agent's work on a repository sealed to its own key.
func (b *bench) agent(ctx context.Context) error {
	var err error
	if b.repo, err = harness.CreateRepo(ctx, b.repos, "tree"); err != nil {
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
	b.repo.Remove("apps/cm.yaml")
	if err := b.commit(b.repo, "bench", recipients); err != nil {
		return err
	}
	for _, work := range []string{firstApply, nothingChanged} {
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
		parts := map[string]float64{}
		for stage, n := range rep.StageMilliseconds {
			parts[stage] = float64(n) / 1000
		}
		b.report.add(measured{
			Work: work, Seconds: seconds(u.wall), Requests: ptr.To(len(ev)), ForObjects: &rep.Requests, PeakMB: megabytes(u.peak), Parts: parts,
			Note: fmt.Sprintf("peak; for objects %d; stages in ms %v", rep.Requests, rep.StageMilliseconds),
		})
	}
	return b.running(ctx)
}

// running measures an agent that stays.
func (b *bench) running(ctx context.Context) error {
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
	if err := step("restart", b.sent(ctx, agentName), func() error {
		return until(ctx, "the first pass", func() bool { return strings.Contains(log.String(), "msg=pass") })
	}); err != nil {
		return fmt.Errorf("%w\n%s", err, log.String())
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
	b.report.add(measured{Work: restarted, Seconds: seconds(ready), Requests: ptr.To(len(ev)), Note: fmt.Sprintf("until ready; %d patches", patches)})

	if err := b.quiet(ctx, mark); err != nil {
		return err
	}
	mark = b.cp.Mark()
	time.Sleep(15 * time.Second)
	if ev, err = b.requests(ctx, mark); err != nil {
		return err
	}
	objects := 0
	for _, e := range ev {
		if e.Resource != "leases" {
			objects++
		}
	}
	b.report.add(measured{
		Work: idle, Requests: ptr.To(len(ev)), ForObjects: &objects, SettledMB: megabytes(resident(cmd.Process.Pid)),
		Note: fmt.Sprintf("settled; for objects %d", objects),
	})
	if err := b.oneFile(ctx); err != nil {
		return err
	}
	return b.drift(ctx)
}

// oneFile times from the push to the change in the cluster, polls of git
// included: a webhook comes with a later version.
func (b *bench) oneFile(ctx context.Context) error {
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
	b.report.add(measured{Work: oneFile, Seconds: seconds(took), Requests: ptr.To(len(ev)), Note: "from push; up to 1 s of it is the interval"})
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
	p99, worst := times[len(times)*99/100], times[len(times)-1]
	b.report.add(measured{
		Work: drifted, Seconds: seconds(times[len(times)/2]), Parts: map[string]float64{"p99": p99.Seconds(), "worst": worst.Seconds()},
		Note: fmt.Sprintf("p50 of %d edits; p99 %s, worst %s", len(times), ms(p99), ms(worst)),
	})
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
