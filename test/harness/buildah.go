package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
)

// ErrNoBuildah says that there is no buildah here, and how to get it.
var ErrNoBuildah = errors.New("no buildah")

// Buildah is a program that builds container images without a daemon.
type Buildah struct {
	Path string
	// Libraries are folders for LD_LIBRARY_PATH; none for the machine's own buildah.
	Libraries []string
}

// FetchBuildah returns the machine's own buildah, or else Debian's, which it fetches
// into the cache with the libraries that the machine lacks. Nothing of the machine is
// changed, and it needs no root: apt's lists are in the cache, too. What is in the
// cache stays until it is removed, also when Debian has a newer one. Where there is
// no apt-get, or no package for it, the error is ErrNoBuildah.
func FetchBuildah(ctx context.Context, progress io.Writer) (Buildah, error) {
	if path, err := exec.LookPath("buildah"); err == nil {
		return Buildah{Path: path}, nil
	}
	cache, err := cacheFolder()
	if err != nil {
		return Buildah{}, err
	}
	release, err := debianRelease()
	if err != nil {
		return Buildah{}, err
	}
	folder := filepath.Join(cache, "buildah-"+release+"-"+runtime.GOARCH)
	if exists(folder) {
		return unpackedBuildah(folder)
	}
	unlock, err := Build{Name: "buildah"}.lock(ctx, progress, folder)
	if err != nil {
		return Buildah{}, fmt.Errorf("fetch buildah: %w", err)
	}
	defer unlock()
	if !exists(folder) {
		if err := (apt{folder: folder + ".partial", progress: progress}).fetch(ctx, folder, "buildah"); err != nil {
			return Buildah{}, fmt.Errorf("%w: fetch Debian's: %w", ErrNoBuildah, err)
		}
	}
	b, err := unpackedBuildah(folder)
	if err != nil {
		return Buildah{}, err
	}
	cmd := exec.CommandContext(ctx, b.Path, "--version")
	cmd.Env = append(os.Environ(), b.env()...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return Buildah{}, errors.Join(fmt.Errorf("%w: Debian's does not run here: %w\n%s", ErrNoBuildah, err, tail(out, outputBytes)), os.RemoveAll(folder))
	}
	return b, nil
}

// debianRelease returns such as "debian-12".
func debianRelease() (string, error) {
	if _, err := exec.LookPath("apt-get"); err != nil {
		return "", fmt.Errorf("%w on PATH, and without apt-get none can be fetched: install buildah", ErrNoBuildah)
	}
	content, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "", fmt.Errorf("%w on PATH, and this is not Debian: install buildah", ErrNoBuildah)
	}
	var name string
	for _, key := range []string{"ID", "VERSION_ID"} {
		m := regexp.MustCompile(`(?m)^` + key + `="?([a-z0-9.]+)"?$`).FindSubmatch(content)
		if m == nil {
			m = [][]byte{nil, []byte("unknown")} // Debian's testing has no number
		}
		name += "-" + string(m[1])
	}
	return name[1:], nil
}

func unpackedBuildah(folder string) (Buildah, error) {
	b := Buildah{Path: filepath.Join(folder, "usr/bin/buildah")}
	for _, pattern := range []string{"usr/lib/*-linux-gnu*", "lib/*-linux-gnu*"} {
		found, err := filepath.Glob(filepath.Join(folder, pattern))
		if err != nil {
			return Buildah{}, err
		}
		b.Libraries = append(b.Libraries, found...)
	}
	return b, nil
}

func (b Buildah) env() []string {
	if b.Libraries == nil {
		return nil
	}
	return []string{"LD_LIBRARY_PATH=" + strings.Join(b.Libraries, ":")}
}

// apt unpacks Debian packages without installing them.
type apt struct {
	folder   string // for what it works with; removed when all went well
	progress io.Writer
}

// newPackage is a line of a simulated installation, for a package that is not there
// in an older version.
var newPackage = regexp.MustCompile(`(?m)^Inst ([a-z0-9.+-]+)(?::[a-z0-9]+)? \(`)

// fetch unpacks a package, and those libraries it needs that are not installed, into
// target, which appears complete or not at all.
func (a apt) fetch(ctx context.Context, target, name string) error {
	if err := os.RemoveAll(a.folder); err != nil { // of a process that was killed
		return err
	}
	for _, folder := range []string{"lists/partial", "cache/archives/partial", "packages", "root"} {
		if err := os.MkdirAll(filepath.Join(a.folder, folder), 0o755); err != nil {
			return err
		}
	}
	fmt.Fprintf(a.progress, "fetching %s from Debian, some seconds: package lists…\n", name)
	if _, err := a.get(ctx, "update"); err != nil {
		return err
	}
	plan, err := a.get(ctx, "install", "--simulate", "--no-install-recommends", name)
	if err != nil {
		return err
	}
	wanted := []string{name}
	for _, m := range newPackage.FindAllSubmatch(plan, -1) {
		if library := string(m[1]); strings.HasPrefix(library, "lib") {
			wanted = append(wanted, library)
		}
	}
	fmt.Fprintf(a.progress, "fetching %s…\n", strings.Join(wanted, ", "))
	if _, err := a.get(ctx, append([]string{"download"}, wanted...)...); err != nil {
		return err
	}
	packages, err := filepath.Glob(filepath.Join(a.folder, "packages/*.deb"))
	if err != nil {
		return err
	}
	if len(packages) != len(wanted) {
		return fmt.Errorf("apt-get download: %d packages, want %d", len(packages), len(wanted))
	}
	root := filepath.Join(a.folder, "root")
	for _, file := range packages {
		if _, err := a.run(ctx, "dpkg-deb", "--extract", file, root); err != nil {
			return err
		}
	}
	if err := os.Rename(root, target); err != nil {
		return err
	}
	return os.RemoveAll(a.folder)
}

// get runs apt-get with lists and a cache of its own.
func (a apt) get(ctx context.Context, args ...string) ([]byte, error) {
	options := []string{"--quiet", "--yes",
		"-o", "Dir::State::Lists=" + filepath.Join(a.folder, "lists"),
		"-o", "Dir::Cache=" + filepath.Join(a.folder, "cache"),
		"-o", "Acquire::Retries=3",
	}
	if os.Geteuid() == 0 { // apt's own user can not write to the cache
		options = append(options, "-o", "APT::Sandbox::User=root")
	}
	return a.run(ctx, "apt-get", append(options, args...)...)
}

// run returns what the program printed on standard output.
func (a apt) run(ctx context.Context, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = filepath.Join(a.folder, "packages")
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", name, err, tail(errOut.Bytes(), outputBytes))
	}
	return out.Bytes(), nil
}

// BuildahScript returns the path of a program "buildah" that sees no configuration
// or images of this machine or user, and keeps all it writes in a folder of the
// test's. Who is not root is in a user namespace of its own. Without a buildah the
// test is skipped, or fails where nothing may be skipped.
func BuildahScript(t testing.TB) string {
	t.Helper()
	b, err := FetchBuildah(t.Context(), os.Stderr)
	if err != nil {
		Skip(t, err)
	}
	folder := t.TempDir()
	t.Cleanup(func() { makeRemovable(folder) })
	for name, content := range map[string]string{
		"storage.conf":    "[storage]\ndriver = \"vfs\"\n",
		"containers.conf": fmt.Sprintf("[engine]\nhelper_binaries_dir = [%q]\n", folder+"/helpers"),
		"registries.conf": "",
		// The images here are our own, so there are no signatures to look at.
		"home/.config/containers/policy.json": `{"default": [{"type": "insecureAcceptAnything"}]}`,
	} {
		write(t, filepath.Join(folder, name), content)
	}
	if err := os.Mkdir(filepath.Join(folder, "run"), 0o700); err != nil {
		t.Fatal(err)
	}
	// Looked for before anything is built, and run only for RUN, which an image from
	// scratch has not.
	writeProgram(t, filepath.Join(folder, "helpers/netavark"), "echo no network for image builds >&2; exit 1")
	env := append(b.env(), "PATH="+os.Getenv("PATH"), "HOME="+folder+"/home", "XDG_DATA_HOME="+folder+"/data", "XDG_RUNTIME_DIR="+folder+"/run",
		"TMPDIR="+folder, "BUILDAH_ISOLATION=chroot",
		"CONTAINERS_CONF="+folder+"/containers.conf", "CONTAINERS_STORAGE_CONF="+folder+"/storage.conf", "CONTAINERS_REGISTRIES_CONF="+folder+"/registries.conf",
		// For root, too: else it writes to /var/lib/containers.
		"_CONTAINERS_ROOTLESS_UID=65532")
	command := []string{"exec", "env", "-i"}
	if os.Geteuid() != 0 {
		skipWithoutUserNamespaces(t)
		env = append(env, "_CONTAINERS_USERNS_CONFIGURED=done")
	}
	for _, variable := range env {
		command = append(command, quote(variable))
	}
	if os.Geteuid() != 0 {
		command = append(command, "unshare", "--user", "--map-root-user", "--mount")
	}
	command = append(command, quote(b.Path), "--root", quote(folder+"/images"), "--runroot", quote(folder+"/running"), "--storage-driver", "vfs", `"$@"`)
	script := filepath.Join(folder, "buildah")
	writeProgram(t, script, strings.Join(command, " "))
	return script
}

func skipWithoutUserNamespaces(t testing.TB) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "unshare", "--user", "--map-root-user", "--mount", "true").CombinedOutput(); err != nil {
		Skip(t, fmt.Errorf("needs root or user namespaces (kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0): %w\n%s", err, tail(out, outputBytes)))
	}
}

// Skip skips the test for a reason, or fails it where nothing may be skipped.
func Skip(t testing.TB, reason error) {
	t.Helper()
	if os.Getenv("GITSEAL_REQUIRE_APISERVER") != "" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}

func write(t testing.TB, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func writeProgram(t testing.TB, path, command string) {
	t.Helper()
	write(t, path, "#!/bin/sh\n"+command+"\n")
	if err := os.Chmod(path, 0o755); err != nil {
		t.Fatal(err)
	}
}

// makeRemovable lets folders be removed that an image made read-only.
func makeRemovable(folder string) {
	_ = filepath.WalkDir(folder, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			return os.Chmod(path, 0o755)
		}
		return nil // what can not be removed is told by the test's own cleaning
	})
}

// quote makes one word of a shell.
func quote(word string) string { return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'" }
