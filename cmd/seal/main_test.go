package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/gitseal/gitseal/crypto"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"seal": func() { os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) },
		// opens FILE: what the agent would find in a SOPS file, as path=value.
		"opens": func() { os.Exit(opens(os.Args[1])) },
	})
}

// opens prints what the identity in $IDENTITY finds in a sealed file.
func opens(file string) int {
	ids, err := crypto.ParseIdentities(crypto.NewSecretString(os.Getenv("IDENTITY")))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	b, err := os.ReadFile(file)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	f, err := crypto.OpenSOPS(crypto.OpenRequest{File: b, Format: crypto.FormatOf(file), Keys: crypto.Keyring{Identities: ids}})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for _, l := range f.Leaves {
		fmt.Printf("%s=%s\n", l.Path, l.Text.Reveal())
	}
	fmt.Print("for=")
	for i, b := range f.Bindings() {
		fmt.Print(strings.Repeat(" ", min(i, 1)), b)
	}
	fmt.Println()
	return 0
}

func TestScripts(t *testing.T) {
	t.Parallel()
	id, err := crypto.GenerateIdentity()
	if err != nil {
		t.Fatal(err)
	}
	key, err := crypto.GenerateCertificateKey(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	old, err := crypto.GenerateCertificateKey(time.Now().AddDate(-11, 0, 0))
	if err != nil {
		t.Fatal(err)
	}
	previous, err := crypto.GenerateIdentity()
	if err != nil {
		t.Fatal(err)
	}
	other, err := crypto.GenerateIdentity()
	if err != nil {
		t.Fatal(err)
	}
	previousKey, err := crypto.GenerateCertificateKey(time.Now().Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       os.Getenv("UPDATE") != "",
		Setup: func(e *testscript.Env) error {
			e.Setenv("IDENTITY", string(id.Text().Reveal()))
			e.Setenv("RECIPIENT", id.Recipient().String())
			// The offline commands must not look at a kubeconfig: this one can
			// not even be read.
			e.Setenv("KUBECONFIG", e.WorkDir+"/no/such/kubeconfig")
			if err := os.MkdirAll(e.WorkDir+"/.git", 0o755); err != nil { // the root of a work tree
				return err
			}
			// What was sealed to before the keys were rotated.
			e.Setenv("OLD_IDENTITY", string(previous.Text().Reveal()))
			e.Setenv("OLD_RECIPIENT", previous.Recipient().String())
			e.Setenv("OTHER_RECIPIENT", other.Recipient().String())
			for name, content := range map[string][]byte{
				"old.agekey": previous.Text().Reveal(), "old.pem": previousKey.Certificate().PEM(),
				"old.key": slices.Concat(previousKey.Certificate().PEM(), previousKey.PEM().Reveal()),
			} {
				if err := os.WriteFile(e.WorkDir+"/"+name, content, 0o600); err != nil {
					return err
				}
			}
			if err := os.WriteFile(e.WorkDir+"/expired.pem", old.Certificate().PEM(), 0o644); err != nil {
				return err
			}
			if err := os.MkdirAll(e.WorkDir+"/.gitseal", 0o755); err != nil {
				return err
			}
			if err := os.WriteFile(e.WorkDir+"/.gitseal/cert.pem", key.Certificate().PEM(), 0o644); err != nil {
				return err
			}
			config, err := updateConfig(nil, nil, []string{id.Recipient().String()})
			if err != nil {
				return err
			}
			return os.WriteFile(e.WorkDir+"/.sops.yaml", config, 0o644)
		},
	})
}

func TestConfigIsExtendedWithoutTouchingTheRest(t *testing.T) {
	t.Parallel()
	const old, new_ = "age1old", "age1new"
	own := "# The cluster's own rules"
	for name, c := range map[string]struct {
		config    string
		old       []string
		keeps     []string
		gone      []string
		ownBlocks int
	}{
		"no file":                       {"", nil, nil, nil, 1},
		"only comments":                 {"\n\n", nil, nil, nil, 1},
		"rules of others stay":          {"# mine\ncreation_rules:\n  - path_regex: prod/ # keep\n    pgp: ABC\nstores:\n  yaml: {indent: 2}\n", nil, []string{"# mine\n", "- path_regex: prod/ # keep\n    pgp: ABC\n", "stores:\n  yaml: {indent: 2}\n"}, nil, 1},
		"unindented list":               {"creation_rules:\n- age: age1other\n", nil, []string{"- age: age1other\n"}, nil, 1},
		"a rotated key takes its place": {"creation_rules:\n  - age: age1old,age1person # both\n", []string{old}, []string{"  - age: age1new,age1person # both\n"}, []string{old}, 0},
		"nothing to do":                 {"creation_rules:\n  - age: age1new\n", []string{new_}, []string{"  - age: age1new\n"}, nil, 0},
		"no creation rules":             {"stores:\n  yaml: {indent: 2}\n", nil, []string{"stores:\n  yaml: {indent: 2}\n"}, nil, 1},
		"no newline at the end":         {"creation_rules:\n  - age: age1other", nil, []string{"- age: age1other\n"}, nil, 1},
		"a long text as the last value": {"creation_rules:\n  - age: >-\n      age1other,\n      age1another\n", nil, []string{"age1another\n"}, nil, 1},
	} {
		got, err := updateConfig([]byte(c.config), c.old, []string{new_})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, k := range c.keeps {
			if !strings.Contains(string(got), k) {
				t.Errorf("%s: %q is gone from\n%s", name, k, got)
			}
		}
		for _, k := range c.gone {
			if strings.Contains(string(got), k) {
				t.Errorf("%s: %q is still in\n%s", name, k, got)
			}
		}
		if n := strings.Count(string(got), own); n != c.ownBlocks {
			t.Errorf("%s: %d blocks of own rules, want %d:\n%s", name, n, c.ownBlocks, got)
		}
		again, err := updateConfig(got, []string{new_}, []string{new_})
		if err != nil || string(again) != string(got) {
			t.Errorf("%s: a second time changes it (%v):\n%s", name, err, again)
		}
	}
	for name, config := range map[string]string{"not YAML": "a: [", "a list": "- a", "rules are no list": "creation_rules: x", "flow style": "creation_rules: [{age: age1x}]"} {
		if _, err := updateConfig([]byte(config), nil, []string{new_}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
