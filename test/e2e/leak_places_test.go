package e2e

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/gitseal/gitseal/test/harness"
)

// places is everything outside of the agent in which a value could have been
// left: all that the cluster stores, Secrets taken apart, the inventory unpacked,
// the audit log since a mark, the repository and its history.
func (e *env) places(since harness.Mark) []haystack {
	e.t.Helper()
	out := append(e.etcd(), e.secrets()...)
	out = append(out, e.inventory()...)
	out = append(out, e.auditLog(since))
	return append(out, e.repository()...)
}

// secrets are those of all namespaces, their metadata apart from their data.
func (e *env) secrets() []haystack {
	e.t.Helper()
	l, err := e.client.CoreV1().Secrets("").List(e.t.Context(), metav1.ListOptions{})
	if err != nil || len(l.Items) == 0 {
		e.t.Fatalf("no Secrets: %v", err)
	}
	var out []haystack
	for i := range l.Items {
		s := &l.Items[i]
		for key, value := range s.Data {
			out = append(out, haystack{fmt.Sprintf("data of Secret %s/%s %s", s.Namespace, s.Name, key), value})
		}
		s.Data = nil
		b, err := json.Marshal(s)
		if err != nil {
			e.t.Fatal(err)
		}
		out = append(out, haystack{fmt.Sprintf("metadata of Secret %s/%s", s.Namespace, s.Name), b})
	}
	return out
}

func (e *env) auditLog(since harness.Mark) haystack {
	e.t.Helper()
	f, err := os.Open(e.cp.AuditLog)
	if err != nil {
		e.t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Seek(int64(since), io.SeekStart); err != nil {
		e.t.Fatal(err)
	}
	b, err := io.ReadAll(f)
	if err != nil || len(b) == 0 {
		e.t.Fatalf("nothing in the audit log: %v", err)
	}
	return haystack{"audit log", b}
}

// process is what everybody on its machine can see of a process.
func process(t *testing.T, pid int) []haystack {
	t.Helper()
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	if runtime.GOOS != "linux" {
		t.Skip("only Linux shows a process in /proc")
	}
	var out []haystack
	for _, name := range []string{"cmdline", "environ"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || len(b) == 0 {
			t.Fatalf("nothing in %s: %v", name, err)
		}
		out = append(out, haystack{"process " + name, b})
	}
	files, err := os.ReadDir(filepath.Join(dir, "fd"))
	if err != nil {
		t.Fatal(err)
	}
	var open []byte
	for _, f := range files {
		target, _ := os.Readlink(filepath.Join(dir, "fd", f.Name())) // it may be closed by now
		open = append(open, target+"\n"...)
	}
	return append(out, haystack{"process files", open})
}

// parts are the beginning and the end of each value, since what shows may have
// been cut.
func parts(values map[string]string) map[string]string {
	out := map[string]string{}
	for name, v := range values {
		out[name+" beginning"], out[name+" end"] = v[:16], v[len(v)-12:]
	}
	return out
}

// Each place is searched, and what is planted there is found there and nowhere
// else.
func TestPlantedValuesAreFound(t *testing.T) {
	t.Parallel()
	e := newEnv(t).withKeys()
	ctx, since := t.Context(), e.cp.Mark()
	secrets := e.client.CoreV1().Secrets(e.app)
	tmp := t.TempDir()
	var extra []haystack
	ok := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	run := func(argument, variable string) {
		t.Helper()
		cmd := exec.Command("sh", "-c", "read line", "sh", argument)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "PASSWORD=" + variable}
		in, err := cmd.StdinPipe()
		ok(nil, err)
		ok(nil, cmd.Start())
		e.eventually("the process runs its program", func(context.Context) error {
			b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", cmd.Process.Pid))
			if err == nil && !bytes.HasPrefix(b, []byte("sh\x00-c\x00read")) {
				err = fmt.Errorf("%q", b)
			}
			return err
		})
		extra = append(extra, process(t, cmd.Process.Pid)...)
		ok(nil, in.Close())
		_ = cmd.Wait() // reading nothing is a failure of sh
	}
	b64 := func(v string) string { return base64.StdEncoding.EncodeToString([]byte("x" + v + "yz")) }
	values := map[string]string{}
	want := map[string]string{}
	for name, c := range map[string]struct {
		place string
		plant func(v string)
	}{
		"ConfigMap": {"etcd /registry/configmaps/" + e.app + "/planted", func(v string) {
			ok(e.client.CoreV1().ConfigMaps(e.app).Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "planted"}, Data: map[string]string{"a": v}}, metav1.CreateOptions{}))
		}},
		"Event": {"etcd /registry/events/" + e.app + "/", func(v string) {
			ok(e.client.CoreV1().Events(e.app).Create(ctx, &corev1.Event{ObjectMeta: metav1.ObjectMeta{Name: "planted"}, InvolvedObject: corev1.ObjectReference{Namespace: e.app, Kind: "Secret", Name: "a"}, Message: "could not " + v}, metav1.CreateOptions{}))
		}},
		"Lease": {"etcd /registry/leases/" + e.app + "/", func(v string) {
			ok(e.client.CoordinationV1().Leases(e.app).Create(ctx, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: "planted", Annotations: map[string]string{"a": b64(v)}}}, metav1.CreateOptions{}))
		}},
		"annotation": {"metadata of Secret " + e.app + "/annotated", func(v string) {
			s := secretObject("annotated", nil)
			s.Annotations = map[string]string{"last-applied": fmt.Sprintf("{%q: %q}", "data", b64(v))}
			ok(secrets.Create(ctx, s, metav1.CreateOptions{}))
		}},
		"field manager": {"metadata of Secret " + e.app + "/managed", func(v string) {
			ok(secrets.Create(ctx, secretObject("managed", nil), metav1.CreateOptions{FieldManager: v}))
		}},
		"another Secret": {"data of Secret " + e.app + "/another k", func(v string) {
			ok(secrets.Create(ctx, secretObject("another", map[string][]byte{"k": []byte(v)}), metav1.CreateOptions{}))
		}},
		"the agent's Secret": {"data of Secret " + e.system + "/planted k", func(v string) {
			ok(e.client.CoreV1().Secrets(e.system).Create(ctx, secretObject("planted", map[string][]byte{"k": []byte(b64(v))}), metav1.CreateOptions{}))
		}},
		"inventory": {"inventory planted-inventory", func(v string) {
			var packed bytes.Buffer
			zw := gzip.NewWriter(&packed)
			ok(zw.Write([]byte(`{"entries":[{"a":"` + b64(`{"data":{"k":"`+b64(v)+`"}}`) + `"}]}`)))
			ok(nil, zw.Close())
			s := secretObject("planted-inventory", map[string][]byte{"inventory.json.gz": packed.Bytes()})
			s.Labels = map[string]string{"gitseal.io/inventory": "planted"}
			ok(e.client.CoreV1().Secrets(e.system).Create(ctx, s, metav1.CreateOptions{}))
		}},
		"audit log": {"audit log", func(v string) {
			ok(e.client.CoreV1().RESTClient().Get().AbsPath("/version").Param("planted", v).DoRaw(ctx))
		}},
		"work tree": {filepath.Join(e.repo.Work, "apps/planted.yaml"), func(v string) { e.repo.Write("apps/planted.yaml", "a: "+v+"\n") }},
		"history": {"history", func(v string) {
			e.repo.Write("planted", v)
			e.repo.Commit("plant")
			e.repo.Remove("planted")
			e.repo.Commit("remove")
		}},
		"temporary file": {filepath.Join(tmp, "planted"), func(v string) { ok(nil, os.WriteFile(filepath.Join(tmp, "planted"), []byte("\x00"+v), 0o600)) }},
		"arguments":      {"process cmdline", func(v string) { run(v, "x") }},
		"environment":    {"process environ", func(v string) { run("x", v) }},
		"log":            {"log", func(v string) { extra = append(extra, haystack{"log", []byte("msg=failed error=" + strconv.Quote(v))}) }},
		"JSON in a log":  {"JSON log", func(v string) { extra = append(extra, haystack{"JSON log", []byte(jsonText(jsonText(v)))}) }},
		"hexdump in a log": {"hexdump", func(v string) {
			extra = append(extra, haystack{"hexdump", []byte("I1121 12:00:00 body:\n" + hex.Dump([]byte("0123456789"+v)))})
		}},
		"half of it in an error": {"error", func(v string) { extra = append(extra, haystack{"error", []byte("parsing time " + v[:20] + "…")}) }},
		"in a URL": {"URL", func(v string) {
			extra = append(extra, haystack{"URL", []byte("https://u:" + url.QueryEscape(v) + "@h")})
		}},
		"in hex": {"hex", func(v string) { extra = append(extra, haystack{"hex", []byte(hex.EncodeToString([]byte(v)))}) }},
	} {
		values[name], want[name] = canary(t), c.place
		c.plant(values[name])
	}
	where := append(append(e.places(since), e.filesBelow(tmp)...), extra...)
	found := map[string][]string{}
	for _, f := range search(parts(values), where, nil) {
		name, rest, _ := strings.Cut(f, " (")
		_, place, _ := strings.Cut(rest, " in: ")
		name = strings.TrimSuffix(strings.TrimSuffix(name, " beginning"), " end")
		if !slices.Contains(found[name], place) {
			found[name] = append(found[name], place)
		}
	}
	for name, place := range want {
		if !slices.ContainsFunc(found[name], func(p string) bool { return strings.HasPrefix(p, place) }) {
			t.Errorf("%s: planted in %s, found in %q", name, place, found[name])
		}
		for _, p := range found[name] {
			// A request that names a field manager says so in its URL, and what lies
			// in the work tree may be committed.
			if !strings.HasPrefix(p, place) && name != "field manager" && name != "work tree" {
				t.Errorf("%s: planted in %s, and found in %s as well", name, place, p)
			}
		}
	}
}

func jsonText(v any) string {
	b, _ := json.Marshal(v) // a string always encodes
	return string(b)
}
