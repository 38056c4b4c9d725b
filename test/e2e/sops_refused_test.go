package e2e

import (
	"encoding/base64"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// refused is the tree that one scenario after another breaks. Its Secrets are
// victim, and of a generator config and env; good and neighbour are none of
// their business.
type refused struct {
	*stock
	canary string
	round  int
}

// write seals a file of the tree.
func (r *refused) write(file, plain, rule string, to ...string) {
	r.e.t.Helper()
	r.e.repo.Write(file, r.seal(file, strings.NewReplacer(append([]string{"NAMESPACE", r.e.app}, r.replace...)...).Replace(plain), rule, append(to, "agent")[:max(1, len(to))]...))
}

// edit changes a file of the tree; it fails the test if nothing changes.
func (r *refused) edit(file, pattern, with string) {
	r.e.t.Helper()
	before := r.e.read(file)
	after := regexp.MustCompile(pattern).ReplaceAllString(before, with)
	if after == before {
		r.e.t.Fatalf("%s: nothing like %s in\n%s", file, pattern, before)
	}
	r.e.repo.Write(file, after)
}

// plain writes a file as it is.
func (r *refused) plain(file, text string) {
	r.e.t.Helper()
	r.e.repo.Write(file, strings.NewReplacer("NAMESPACE", r.e.app).Replace(text))
}

const victimHead = "apiVersion: v1\nkind: Secret\nmetadata: {name: victim, namespace: NAMESPACE}\n"

// base is a tree without a fault.
func (r *refused) base() {
	r.e.t.Helper()
	r.write("apps/victim.yaml", victimHead+"stringData:\n  a: CANARY\n  b: CANARY\n  c: plain\n", fluxRule)
	r.write("apps/config/settings.yaml", "list:\n  - CANARY one\n  - CANARY two\nother: CANARY\n", "")
	r.write("apps/config/app.env", "A=CANARY\nB=CANARY\n", "")
	r.write("apps/config/my.ini", "[a]\nb = CANARY\nc = CANARY\n", "")
	r.write("apps/config/a.json", `{"a": "CANARY", "b": "CANARY"}`, "")
	r.write("apps/config/key.pem", "CANARY\n", "")
	r.plain("apps/config/kustomization.yaml", `namespace: NAMESPACE
generatorOptions: {disableNameSuffixHash: true}
secretGenerator:
- {name: config, files: [settings.yaml, my.ini, a.json, key.pem]}
- {name: env, envs: [app.env]}
`)
	r.e.repo.Write("apps/gone.yaml", configMap(r.e.app, "gone", "a", "b"))
	r.others()
}

// others changes what is none of a scenario's business.
func (r *refused) others() {
	r.e.t.Helper()
	r.round++
	r.e.repo.Write("apps/neighbour.yaml", configMap(r.e.app, "neighbour", "round", strconv.Itoa(r.round)))
	r.write("apps/good.yaml", strings.ReplaceAll(victimHead, "victim", "good")+"stringData: {round: '"+strconv.Itoa(r.round)+" CANARY'}\n", fluxRule)
}

// passScope is how much of a commit a fault keeps from being applied.
type passScope int

const (
	onlyItself passScope = iota
	wholePass            // nothing can be rendered from the tree, or must not be
)

const secretKind = "apiVersion: v1\nkind: Secret\n"

// sopsRefusals are faults in a tree. Each must be named, must not be applied and
// must not keep others from being applied.
var sopsRefusals = map[string]struct {
	fault func(r *refused)
	says  []string
	scope passScope
}{
	"a tampered value": {
		fault: func(r *refused) {
			r.edit("apps/victim.yaml", `(\n    b: ENC\[AES256_GCM,data:)(.)`, "${1}AAAA$2")
		},
		says: []string{"apps/victim.yaml", "stringData.b"},
	},
	"a tampered tag": {
		fault: func(r *refused) {
			r.edit("apps/victim.yaml", `(\n    a: ENC\[.*,tag:)[^,]*`, "${1}AAAAAAAAAAAAAAAAAAAAAA==")
		},
		says: []string{"apps/victim.yaml", "stringData.a"},
	},
	"another type of a value": {
		fault: func(r *refused) { r.edit("apps/victim.yaml", `(\n    a: ENC\[.*,type:)str`, "${1}int") },
		says:  []string{"apps/victim.yaml"},
	},
	"a tampered value of a dotenv file": {
		fault: func(r *refused) { r.edit("apps/config/app.env", `\nB=ENC\[AES256_GCM,data:`, "${0}AAAA") },
		says:  []string{"apps/config/app.env", "at B "},
	},
	"a tampered value of an INI file": {
		fault: func(r *refused) { r.edit("apps/config/my.ini", `\nb = ENC\[AES256_GCM,data:`, "${0}AAAA") },
		says:  []string{"apps/config/my.ini", "a.b"},
	},
	"a tampered value of a JSON file": {
		fault: func(r *refused) { r.edit("apps/config/a.json", `"a": "ENC\[AES256_GCM,data:`, "${0}AAAA") },
		says:  []string{"apps/config/a.json"},
	},
	"a tampered binary file": {
		fault: func(r *refused) { r.edit("apps/config/key.pem", `"data": "ENC\[AES256_GCM,data:`, "${0}AAAA") },
		says:  []string{"apps/config/key.pem"},
	},
	"a removed key": {
		fault: func(r *refused) { r.edit("apps/victim.yaml", `\n    b: ENC.*`, "") },
		says:  []string{"apps/victim.yaml", "MAC mismatch"},
	},
	"a removed key of a dotenv file": {
		fault: func(r *refused) { r.edit("apps/config/app.env", `(?m)^B=.*\n`, "") },
		says:  []string{"apps/config/app.env", "MAC mismatch"},
	},
	"an added plain value": {
		fault: func(r *refused) { r.edit("apps/victim.yaml", `\nstringData:\n`, "${0}    added: plain\n") },
		says:  []string{"apps/victim.yaml", "stringData.added"},
	},
	"a value replaced by a plain one": {
		fault: func(r *refused) { r.edit("apps/victim.yaml", `\n    b: ENC.*`, "\n    b: plain") },
		says:  []string{"apps/victim.yaml"},
	},
	"two values of a list swapped": {
		fault: func(r *refused) { r.edit("apps/config/settings.yaml", `(    - ENC.*\n)(    - ENC.*\n)`, "$2$1") },
		says:  []string{"apps/config/settings.yaml", "MAC mismatch"},
	},
	"two values of different keys swapped": {
		fault: func(r *refused) {
			r.edit("apps/victim.yaml", `\n    a: (ENC.*)\n    b: (ENC.*)`, "\n    a: $2\n    b: $1")
		},
		says: []string{"apps/victim.yaml", "stringData."},
	},
	"two keys in another order": {
		fault: func(r *refused) {
			r.edit("apps/victim.yaml", `\n(    a: ENC.*)\n    (b: ENC.*)\n    (c: ENC.*)`, "\n    $3\n$1\n    $2")
		},
		says: []string{"apps/victim.yaml", "MAC mismatch"},
	},
	"a wrong MAC": {
		fault: func(r *refused) {
			r.edit("apps/victim.yaml", `(\n    mac: ENC\[AES256_GCM,data:)(.)`, "${1}AAAA$2")
		},
		says: []string{"apps/victim.yaml", "MAC mismatch"},
	},
	"the MAC of another file": {
		fault: func(r *refused) {
			mac := regexp.MustCompile(`\n    mac: ENC.*`).FindString(r.e.read("apps/good.yaml"))
			r.edit("apps/victim.yaml", `\n    mac: ENC.*`, mac)
		},
		says: []string{"apps/victim.yaml", "MAC mismatch"},
	},
	"another time in the metadata": {
		fault: func(r *refused) {
			r.edit("apps/victim.yaml", `lastmodified: "[^"]*"`, `lastmodified: "2020-01-01T00:00:00Z"`)
		},
		says: []string{"apps/victim.yaml", "MAC mismatch"},
	},
	"a missing MAC": {
		fault: func(r *refused) { r.edit("apps/victim.yaml", `\n    mac: ENC.*`, "") },
		says:  []string{"apps/victim.yaml", "no MAC"},
	},
	"an empty MAC": {
		fault: func(r *refused) { r.edit("apps/victim.yaml", `\n    mac: ENC.*`, "\n    mac: \"\"") },
		says:  []string{"apps/victim.yaml", "no MAC"},
	},
	"a missing MAC of a dotenv file": {
		fault: func(r *refused) { r.edit("apps/config/app.env", `(?m)^sops_mac=.*\n`, "") },
		says:  []string{"apps/config/app.env", "no MAC"},
	},
	"an edited plain field of a sealed file": {
		fault: func(r *refused) { r.edit("apps/victim.yaml", `\nkind: Secret\n`, "${0}type: Opaque\n") },
		says:  []string{"apps/victim.yaml", "MAC mismatch"},
	},
	"another name in a sealed file": {
		fault: func(r *refused) { r.edit("apps/victim.yaml", `name: victim`, "name: thief") },
		says:  []string{"apps/victim.yaml", "MAC mismatch"},
	},
	"a plain document inside a sealed unit": {
		fault: func(r *refused) {
			two := victimHead + "stringData: {a: CANARY}\n---\n" + strings.ReplaceAll(victimHead, "victim", "second") + "stringData: {a: CANARY}\n"
			r.write("apps/victim.yaml", two, fluxRule)
			r.edit("apps/victim.yaml", `\n---\n`, "\n---\n"+configMap(r.e.app, "inside", "a", "b")+"---\n")
		},
		says: []string{"apps/victim.yaml"},
	},
	"a document of a sealed unit taken out": {
		fault: func(r *refused) {
			two := victimHead + "stringData: {a: CANARY}\n---\n" + strings.ReplaceAll(victimHead, "victim", "second") + "stringData: {a: CANARY}\n"
			r.write("apps/victim.yaml", two, fluxRule)
			r.edit("apps/victim.yaml", `(?s)\n---\n.*`, "\n")
		},
		says: []string{"apps/victim.yaml", "MAC mismatch"},
	},
	"no sops metadata left": {
		fault: func(r *refused) { r.edit("apps/victim.yaml", `(?s)\nsops:\n.*`, "\n") },
		says:  []string{"Secret/NAMESPACE/victim data.a", "still sealed", "apps/victim.yaml"},
	},
	"no sops metadata left in a dotenv file": {
		fault: func(r *refused) { r.edit("apps/config/app.env", `(?m)^sops_.*\n`, "") },
		says:  []string{"Secret/NAMESPACE/env data.A", "still sealed", "apps/config/kustomization.yaml"},
	},
	"metadata that is no metadata": {
		fault: func(r *refused) { r.edit("apps/victim.yaml", `(?s)\nsops:\n.*`, "\nsops: [a, b]\n") },
		says:  []string{"apps/victim.yaml"},
	},

	// Keys.
	"a file for somebody else": {
		fault: func(r *refused) {
			r.write("apps/victim.yaml", victimHead+"stringData: {a: CANARY}\n", fluxRule, "stranger")
		},
		says: []string{"apps/victim.yaml", "no key: sealed to STRANGER_RECIPIENT", "Secret/NAMESPACE/victim"},
	},
	"key groups, too few of them held": {
		fault: func(r *refused) {
			r.write("apps/victim.yaml", victimHead+"stringData: {a: CANARY}\n", fluxRule+"; shamir_threshold: 2; key_groups: [{age: ["+r.recipients["agent"]+"]}, {age: ["+r.recipients["stranger"]+"]}]")
		},
		says: []string{"apps/victim.yaml", "STRANGER_RECIPIENT"},
	},
	"a file for a KMS only": {
		fault: func(r *refused) {
			r.edit("apps/victim.yaml", `(?s)    age:\n.*?(    lastmodified:)`, strings.ReplaceAll(cloudKeys, "$", "$$")+"$1")
		},
		says: []string{"apps/victim.yaml", "no key", "arn:aws:kms:us-east-1:000000000000:key/", "http://vault.example:8200", "not supported"},
	},
	"a file for a plugin": {
		fault: func(r *refused) {
			r.write("apps/victim.yaml", victimHead+"stringData: {a: CANARY}\n", fluxRule, "stranger")
			r.edit("apps/victim.yaml", `recipient: age1\w+`, "recipient: "+pluginRecipient())
		},
		says: []string{"apps/victim.yaml", "no key", "age1yubi"},
	},

	// What must never reach the cluster.
	"a sealed apiVersion, kind and name": {
		fault: func(r *refused) { r.write("apps/victim.yaml", victimHead+"stringData: {a: CANARY}\n", "") },
		says:  []string{"apps/victim.yaml", "encrypted_regex"},
	},
	"a sealed name": {
		fault: func(r *refused) {
			r.write("apps/victim.yaml", victimHead+"stringData: {a: CANARY}\n", "encrypted_regex: ^(stringData|name)$")
		},
		says: []string{"apps/victim.yaml", "metadata.name", "encrypted_regex"},
	},
	"a sealed label": {
		fault: func(r *refused) {
			r.write("apps/victim.yaml", secretKind+"metadata: {name: victim, namespace: NAMESPACE, labels: {team: CANARY}}\nstringData: {a: CANARY}\n", "encrypted_regex: ^(stringData|labels)$")
		},
		says: []string{"apps/victim.yaml", "metadata.labels.team", "Secret/NAMESPACE/victim"},
	},
	"a sealed ConfigMap": {
		fault: func(r *refused) {
			r.write("apps/leak.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: leak, namespace: NAMESPACE}\ndata: {a: CANARY}\n", fluxRule)
		},
		says: []string{"ConfigMap/NAMESPACE/leak data.a", "apps/leak.yaml"},
	},
	"a ConfigMap generated from a sealed file": {
		fault: func(r *refused) {
			r.edit("apps/config/kustomization.yaml", `(?s)$`, "configMapGenerator:\n- {name: leak, files: [settings.yaml]}\n- {name: leak-env, envs: [app.env]}\n- {name: leak-key, files: [key.pem]}\n")
		},
		says: []string{`ConfigMap/NAMESPACE/leak data["settings.yaml"]`, "apps/config/settings.yaml", "ConfigMap/NAMESPACE/leak-env data.A", `ConfigMap/NAMESPACE/leak-key data["key.pem"]`, "apps/config/kustomization.yaml"},
	},
	"a sealed value copied into a Deployment": {
		fault: func(r *refused) {
			r.write("apps/leak/secret.yaml", secretKind+"metadata: {name: harmless, namespace: NAMESPACE}\nstringData: {a: CANARY}\n", fluxRule)
			r.plain("apps/leak/web.yaml", deployment(r.e.app))
			r.plain("apps/leak/kustomization.yaml", `resources: [secret.yaml, web.yaml]
replacements:
- source: {kind: Secret, name: harmless, fieldPath: stringData.a}
  targets: [{select: {kind: Deployment}, fieldPaths: [spec.template.spec.containers.0.image]}]
`)
		},
		says: []string{"Deployment/NAMESPACE/web spec.template.spec.containers[0].image", "apps/leak/secret.yaml"},
	},
	"a plaintext Secret": {
		fault: func(r *refused) {
			r.plain("apps/victim.yaml", victimHead+"stringData: {a: in the clear}\n")
		},
		says: []string{"Secret/NAMESPACE/victim data.a", "PlaintextSecret", "apps/victim.yaml"},
	},
	"a plaintext value of a generator": {
		fault: func(r *refused) {
			r.edit("apps/config/kustomization.yaml", `envs: \[app.env\]`, "$0, literals: [C=in the clear]")
		},
		says: []string{"Secret/NAMESPACE/env data.C", "PlaintextSecret", "apps/config/kustomization.yaml"},
	},
	"an object bound to another namespace": {
		fault: func(r *refused) {
			r.e.repo.Write("apps/victim.yaml", r.e.seal(secretKind+"metadata: {name: victim}\nstringData: {a: "+r.canary+"}\n", "encrypt", "--for", "elsewhere/victim", "--filename", "victim.yaml", "-"))
			r.plain("apps/moved/kustomization.yaml", "namespace: NAMESPACE\nresources: [../victim.yaml]\n")
			r.e.repo.Git("mv", "-k", "apps/victim.yaml", "moved-victim.yaml")
			r.plain("apps/moved/kustomization.yaml", "namespace: NAMESPACE\nresources: [../../moved-victim.yaml]\n")
		},
		says: []string{"Secret/NAMESPACE/victim data.a: BindingMismatch: moved-victim.yaml was sealed for elsewhere/victim, not for NAMESPACE/victim"},
	},
	"a dotenv file bound to another Secret": {
		fault: func(r *refused) {
			r.e.repo.Write("apps/config/app.env", r.e.seal("A="+r.canary+"\n", "encrypt", "--for", r.e.app+"/other", "--filename", "app.env", "-"))
		},
		says: []string{"Secret/NAMESPACE/env data.A: BindingMismatch: apps/config/app.env"},
	},
	"a binding taken away": {
		fault: func(r *refused) {
			r.e.repo.Write("apps/victim.yaml", r.e.seal(secretKind+"metadata: {name: victim, namespace: elsewhere}\nstringData: {a: "+r.canary+"}\n", "encrypt", "--filename", "victim.yaml", "-"))
			r.edit("apps/victim.yaml", `(?m)^ *gitseal\.io/sealed-for: .*\n`, "")
			r.edit("apps/victim.yaml", `namespace: elsewhere`, "namespace: "+r.e.app)
		},
		says: []string{"apps/victim.yaml"},
	},
	"a part replaced where a sealed value was put in whole before": {
		fault: func(r *refused) {
			r.write("apps/part/from.yaml", secretKind+"metadata: {name: harmless, namespace: NAMESPACE}\nstringData: {a: 'CANARY/x', user: somebody}\n", fluxRule)
			r.plain("apps/part/url.yaml", secretKind+"metadata: {name: url, namespace: NAMESPACE}\nstringData: {url: 'db.example/app'}\n")
			r.plain("apps/part/kustomization.yaml", `resources: [from.yaml, url.yaml]
replacements:
- source: {kind: Secret, name: harmless, fieldPath: stringData.a}
  targets: [{select: {name: url}, fieldPaths: [stringData.url]}]
- source: {kind: Secret, name: harmless, fieldPath: stringData.user}
  targets: [{select: {name: url}, fieldPaths: [stringData.url], options: {delimiter: "/", index: 1}}]
`)
		},
		says: []string{"apps/part/kustomization.yaml", "replacements[1]"}, scope: wholePass,
	},
	"a part of a sealed value replaced": {
		fault: func(r *refused) {
			r.write("apps/victim.yaml", victimHead+"stringData: {a: 'postgres://user:CANARY@db'}\n", fluxRule)
			r.e.repo.Git("mv", "-k", "apps/victim.yaml", "sealed.yaml")
			r.plain("apps/part/from.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: from, namespace: NAMESPACE}\ndata: {user: somebody}\n")
			r.plain("apps/part/kustomization.yaml", `resources: [from.yaml, ../../sealed.yaml]
replacements:
- source: {kind: ConfigMap, name: from, fieldPath: data.user}
  targets: [{select: {name: victim}, fieldPaths: [stringData.a], options: {delimiter: "@", index: 1}}]
`)
		},
		says: []string{"apps/part/kustomization.yaml", "replacements[0]"}, scope: wholePass,
	},

	// Files that are no files.
	"a 6 MiB sealed file": {
		fault: func(r *refused) { r.write("apps/config/key.pem", strings.Repeat("CANARY.", 6<<20/27), "") },
		says:  []string{"apps/config/key.pem", "5 MiB"},
	},
	"a 6 MiB sealed manifest": {
		fault: func(r *refused) {
			r.write("apps/victim.yaml", victimHead+"stringData: {a: '"+strings.Repeat("CANARY.", 6<<20/27)+"'}\n", fluxRule)
		},
		says: []string{"apps/victim.yaml", "5 MiB"},
	},
	"a symlink out of the tree": {
		fault: func(r *refused) {
			file := filepath.Join(r.e.repo.Work, "apps/config/settings.yaml")
			if err := os.Remove(file); err != nil {
				r.e.t.Fatal(err)
			}
			if err := os.Symlink("../../../../../../../../etc/hostname", file); err != nil {
				r.e.t.Fatal(err)
			}
		},
		says: []string{"apps/config", "settings.yaml"}, scope: wholePass,
	},
	"a path out of the tree": {
		fault: func(r *refused) {
			r.edit("apps/config/kustomization.yaml", `files: \[settings.yaml`, "files: [h=../../../../../../../etc/hostname")
		},
		says: []string{"apps/config/kustomization.yaml", "secretGenerator[0].files[0]", "outside the repository"}, scope: wholePass,
	},
	"an alias bomb": {
		fault: func(r *refused) {
			bomb := "x0: &x0 [a, a, a, a, a, a, a, a, a]\n"
			for i := range 9 {
				bomb += fmt.Sprintf("x%d: &x%d [%s]\n", i+1, i+1, strings.Repeat(fmt.Sprintf("*x%d,", i), 9))
			}
			r.edit("apps/victim.yaml", `^`, bomb)
		},
		says: []string{"apps/victim.yaml"},
	},
	"an alias bomb in a generator's file": {
		fault: func(r *refused) {
			bomb := "x0: &x0 [a, a, a, a, a, a, a, a, a]\n"
			for i := range 9 {
				bomb += fmt.Sprintf("x%d: &x%d [%s]\n", i+1, i+1, strings.Repeat(fmt.Sprintf("*x%d,", i), 9))
			}
			r.edit("apps/config/settings.yaml", `^`, bomb)
		},
		says: []string{"apps/config/settings.yaml"},
	},
	"a placeholder in git": {
		fault: func(r *refused) {
			r.plain("apps/thief.yaml", secretKind+"metadata: {name: thief, namespace: NAMESPACE}\nstringData: {a: gitseal0"+strings.Repeat("a", 28)+"}\n")
		},
		says: []string{"apps/thief.yaml", "placeholder"}, scope: wholePass,
	},
	"a placeholder in git, as base64": {
		fault: func(r *refused) {
			r.plain("apps/thief.yaml", secretKind+"metadata: {name: thief, namespace: NAMESPACE}\ndata: {a: "+base64.StdEncoding.EncodeToString([]byte("x gitseal0"+strings.Repeat("a", 28)))+"}\n")
		},
		says: []string{"apps/thief.yaml", "placeholder"}, scope: wholePass,
	},
	"a placeholder in a sealed value": {
		fault: func(r *refused) {
			r.write("apps/thief.yaml", secretKind+"metadata: {name: thief, namespace: NAMESPACE}\nstringData: {a: 'gitseal0"+strings.Repeat("a", 28)+"'}\n", fluxRule)
		},
		says: []string{"apps/thief.yaml", "placeholder"}, scope: wholePass,
	},
	"JSON6902 test of a sealed value": {
		fault: func(r *refused) {
			r.write("apps/tested/secret.yaml", secretKind+"metadata: {name: tested, namespace: NAMESPACE}\nstringData: {port: '5432', a: CANARY}\n", fluxRule)
			r.plain("apps/tested/kustomization.yaml", `resources: [secret.yaml]
patches:
- target: {kind: Secret, name: tested}
  patch: |-
    - {op: test, path: /stringData/port, value: "5432"}
    - {op: replace, path: /stringData/port, value: "5433"}
`)
		},
		says: []string{"apps/tested", "can not test a sealed value"}, scope: wholePass,
	},
}

// TestWhatStockSopsRefusesAndMoreIsNamedAndHarmless breaks a tree in one way
// after another and applies it once each time.
func TestWhatStockSopsRefusesAndMoreIsNamedAndHarmless(t *testing.T) {
	t.Parallel()
	e := newEnv(t).withKeys()
	secret := strings.TrimSuffix(canary(t), "?")
	r := &refused{stock: newStock(e, secret), canary: secret}
	r.base()
	e.repo.Remove("apps/begin.yaml")
	e.repo.Commit("no fault")
	e.mustOnce()
	base := e.repo.Head()
	held := []string{"victim", "config", "env"}
	versions := func() map[string]string {
		t.Helper()
		out := map[string]string{}
		for _, name := range held {
			o, err := e.client.CoreV1().Secrets(e.app).Get(t.Context(), name, metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			out[name] = o.ResourceVersion
		}
		return out
	}
	before := versions()
	trap := newTrap(t)
	var said strings.Builder
	for _, name := range slices.Sorted(maps.Keys(sopsRefusals)) {
		c := sopsRefusals[name]
		t.Run(name, func(t *testing.T) {
			e.repo.Git("reset", "-q", "--hard", base)
			last := r.round
			r.others()
			e.repo.Remove("apps/gone.yaml")
			c.fault(r)
			e.repo.Git("add", "--all")
			e.repo.Git("commit", "-q", "-m", name)
			e.repo.Git("push", "-q", "-f", "origin", "HEAD")
			out, errOut, code := e.run("", "env", trap.env(e, e.syncArgs("--once", "-o", "json", "--log-level", "debug")...)...)
			said.WriteString(out + errOut)
			report := parseReport(t, out, errOut)
			if code != 1 || report.Ready {
				t.Errorf("exit code %d, ready %v; want 1, false", code, report.Ready)
			}
			failures := strings.Join(report.Failures, "\n")
			for _, text := range c.says {
				text = strings.NewReplacer(append([]string{"NAMESPACE", e.app}, r.replace...)...).Replace(text)
				if !strings.Contains(failures, text) {
					t.Errorf("no %q in the failures:\n%s", text, failures)
				}
			}
			round := strconv.Itoa(r.round)
			if c.scope == wholePass {
				round = strconv.Itoa(last)
				r.round = last
			}
			if err := e.configMapValue(t.Context(), "neighbour", "round", round); err != nil {
				t.Errorf("%v\n%s", err, failures)
			}
			if err := e.secret(t.Context(), "good", "round", round+" "+secret); err != nil {
				t.Errorf("%v\n%s", err, failures)
			}
			if err := e.configMapValue(t.Context(), "gone", "a", "b"); err != nil || report.Pruned != 0 {
				t.Errorf("%d objects were pruned: %v", report.Pruned, err)
			}
			if after := versions(); !maps.Equal(before, after) {
				t.Errorf("Secrets that were good were written: %v, before %v", after, before)
			}
			live := e.liveShapes(e.app)
			for name := range live {
				if !slices.Contains([]string{"Secret/victim", "Secret/config", "Secret/env", "Secret/good", "Secret/harmless", "ConfigMap/neighbour", "ConfigMap/gone"}, strings.Replace(name, e.app+"/", "", 1)) {
					t.Errorf("%s was applied", name)
				}
			}
			if t.Failed() { // the next one begins from a good state all the same
				e.repo.Git("reset", "-q", "--hard", base)
				e.repo.Git("commit", "-q", "--allow-empty", "-m", "put right")
				e.repo.Git("push", "-q", "-f", "origin", "HEAD")
				e.mustOnce("--prune-limit", "100%")
				before, r.round = versions(), 1
			}
		})
	}
	if n := trap.calls.Load(); n != 0 || trap.pluginStarted() {
		t.Errorf("the agent tried to reach other services %d times, and started a plugin: %v", n, trap.pluginStarted())
	}
	t.Run("no value shows", func(t *testing.T) {
		e.showsNowhere(secret, haystack{"what the agent said", []byte(said.String())})
	})
	t.Run("and without a fault again", func(t *testing.T) {
		e.repo.Git("reset", "-q", "--hard", base)
		e.repo.Remove("apps/gone.yaml")
		r.others()
		e.repo.Git("add", "--all")
		e.repo.Git("commit", "-q", "-m", "put right")
		e.repo.Git("push", "-q", "-f", "origin", "HEAD")
		e.mustOnce("--prune-limit", "100%")
		if after := versions(); !maps.Equal(before, after) {
			t.Errorf("Secrets that are as they were are written again: %v, before %v", after, before)
		}
		if _, ok := e.liveShapes(e.app)[shapeName("ConfigMap", e.app, "gone")]; ok {
			t.Error("what left git was not pruned")
		}
	})
}
