package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/term"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/gitseal/gitseal/test/harness"
)

// stage is everything that the steps share.
type stage struct {
	bin, dir   string
	kubeconfig string
	kubectl    string // "" if there is none
	cp         *harness.ControlPlane
	client     kubernetes.Interface
	dynamic    dynamic.Interface
	ownCRD     bool // the CRD was not there before
	git        *harness.GitHTTP
	repo       *harness.Repo
	agent      *exec.Cmd
	agentLog   string
	namespace  string // of the agent
	app, tools string // namespaces of the example
	values     map[string]string
	rows       []row
}

type row struct {
	title    string
	took     time.Duration
	requests string
}

// step is one act of the demo.
type step struct {
	title string
	play  func(ctx context.Context, s *stage) error
}

const gitUser, gitPassword = "demo", "demo-password"

func newStage(ctx context.Context, bin string) (*stage, error) {
	s := &stage{namespace: "gitseal-system", app: "quickstart", tools: "quickstart-tools", values: map[string]string{}}
	var err error
	if s.bin, err = filepath.Abs(bin); err != nil {
		return nil, err
	}
	if s.dir, err = os.MkdirTemp("", "gitseal-demo-"); err != nil {
		return nil, err
	}
	if s.kubeconfig = os.Getenv("KUBECONFIG"); s.kubeconfig != "" {
		suffix := random(3)
		s.namespace, s.app, s.tools = "gitseal-demo-"+suffix, "quickstart-"+suffix, "quickstart-tools-"+suffix
		say("using the cluster of KUBECONFIG, in the namespaces %s, %s and %s, which are removed at the end", s.namespace, s.app, s.tools)
		s.kubectl, _ = exec.LookPath("kubectl") // it is optional
	} else {
		say("starting a real control plane: etcd, kube-apiserver, kube-controller-manager")
		if s.cp, err = harness.Start(ctx, os.Stderr); err != nil {
			return nil, err
		}
		s.kubeconfig, s.kubectl = s.cp.Kubeconfig, filepath.Join(s.cp.BinDir, "kubectl")
	}
	cfg, err := s.restConfig()
	if err != nil {
		return nil, err
	}
	if s.client, err = kubernetes.NewForConfig(cfg); err != nil {
		return nil, err
	}
	if s.dynamic, err = dynamic.NewForConfig(cfg); err != nil {
		return nil, err
	}
	root := filepath.Join(s.dir, "git")
	if s.repo, err = harness.CreateRepo(ctx, root, "shop"); err != nil {
		return nil, err
	}
	s.git, err = harness.StartGitHTTP(harness.GitHTTPConfig{Root: root, Username: gitUser, Password: gitPassword})
	return s, err
}

func (s *stage) restConfig() (*rest.Config, error) {
	if s.cp != nil {
		return s.cp.RESTConfig()
	}
	return clientcmd.NewNonInteractiveDeferredLoadingClientConfig(clientcmd.NewDefaultClientConfigLoadingRules(), nil).ClientConfig()
}

// play runs one step and notes its time and the agent's requests.
func (s *stage) play(ctx context.Context, st step) error {
	fmt.Println("\n" + bold(fmt.Sprintf("%d. %s", len(s.rows)+1, st.title)))
	var mark harness.Mark
	if s.cp != nil {
		mark = s.cp.Mark()
	}
	start := time.Now()
	if err := st.play(ctx, s); err != nil {
		return err
	}
	r := row{title: st.title, took: time.Since(start), requests: "-"}
	if s.cp != nil {
		// Events of the requests that end a step may follow it by a moment.
		time.Sleep(200 * time.Millisecond)
		events, err := s.cp.Requests(ctx, mark, func(e harness.AuditEvent) bool { return strings.HasPrefix(e.UserAgent, "gitseal-agent/") })
		if err != nil {
			return err
		}
		r.requests = fmt.Sprint(len(events))
	}
	fmt.Printf("   done in %s\n", r.took.Round(time.Millisecond))
	s.rows = append(s.rows, r)
	return nil
}

func (s *stage) table() {
	fmt.Printf("\n%-66s %10s %9s\n", "step", "time", "requests")
	for i, r := range s.rows {
		fmt.Printf("%-66s %10s %9s\n", fmt.Sprintf("%d. %s", i+1, r.title), r.took.Round(time.Millisecond), r.requests)
	}
	fmt.Println("\nrequests: what the agent asked of the API server in that step, from its audit log")
}

// bold and dim mark text on a terminal that wants it.
func bold(s string) string { return style("1", s) }
func dim(s string) string  { return style("2", s) }

func style(code, s string) string {
	if os.Getenv("NO_COLOR") != "" || !term.IsTerminal(int(os.Stdout.Fd())) {
		return s
	}
	return "\033[" + code + "m" + s + "\033[0m"
}

// say tells one line.
func say(format string, args ...any) { fmt.Printf("   "+format+"\n", args...) }

// command runs a program in the repository's work tree, shows how, and returns
// its standard output. What it is given on standard input is not shown.
func (s *stage) command(ctx context.Context, stdin, name string, args ...string) (string, error) {
	shown := append([]string{filepath.Base(name)}, args...)
	say("%s", dim("$ "+strings.Join(shown, " ")))
	return s.quietly(ctx, stdin, name, args...)
}

// quietly runs it without showing how.
func (s *stage) quietly(ctx context.Context, stdin, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = s.repo.Work
	cmd.Env = append(harness.GitEnv(), "HOME="+s.dir, "KUBECONFIG="+s.kubeconfig)
	cmd.Stdin = strings.NewReader(stdin)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w\n%s", filepath.Base(name), strings.Join(args, " "), err, errOut.String())
	}
	for _, line := range strings.Split(strings.TrimSpace(errOut.String()), "\n") {
		if line != "" {
			say("%s", line)
		}
	}
	return out.String(), nil
}

func (s *stage) seal(ctx context.Context, stdin string, args ...string) (string, error) {
	return s.command(ctx, stdin, filepath.Join(s.bin, "seal"), args...)
}

// commit commits and pushes everything.
func (s *stage) commit(message string) error {
	sha := s.repo.Commit(message)
	if err := s.repo.Err(); err != nil {
		return err
	}
	say("committed and pushed %.12s: %s", sha, message)
	return nil
}

// startAgent starts the agent and leaves it running.
func (s *stage) startAgent() error {
	s.agentLog = filepath.Join(s.dir, "agent.log")
	log, err := os.Create(s.agentLog)
	if err != nil {
		return err
	}
	defer log.Close()
	say("%s", dim(fmt.Sprintf("$ agent --namespace %s --watch-namespaces %[1]s", s.namespace)))
	s.agent = exec.Command(filepath.Join(s.bin, "agent"), "--kubeconfig", s.kubeconfig, "--namespace", s.namespace, "--watch-namespaces", s.namespace,
		"--metrics-bind-address", "0", "--kubeseal-bind-address", "0", "--health-probe-bind-address", "0")
	s.agent.Stdout, s.agent.Stderr = log, log
	s.agent.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return s.agent.Start()
}

func (s *stage) showAgentLog() {
	if b, err := os.ReadFile(s.agentLog); err == nil {
		lines := strings.Split(strings.TrimSpace(string(b)), "\n")
		fmt.Fprintln(os.Stderr, "the agent's last words:")
		fmt.Fprintln(os.Stderr, strings.Join(lines[max(0, len(lines)-15):], "\n"))
	}
}

func until(ctx context.Context, what string, check func(ctx context.Context) error) error {
	return harness.Until(ctx, 90*time.Second, 20*time.Millisecond, what, check)
}

func (s *stage) close() {
	if s.cp == nil && s.dynamic != nil { // the agent takes what it applied out of the cluster
		s.removeSync()
	}
	if s.agent != nil && s.agent.Process != nil {
		_ = s.agent.Process.Signal(syscall.SIGTERM) // it may have ended already
		_ = s.agent.Wait()
	}
	if s.git != nil {
		s.git.Close()
	}
	if s.cp != nil {
		s.cp.Stop()
	} else if s.client != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if s.ownCRD {
			say("removing the CRD of Syncs")
			if err := s.dynamic.Resource(harness.CRDResource()).Delete(ctx, "syncs.gitseal.io", metav1.DeleteOptions{}); err != nil {
				fmt.Fprintln(os.Stderr, "demo: clean up:", err)
			}
		}
		for _, ns := range []string{s.app, s.tools, s.namespace} {
			say("removing namespace %s", ns)
			if err := s.client.CoreV1().Namespaces().Delete(ctx, ns, metav1.DeleteOptions{}); err != nil {
				fmt.Fprintln(os.Stderr, "demo: clean up:", err)
			}
		}
	}
	_ = os.RemoveAll(s.dir) // a temporary folder
}

func random(bytes int) string {
	b := make([]byte, bytes)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return hex.EncodeToString(b)
}
