package harness

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// clientAs returns a client whose requests carry a user agent of their own.
func clientAs(t *testing.T, c *ControlPlane, agent string, change func(*rest.Config)) *kubernetes.Clientset {
	t.Helper()
	config, err := c.RESTConfig()
	if err != nil {
		t.Fatal(err)
	}
	config.UserAgent = agent
	if change != nil {
		change(config)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func requestsBy(t *testing.T, c *ControlPlane, since Mark, agent string) []AuditEvent {
	t.Helper()
	events, err := c.Requests(t.Context(), since, func(e AuditEvent) bool { return e.UserAgent == agent })
	if err != nil {
		t.Fatal(err)
	}
	return events
}

func configMap(name string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}
}

// ignoreVolatile leaves what differs from run to run out of a comparison.
var ignoreVolatile = cmpopts.IgnoreFields(AuditEvent{}, "ID", "RequestURI", "Time")

func TestRequestsCountsEachRequestOnce(t *testing.T) {
	t.Parallel()
	c := Shared(t)
	namespace := c.Namespace(t, "count")
	client := clientAs(t, c, "count-test", nil)

	mark := c.Mark()
	if _, err := client.CoreV1().ConfigMaps(namespace).Create(t.Context(), configMap("a"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	want := []AuditEvent{{
		Verb: "create", User: "admin", UserAgent: "count-test", Resource: "configmaps",
		Namespace: namespace, Name: "a", Code: 201,
	}}
	if diff := cmp.Diff(want, requestsBy(t, c, mark, "count-test"), ignoreVolatile); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
	if got := requestsBy(t, c, c.Mark(), "count-test"); len(got) > 0 {
		t.Errorf("since a later mark: got %v, want none", got)
	}
}

func TestRequestsMissesNoneOfMany(t *testing.T) {
	t.Parallel()
	c := Shared(t)
	namespace := c.Namespace(t, "many")
	client := clientAs(t, c, "many-test", nil)
	for round := range 20 {
		mark := c.Mark()
		for i := range 10 {
			name := "m-" + strconv.Itoa(round) + "-" + strconv.Itoa(i)
			if _, err := client.CoreV1().ConfigMaps(namespace).Create(t.Context(), configMap(name), metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		if got := len(requestsBy(t, c, mark, "many-test")); got != 10 {
			t.Errorf("round %d: got %d requests, want 10", round, got)
		}
	}
}

func TestRequestsCountsAWatchWhenItBegins(t *testing.T) {
	t.Parallel()
	c := Shared(t)
	namespace := c.Namespace(t, "watch")
	client := clientAs(t, c, "watch-test", nil)

	mark := c.Mark()
	watch, err := client.CoreV1().ConfigMaps(namespace).Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	got := requestsBy(t, c, mark, "watch-test")
	if len(got) != 1 || got[0].Verb != "watch" || got[0].Code != 200 {
		t.Errorf("a running watch: got %+v, want one watch with code 200", got)
	}
	later := c.Mark()
	watch.Stop()
	time.Sleep(200 * time.Millisecond) // for the API server to notice
	if got := requestsBy(t, c, mark, "watch-test"); len(got) != 1 {
		t.Errorf("an ended watch: got %d requests, want 1", len(got))
	}
	if got := requestsBy(t, c, later, "watch-test"); len(got) != 0 {
		t.Errorf("since a mark in the middle of the watch: got %+v, want none", got)
	}
}

func TestRequestsShowsWhoAsked(t *testing.T) {
	t.Parallel()
	c := Shared(t)
	tests := map[string]struct {
		change func(*rest.Config)
		want   AuditEvent
	}{
		"a service account impersonated": {
			change: func(config *rest.Config) {
				config.Impersonate.UserName = "system:serviceaccount:default:default"
			},
			want: AuditEvent{User: "admin", ImpersonatedUser: "system:serviceaccount:default:default", Code: 403},
		},
		"nobody that the server knows": {
			change: func(config *rest.Config) {
				config.CertData, config.KeyData, config.BearerToken = nil, nil, "no-such-token"
			},
			want: AuditEvent{Code: 401},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			agent := "who-test " + name
			mark := c.Mark()
			client := clientAs(t, c, agent, test.change)
			if _, err := client.CoreV1().Secrets("default").List(t.Context(), metav1.ListOptions{}); err == nil {
				t.Error("got no error, want one")
			}
			test.want.Verb, test.want.Resource, test.want.Namespace, test.want.UserAgent = "list", "secrets", "default", agent
			if diff := cmp.Diff([]AuditEvent{test.want}, requestsBy(t, c, mark, agent), ignoreVolatile); diff != "" {
				t.Errorf("requests (-want +got):\n%s", diff)
			}
		})
	}
}

func TestObjectsOutliveTheAPIServer(t *testing.T) {
	t.Parallel()
	c := NewControlPlane(t)
	client := clientAs(t, c, "restart-test", nil)
	maps := client.CoreV1().ConfigMaps("default")
	if _, err := maps.Create(t.Context(), configMap("kept"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := c.StopAPIServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := maps.Get(t.Context(), "kept", metav1.GetOptions{}); err == nil {
		t.Error("get from a stopped API server: got no error, want one")
	}
	if err := c.StopAPIServer(t.Context()); err == nil {
		t.Error("stop a stopped API server: got no error, want one")
	}
	if err := c.StartAPIServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := maps.Get(t.Context(), "kept", metav1.GetOptions{}); err != nil {
		t.Errorf("get after the restart: %v", err)
	}
	creates := 0
	for _, e := range requestsBy(t, c, 0, "restart-test") {
		if e.Verb == "create" {
			creates++
		}
	}
	if creates != 1 {
		t.Errorf("got %d creates in the log that spans the restart, want 1", creates)
	}

	pids := childPIDs(t, c)
	c.Stop()
	if left := leftAfter(10*time.Second, pids); len(left) > 0 {
		t.Errorf("after Stop: processes %v are left", left)
	}
	if _, err := os.Stat(c.Dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after Stop: %s is left (%v)", c.Dir, err)
	}
}

func TestAKilledLauncherLeavesNoOrphans(t *testing.T) {
	t.Parallel()
	c := NewControlPlane(t)
	t.Cleanup(func() { os.RemoveAll(c.Dir) })
	pids := childPIDs(t, c)
	if err := c.launcher.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if left := leftAfter(10*time.Second, pids); len(left) > 0 {
		t.Errorf("processes %v are left", left)
	}
	if err := c.StopAPIServer(t.Context()); err == nil {
		t.Error("a command to a killed launcher: got no error, want one")
	}
}

func TestAChildThatDiesEndsTheRest(t *testing.T) {
	t.Parallel()
	c := NewControlPlane(t)
	t.Cleanup(func() { os.RemoveAll(c.Dir) })
	pids := childPIDs(t, c)
	if err := syscall.Kill(pids["etcd"], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if left := leftAfter(30*time.Second, pids); len(left) > 0 {
		t.Errorf("processes %v are left", left)
	}
	if err := c.StartAPIServer(t.Context()); err == nil || !strings.Contains(err.Error(), "etcd ended") {
		t.Errorf("got %v, want an error that says that etcd ended", err)
	}
}

func TestStartGivesUpWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if c, err := Start(ctx, os.Stderr); err == nil {
		c.Stop()
		t.Error("got no error, want one")
	}
}

// childPIDs returns the process ids of the three children.
func childPIDs(t *testing.T, c *ControlPlane) map[string]int {
	t.Helper()
	pids := map[string]int{}
	for _, name := range []string{"etcd", "kube-apiserver", "kube-controller-manager"} {
		content, err := os.ReadFile(filepath.Join(c.Dir, name+".pid"))
		if err != nil {
			t.Fatal(err)
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(content)))
		if err != nil {
			t.Fatal(err)
		}
		if !alive(pid) {
			t.Fatalf("%s (process %d) does not run", name, pid)
		}
		pids[name] = pid
	}
	return pids
}

// leftAfter waits for processes to end and returns those that have not.
func leftAfter(limit time.Duration, pids map[string]int) map[string]int {
	for deadline := time.Now().Add(limit); ; time.Sleep(20 * time.Millisecond) {
		left := map[string]int{}
		for name, pid := range pids {
			if alive(pid) {
				left[name] = pid
			}
		}
		if len(left) == 0 || time.Now().After(deadline) {
			return left
		}
	}
}

// alive says whether a process runs. One that has ended and that nobody waited
// for, as where no init process does so, does not.
func alive(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist) || !exists("/proc/self/stat")
	}
	_, state, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(state, "Z")
}
