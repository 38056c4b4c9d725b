// Package test checks what holds for the whole tree: who may import whom, who
// may read a secret, and that ARCHITECTURE.md is true.
package test

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/gitseal/gitseal/"

// imports is the column of the same name in ARCHITECTURE.md: what each package
// may import of ours.
var imports = map[string][]string{
	"crypto":               {},
	"keys":                 {"crypto"},
	"source":               {"crypto"},
	"verify":               {},
	"build":                {},
	"decrypt":              {"crypto"},
	"apply":                {"crypto", "decrypt"},
	"reconcile":            {"apply", "build", "crypto", "decrypt", "keys", "source"},
	"api/v1alpha1":         {},
	"controller":           {"api/v1alpha1", "apply", "crypto", "decrypt", "internal/version", "keys", "reconcile", "source", "verify"},
	"internal/version":     {},
	"internal/kubeconfig":  {},
	"deploy":               {"build"},
	"deploy/gen":           {"deploy"},
	"cmd/seal":             {"api/v1alpha1", "apply", "build", "crypto", "decrypt", "deploy", "internal/kubeconfig", "internal/version", "keys", "source"},
	"cmd/agent":            {"api/v1alpha1", "apply", "controller", "crypto", "decrypt", "internal/kubeconfig", "internal/version", "keys", "reconcile", "source"},
	"test/harness":         {},
	"test/harness/prepare": {"test/harness"},
	"test/syncs":           {"api/v1alpha1", "crypto", "test/harness"},
	"test/corpus":          {},
	"test/demo":            {"test/harness"},
	"bench":                {"apply", "build", "crypto", "decrypt", "keys", "reconcile", "source", "test/harness"},
}

// forbidden lists what a package must not reach, however indirectly, and why.
var forbidden = map[string]map[string]string{
	"crypto":  {"k8s.io/client-go/kubernetes": "crypto knows no cluster", "net/http/cgi": "crypto serves nothing"},
	"build":   {"k8s.io/client-go/kubernetes": "a render needs no cluster", "github.com/getsops/sops/v3": "a build never sees a key"},
	"decrypt": {"k8s.io/client-go/kubernetes": "a render without keys links no client"},
	"source":  {"k8s.io/client-go/kubernetes": "source knows no cluster"},
	"verify":  {"os/exec": "verify runs no gpg", "net/http": "verify asks no keyserver", "github.com/go-git/go-git/v5": "verify reads bytes"},
}

// onlyIn lists libraries that one package of ours calls.
var onlyIn = map[string]string{
	"github.com/getsops/sops/v3":             "crypto",
	"github.com/bitnami-labs/sealed-secrets": "crypto",
	"filippo.io/age":                         "crypto",
	"github.com/go-git/go-git/v5":            "source",
	"github.com/Masterminds/semver/v3":       "source",
	"github.com/hiddeco/sshsig":              "verify",
	"sigs.k8s.io/kustomize":                  "build",
}

// reveals are the only places outside tests that read a Secret, with the number
// of times. Whoever adds one says here why plaintext must be touched there.
var reveals = map[string]int{
	"crypto/certificate.go":      1, // parse a PEM key
	"crypto/certificate_file.go": 2, // parse a file of such keys
	"crypto/identity.go":         1, // parse an age identity
	"crypto/manifest.go":         5, // read a manifest to seal it; write one
	"crypto/pgp.go":              2, // parse an OpenPGP key
	"crypto/sealedsecret.go":     1, // seal a value
	"crypto/sops_seal.go":        1, // seal a file
	"decrypt/object.go":          1, // values of a Secret that is in the cluster, to send them again
	"decrypt/open.go":            4, // look for forged placeholders in opened values; digest of a whole file; one that seals nothing
	"decrypt/putback.go":         3, // put values and whole files back
	"decrypt/outside.go":         1, // put values back where a policy lets them go
	"decrypt/unseal.go":          4, // put SealedSecret values back, render templates over them; refuse what sops sealed
	"decrypt/token.go":           2, // HMAC of a value; derive the Sync's key
	"source/credentials.go":      4, // check the credentials' form; the SSH key
	"source/http.go":             2, // the Authorization header
	"apply/cluster.go":           1, // the one request body
	"keys/generation.go":         2, // write a new key into its Secret
	"bench/rotate.go":            1, // write the key of a measured tree
	"cmd/seal/secret.go":         2, // read dotenv lines; the registry's JSON
	"crypto/backup.go":           3, // encrypt a backup; the passphrase
	"keys/store.go":              1, // write the token key into its Secret
	"keys/backup.go":             1, // read the Secrets of a backup
	"cmd/seal/passphrase.go":     1, // cut the end of its line off
	"cmd/seal/keys_restore.go":   1, // a backup, which is sealed
	"cmd/seal/keys_import.go":    1, // a certificate, which is public
}

func packages(t *testing.T) map[string][]string {
	t.Helper()
	out := map[string][]string{}
	err := filepath.WalkDir("..", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if _, err := os.Stat(filepath.Join(p, "go.mod")); err == nil && p != ".." {
				return fs.SkipDir // another module
			}
			if strings.HasPrefix(d.Name(), ".") && p != ".." || d.Name() == "testdata" {
				return fs.SkipDir
			}
			return nil
		}
		if strings.HasSuffix(p, ".go") && !strings.HasSuffix(p, "_test.go") {
			rel, err := filepath.Rel("..", p)
			if err != nil {
				return err
			}
			dir := filepath.ToSlash(filepath.Dir(rel))
			out[dir] = append(out[dir], p)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(out) < 8 {
		t.Fatalf("found only %d packages: the test looks at the wrong place", len(out))
	}
	return out
}

func parse(t *testing.T, file string) *ast.File {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestPackagesImportOnlyWhatTheyMay(t *testing.T) {
	t.Parallel()
	found := packages(t)
	for dir := range imports {
		if found[dir] == nil {
			t.Errorf("the table names %s, which does not exist", dir)
		}
	}
	for dir, files := range found {
		allowed, ok := imports[dir]
		if !ok {
			t.Errorf("package %s is not in the table of this test", dir)
			continue
		}
		for _, file := range files {
			for _, imp := range parse(t, file).Imports {
				path := strings.Trim(imp.Path.Value, `"`)
				if ours, ok := strings.CutPrefix(path, module); ok && !slices.Contains(allowed, ours) {
					t.Errorf("%s imports %s, which it may not", file, ours)
				}
				for lib, owner := range onlyIn {
					if (path == lib || strings.HasPrefix(path, lib+"/")) && dir != owner {
						t.Errorf("%s imports %s; only %s may", file, path, owner)
					}
				}
			}
		}
	}
}

func TestPackagesDoNotReachWhatTheyMustNot(t *testing.T) {
	t.Parallel()
	for dir, bad := range forbidden {
		cmd := exec.Command("go", "list", "-deps", "./"+dir)
		cmd.Dir = ".."
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		deps := strings.Split(string(bytes.TrimSpace(out)), "\n")
		if len(deps) < 20 {
			t.Fatalf("%s has only %d dependencies: the list is wrong", dir, len(deps))
		}
		for pkg, why := range bad {
			if slices.Contains(deps, pkg) {
				t.Errorf("%s reaches %s: %s", dir, pkg, why)
			}
		}
	}
}

func TestSecretsAreRevealedOnlyWhereTheyMustBe(t *testing.T) {
	t.Parallel()
	got := map[string]int{}
	for _, files := range packages(t) {
		for _, file := range files {
			rel := strings.TrimPrefix(filepath.ToSlash(file), "../")
			ast.Inspect(parse(t, file), func(n ast.Node) bool {
				if sel, ok := n.(*ast.SelectorExpr); ok && sel.Sel.Name == "Reveal" {
					got[rel]++
				}
				return true
			})
		}
	}
	for file, n := range got {
		if reveals[file] != n {
			t.Errorf("%s calls Reveal %d times; the table of this test says %d", file, n, reveals[file])
		}
	}
	for file := range reveals {
		if got[file] == 0 {
			t.Errorf("%s is in the table but reveals nothing", file)
		}
	}
}

// TestArchitectureNamesWhatExists keeps ARCHITECTURE.md honest and short.
func TestArchitectureNamesWhatExists(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("../ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	if lines := bytes.Count(b, []byte("\n")); lines > 100 {
		t.Errorf("ARCHITECTURE.md has %d lines; two screens are 100", lines)
	}
	named := 0
	for _, m := range regexp.MustCompile("`([a-z]+(?:/[a-z._-]+)*/)`").FindAllStringSubmatch(string(b), -1) {
		named++
		if info, err := os.Stat(filepath.Join("..", m[1])); err != nil || !info.IsDir() {
			t.Errorf("ARCHITECTURE.md names the folder %s, which does not exist", m[1])
		}
	}
	if named < 8 {
		t.Errorf("ARCHITECTURE.md names only %d folders", named)
	}
	for dir := range packages(t) {
		top, _, _ := strings.Cut(dir, "/")
		if !strings.Contains(string(b), "`"+top+"/") {
			t.Errorf("ARCHITECTURE.md does not name %s/", top)
		}
	}
}
