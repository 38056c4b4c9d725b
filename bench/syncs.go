package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"
	"k8s.io/utils/ptr"

	"github.com/gitseal/gitseal/crypto"
	"github.com/gitseal/gitseal/test/harness"
)

// perSync are the objects of one Sync: eight ConfigMaps, two SOPS Secrets.
const perSync = 10

// fleet measures a controller that keeps many tenants' Syncs of one repository.
type fleet struct {
	*bench
	syncs  int
	client dynamic.NamespaceableResourceInterface
	agent  *exec.Cmd
	log    *harness.Log
}

func runSyncs(ctx context.Context, o options, syncs int) (err error) {
	f := &fleet{bench: &bench{options: o}, syncs: syncs, log: &harness.Log{}}
	f.objects = syncs * perSync
	defer f.tearDown()
	if err := f.setUp(ctx, harness.GitHTTPConfig{}); err != nil {
		return err
	}
	dyn, err := dynamic.NewForConfig(f.rest)
	if err != nil {
		return err
	}
	f.client = dyn.Resource(harness.SyncsResource())
	if f.repo, err = harness.CreateRepo(ctx, f.repos, "fleet"); err != nil {
		return err
	}
	if err := harness.InstallSyncs(ctx, f.rest); err != nil {
		return err
	}
	defer func() {
		if f.agent != nil {
			_ = f.agent.Process.Signal(syscall.SIGTERM) // its end is waited for next
			_ = f.agent.Wait()
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, f.log)
		}
	}()
	fmt.Printf("%d Syncs of %d objects, of one repository, each with its own namespace and service account, %s\n\n", syncs, perSync, f.report.Machine)
	fmt.Printf("%-34s %9s %9s %9s %8s\n", "work", "time", "requests", "of floor", "MB")
	return f.measure(ctx)
}

func (f *fleet) measure(ctx context.Context) error {
	if err := f.start(ctx); err != nil {
		return err
	}
	if err := f.fill(ctx); err != nil {
		return err
	}
	mark, start := f.cp.Mark(), time.Now()
	most := watchPeak(f.agent.Process.Pid)
	for i := range f.syncs {
		s := &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "gitseal.io/v1alpha1", "kind": "Sync", "metadata": map[string]any{"name": "app", "namespace": team(i)},
			"spec": map[string]any{"source": map[string]any{"url": f.git.RepoURL("fleet")}, "path": team(i), "interval": "1s", "serviceAccountName": "deployer"},
		}}
		if _, err := f.client.Namespace(team(i)).Create(ctx, s, metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	if err := f.row(ctx, fmt.Sprintf("first apply of %d Syncs", f.syncs), mark, start, f.repo.Head()); err != nil {
		return err
	}
	f.report.add(measured{Work: "  memory meanwhile", PeakMB: megabytes(most()), Note: "peak"})

	if err := f.quiet(ctx, mark); err != nil {
		return err
	}
	mark = f.cp.Mark()
	time.Sleep(15 * time.Second)
	ev, err := f.requests(ctx, mark)
	if err != nil {
		return err
	}
	objects := 0
	for _, e := range ev {
		if e.Resource != "leases" {
			objects++
		}
	}
	f.report.add(measured{Work: idle, Requests: ptr.To(len(ev)), ForObjects: &objects, SettledMB: megabytes(resident(f.agent.Process.Pid)), Note: fmt.Sprintf("settled; besides the lease %d", objects)})

	f.repo.Write(team(0)+"/c0.yaml", configMap("c0", "2"))
	f.repo.Commit("one of them")
	if err := f.row(ctx, "a commit that touches one", f.cp.Mark(), time.Now(), f.repo.Head()); err != nil {
		return err
	}
	for i := range f.syncs {
		f.repo.Write(team(i)+"/c1.yaml", configMap("c1", "2"))
	}
	f.repo.Commit("all of them")
	return f.row(ctx, "a commit that touches one object each", f.cp.Mark(), time.Now(), f.repo.Head())
}

func team(i int) string { return fmt.Sprintf("team-%03d", i) }

func configMap(name, value string) string {
	return "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: " + name + "\ndata:\n  a: \"" + value + "\"\n  b: some text that is a little longer\n"
}

// start runs the agent and waits for its keys.
func (f *fleet) start(ctx context.Context) error {
	if _, err := f.bench.client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "gitseal-system"}}, metav1.CreateOptions{}); err != nil {
		return err
	}
	f.agent = exec.Command(filepath.Join(f.bin, "agent"), "--kubeconfig", f.cp.Kubeconfig, "--allow-git-cidr", "127.0.0.0/8",
		"--metrics-bind-address", "0", "--kubeseal-bind-address", "0", "--health-probe-bind-address", "0", "--audit-log=false")
	f.agent.Stderr = f.log
	if err := f.agent.Start(); err != nil {
		f.agent = nil
		return err
	}
	return until(ctx, "the keys", func() bool { return strings.Contains(f.log.String(), "published the public keys") })
}

// fill makes the tenants' namespaces and the repository.
func (f *fleet) fill(ctx context.Context) error {
	cm, err := f.bench.client.CoreV1().ConfigMaps("gitseal-system").Get(ctx, "gitseal-keys", metav1.GetOptions{})
	if err != nil {
		return err
	}
	recipients, err := crypto.ParseRecipients([]byte(cm.Data["recipients.txt"]))
	if err != nil {
		return err
	}
	for i := range f.syncs {
		meta := metav1.ObjectMeta{Namespace: team(i), Name: "deployer"}
		if _, err := f.bench.client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: team(i)}}, metav1.CreateOptions{}); err != nil {
			return err
		}
		if _, err := f.bench.client.CoreV1().ServiceAccounts(team(i)).Create(ctx, &corev1.ServiceAccount{ObjectMeta: meta}, metav1.CreateOptions{}); err != nil {
			return err
		}
		binding := &rbacv1.RoleBinding{ObjectMeta: meta, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "edit"},
			Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: team(i), Name: "deployer"}}}
		if _, err := f.bench.client.RbacV1().RoleBindings(team(i)).Create(ctx, binding, metav1.CreateOptions{}); err != nil {
			return err
		}
		for n := range perSync - 2 {
			f.repo.Write(fmt.Sprintf("%s/c%d.yaml", team(i), n), configMap(fmt.Sprintf("c%d", n), "1"))
		}
		for n := range 2 {
			sealed, err := sealedSecret(team(i), fmt.Sprintf("s%d", n), recipients)
			if err != nil {
				return err
			}
			f.repo.Write(fmt.Sprintf("%s/s%d.yaml", team(i), n), sealed)
		}
	}
	f.repo.Commit("fleet")
	return f.repo.Err()
}

// row waits until every Sync has applied a commit.
func (f *fleet) row(ctx context.Context, work string, mark harness.Mark, start time.Time, commit string) error {
	if err := until(ctx, work, func() bool {
		l, err := f.client.List(ctx, metav1.ListOptions{ResourceVersion: "0"})
		if err != nil || len(l.Items) != f.syncs {
			return false
		}
		for _, s := range l.Items {
			if hash, _, _ := unstructured.NestedString(s.Object, "status", "applied", "hash"); hash != commit {
				return false
			}
		}
		return true
	}); err != nil {
		return err
	}
	took := time.Since(start)
	time.Sleep(2 * time.Second) // events come behind
	ev, err := f.requests(ctx, mark)
	if err != nil {
		return err
	}
	kinds := map[string]int{}
	for _, e := range ev {
		kinds[e.Verb+" "+e.Resource]++
	}
	f.report.add(measured{Work: work, Seconds: seconds(took), Requests: ptr.To(len(ev)), Note: fmt.Sprint(kinds)})
	return nil
}
