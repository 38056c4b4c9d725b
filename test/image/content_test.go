package image

import (
	"bytes"
	"debug/buildinfo"
	"debug/elf"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	"sigs.k8s.io/yaml"
)

func TestTheImageHoldsTheAgentAndNothingElse(t *testing.T) {
	root, image := makeImage(t)
	config, entries := readImage(t, image)
	if diff := cmp.Diff([]entry{{Name: "agent", Mode: 0o555}}, entries, cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".content" }, cmp.Ignore())); diff != "" {
		t.Fatalf("files of the image (-want +got):\n%s", diff)
	}
	want, err := os.ReadFile(binary(root))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(entries[0].content, want) {
		t.Error("the agent in the image is not the one that was built")
	}

	c := config.Config
	if got := config.OS + "/" + config.Architecture; got != "linux/"+runtime.GOARCH {
		t.Errorf("platform %q", got)
	}
	if c.User != "65532:65532" {
		t.Errorf("user %q, want 65532:65532", c.User)
	}
	if !slices.Equal(c.Entrypoint, []string{"/agent"}) || c.Cmd != nil {
		t.Errorf("entrypoint %q, command %q: want /agent, without a shell", c.Entrypoint, c.Cmd)
	}
	if len(c.Volumes)+len(c.ExposedPorts) > 0 {
		t.Errorf("volumes %v, ports %v: want none", c.Volumes, c.ExposedPorts)
	}
	for _, variable := range c.Env {
		if !strings.HasPrefix(variable, "PATH=") { // builders add that one
			t.Errorf("environment %q: want none", variable)
		}
	}
}

func TestTheImageSaysWhatItIs(t *testing.T) {
	_, image := makeImage(t)
	config, entries := readImage(t, image)
	v := versionOf(t, entries)
	labels := maps.Clone(config.Config.Labels)
	maps.DeleteFunc(labels, func(name, _ string) bool { return strings.HasPrefix(name, "io.buildah.") })
	const prefix = "org.opencontainers.image."
	if diff := cmp.Diff(map[string]string{
		prefix + "title":       "gitseal agent",
		prefix + "description": "Applies what git holds to a cluster, sealed secrets included",
		prefix + "licenses":    "Apache-2.0",
		prefix + "source":      "https://github.com/gitseal/gitseal",
		prefix + "version":     v.Version,
		prefix + "revision":    v.Commit,
		prefix + "created":     v.Date,
	}, labels); diff != "" {
		t.Errorf("labels (-want, of agent version, +got):\n%s", diff)
	}
	if v.Commit == "" { // not a checkout: then there is no date, either
		return
	}
	date, err := time.Parse(time.RFC3339, v.Date)
	if err != nil {
		t.Fatal(err)
	}
	if !config.Created.Equal(date) {
		t.Errorf("made at %s, want the commit's %s: else no two images are the same", config.Created, date)
	}
}

// TestTheAgentNeedsNoFiles: no loader or C library, and the CA certificates are in it.
func TestTheAgentNeedsNoFiles(t *testing.T) {
	_, image := makeImage(t)
	_, entries := readImage(t, image)
	file, err := elf.NewFile(bytes.NewReader(entries[0].content))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range file.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Errorf("the agent is linked dynamically: it has a segment %s", p.Type)
		}
	}
	info, err := buildinfo.Read(bytes.NewReader(entries[0].content))
	if err != nil {
		t.Fatal(err)
	}
	for _, dep := range info.Deps {
		if dep.Path == "golang.org/x/crypto/x509roots/fallback" {
			return
		}
	}
	t.Error("the agent holds no CA certificates: no public git server would be trusted")
}

// TestTheDeploymentFitsTheImage: the cluster refuses a pod with another user.
func TestTheDeploymentFitsTheImage(t *testing.T) {
	root, _ := makeImage(t)
	pod := deployment(t, root).Spec.Template.Spec
	if user := pod.SecurityContext.RunAsUser; user == nil {
		t.Error("the deployment names no user")
	} else if *user != agentID {
		t.Errorf("the deployment runs as %d, the image as %d", *user, agentID)
	}
	c := pod.Containers[0]
	if c.SecurityContext.ReadOnlyRootFilesystem == nil || !*c.SecurityContext.ReadOnlyRootFilesystem {
		t.Error("the deployment lets the agent write to its root, which is not tested here")
	}
	if c.Command != nil || len(c.VolumeMounts)+len(pod.Volumes) > 0 {
		t.Errorf("the deployment has a command %q and mounts %v, which are not tested here", c.Command, c.VolumeMounts)
	}
}

func deployment(t *testing.T, root string) appsv1.Deployment {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root, "deploy/base/deployment.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var d appsv1.Deployment
	if err := yaml.UnmarshalStrict(content, &d); err != nil {
		t.Fatal(err)
	}
	return d
}
