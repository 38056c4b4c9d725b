package decrypt

import (
	"strings"
	"testing"
)

const cutTree = `-- sealed s.yaml --
apiVersion: v1
kind: Secret
metadata: {name: s}
stringData: {url: "hunter2canary:two:three", other: hunter2canary}
-- t.yaml --
apiVersion: v1
kind: Secret
metadata: {name: t}
stringData: {url: "a:b:c", plain: "x:y"}
-- c.yaml --
apiVersion: v1
kind: ConfigMap
metadata: {name: c}
data: {url: "a:b:c", addr: "db.example:5432"}
-- v.yaml --
apiVersion: v1
kind: Service
metadata: {name: v}
spec: {ports: [{port: 80}]}
-- sealed a.env --
A=hunter2canary:two
-- p.env --
P=one:two
-- kustomization.yaml --
resources: [s.yaml, t.yaml, c.yaml, v.yaml]
secretGenerator: [{name: gen, envs: [a.env, p.env]}]
`

// Where a replacement would cut a sealed value, kustomize cuts its placeholder,
// or does not, and the result is wrong without a word.
func TestSealedValuesAreNotCut(t *testing.T) {
	t.Parallel()
	const source, target = "source.options.delimiter", "targets.options.delimiter"
	for name, c := range map[string]struct{ replacements, refused string }{
		"a sealed source, first piece":         {`[{source: {kind: Secret, name: s, fieldPath: stringData.url, options: {delimiter: ":"}}, targets: [{select: {name: t}, fieldPaths: [stringData.plain]}]}]`, "replacements[0]." + source},
		"a sealed source by any kind":          {`[{source: {name: s, fieldPath: stringData.url, options: {delimiter: ":"}}, targets: [{select: {name: t}, fieldPaths: [stringData.plain]}]}]`, "replacements[0]." + source},
		"a generated sealed source":            {`[{source: {kind: Secret, name: gen, fieldPath: data.A, options: {delimiter: "x"}}, targets: [{select: {name: t}, fieldPaths: [stringData.plain]}]}]`, "replacements[0]." + source},
		"a sealed target, piece replaced":      {`[{source: {kind: Secret, name: t, fieldPath: stringData.plain}, targets: [{select: {name: s}, fieldPaths: [stringData.url], options: {delimiter: ":", index: 0}}]}]`, "replacements[0]." + target},
		"a sealed target, piece appended":      {`[{source: {kind: Secret, name: t, fieldPath: stringData.plain}, targets: [{select: {kind: Secret, name: s}, fieldPaths: [stringData.url], options: {delimiter: ":", index: 9}}]}]`, "replacements[0]." + target},
		"a sealed target, chosen by a pattern": {`[{source: {kind: Secret, name: t, fieldPath: stringData.plain}, targets: [{select: {kind: "Sec.*", name: "s|nothing"}, fieldPaths: [stringData.url], options: {delimiter: ":", index: 1}}]}]`, "replacements[0]." + target},
		"by a constant value":                  {`[{sourceValue: x, targets: [{select: {name: s}, fieldPaths: [stringData.url], options: {delimiter: ":", index: 0}}]}]`, "replacements[0]." + target},
		"the second of two":                    {`[{source: {kind: Secret, name: t, fieldPath: stringData.plain, options: {delimiter: ":"}}, targets: [{select: {name: t}, fieldPaths: [stringData.url], options: {delimiter: ":"}}]}, {source: {kind: Secret, name: t, fieldPath: stringData.plain}, targets: [{select: {name: s}, fieldPaths: [stringData.url], options: {delimiter: ":", index: 0}}]}]`, "replacements[1]." + target},
		"put there whole, then cut":            {`[{source: {kind: Secret, name: s, fieldPath: stringData.url}, targets: [{select: {name: t}, fieldPaths: [stringData.url]}]}, {sourceValue: x, targets: [{select: {name: t}, fieldPaths: [stringData.url], options: {delimiter: ":", index: 0}}]}]`, "replacements[1]." + target},
		"put there whole by a cut, then cut":   {`[{source: {kind: Secret, name: s, fieldPath: stringData.url}, targets: [{select: {kind: Secret, name: t}, fieldPaths: [stringData.url], options: {delimiter: "/", index: 0}}]}, {sourceValue: x, targets: [{select: {name: t}, fieldPaths: [stringData.url], options: {delimiter: ":", index: 0}}]}]`, "replacements[1]." + target},
		"put there whole beside pieces":        {`[{source: {kind: Secret, name: s, fieldPath: stringData.other}, targets: [{select: {kind: Secret, name: t}, fieldPaths: [stringData.plain]}, {select: {name: t}, fieldPaths: [stringData.url], options: {delimiter: ":", index: 1}}]}, {sourceValue: x, targets: [{select: {name: t}, fieldPaths: [stringData.plain], options: {delimiter: ":", index: 0}}]}]`, "replacements[1]." + target},
		"fields in another case":               {`[{Source: {kind: Secret, name: s, FieldPath: stringData.url, Options: {Delimiter: ":"}}, targets: [{select: {name: t}, fieldPaths: [stringData.plain]}]}]`, "replacements[0]." + source},
		"by way of a ConfigMap":                {`[{source: {kind: Secret, name: s, fieldPath: stringData.url}, targets: [{select: {kind: ConfigMap, name: c}, fieldPaths: [data.url]}]}, {source: {kind: ConfigMap, name: c, fieldPath: data.url, options: {delimiter: ":"}}, targets: [{select: {name: t}, fieldPaths: [stringData.plain]}]}]`, "replacements[1]." + source},
		"a sealed piece for a number":          {`[{source: {kind: Secret, name: s, fieldPath: stringData.other}, targets: [{select: {kind: ConfigMap, name: c}, fieldPaths: [data.addr], options: {delimiter: ":", index: 0}}]}, {sourceValue: x, targets: [{select: {kind: ConfigMap, name: c}, fieldPaths: [data.url], options: {delimiter: ":"}}]}, {source: {kind: ConfigMap, name: c, fieldPath: data.addr, options: {delimiter: ":", index: 1}}, targets: [{select: {kind: Service}, fieldPaths: [spec.ports.0.port]}]}, {sourceValue: x, targets: [{select: {name: s}, fieldPaths: [stringData.url], options: {delimiter: ":"}}]}]`, "replacements[3]." + target},

		"a plain piece for a number":    {`[{source: {kind: ConfigMap, name: c, fieldPath: data.addr, options: {delimiter: ":", index: 1}}, targets: [{select: {kind: Service}, fieldPaths: [spec.ports.0.port]}]}]`, ""},
		"a plain value of a Secret cut": {`[{source: {kind: Secret, name: t, fieldPath: stringData.url, options: {delimiter: ":", index: 1}}, targets: [{select: {name: t}, fieldPaths: [stringData.plain]}]}]`, ""},
		"a plain generated value cut":   {`[{source: {kind: Secret, name: gen, fieldPath: data.P, options: {delimiter: "x"}}, targets: [{select: {name: t}, fieldPaths: [stringData.plain]}]}]`, ""},
		"a sealed value as a piece":     {`[{source: {kind: Secret, name: s, fieldPath: stringData.other}, targets: [{select: {name: t}, fieldPaths: [stringData.url], options: {delimiter: ":", index: 1}}]}]`, ""},
		"two sealed values as pieces":   {`[{source: {kind: Secret, name: s, fieldPath: stringData.other}, targets: [{select: {name: t}, fieldPaths: [stringData.url], options: {delimiter: ":", index: 1}}]}, {source: {kind: Secret, name: s, fieldPath: stringData.other}, targets: [{select: {name: t}, fieldPaths: [stringData.url], options: {delimiter: ":", index: 2}}]}]`, ""},
		"whole beside pieces":           {`[{source: {kind: Secret, name: s, fieldPath: stringData.other}, targets: [{select: {name: s}, fieldPaths: [stringData.url]}, {select: {name: t}, fieldPaths: [stringData.url], options: {delimiter: ":", index: 1}}]}]`, ""},
		"a ConfigMap":                   {`[{source: {kind: ConfigMap, name: c, fieldPath: data.url, options: {delimiter: ":"}}, targets: [{select: {kind: ConfigMap}, fieldPaths: [data.url], options: {delimiter: ":", index: 2}}]}]`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for where, tree := range map[string]string{
				"inline": cutTree + "replacements: " + c.replacements + "\n",
				"a file": cutTree + "replacements: [{path: r.yaml}]\n-- r.yaml --\n" + c.replacements + "\n",
				"a base": strings.ReplaceAll(cutTree, "-- kustomization.yaml", "-- base/kustomization.yaml") + "replacements: " + c.replacements + "\n-- kustomization.yaml --\nresources: [base]\nnamePrefix: pre-\nnamespace: ns\n",
			} {
				if where == "a base" {
					for _, f := range []string{"s.yaml", "t.yaml", "c.yaml", "v.yaml", "a.env", "p.env"} {
						tree = strings.Replace(tree, "-- "+f, "-- base/"+f, 1)
						tree = strings.Replace(tree, "-- sealed "+f, "-- sealed base/"+f, 1)
					}
				}
				sealed, plain := trees(t, tree)
				p, err := tryRun(t, sealed, passOption{policy: Policy{Plaintext: PlaintextAllow}})
				if c.refused != "" {
					want := c.refused
					if where == "a file" {
						index, field, _ := strings.Cut(want, ".")
						want = "r.yaml: " + strings.TrimPrefix(strings.TrimPrefix(index, "replacements")+".", "[0].") + field
					}
					if err == nil || !strings.Contains(err.Error(), want) {
						t.Errorf("%s: got %v, want %s; rendered:\n%s", where, err, want, p.yaml)
					}
					continue
				}
				if err != nil {
					t.Errorf("%s: %v", where, err)
					continue
				}
				want := plaintextBuild(t, plain, "")
				for object, data := range p.bodies(t) {
					for k, v := range data {
						if want[object][k] != v {
							t.Errorf("%s: %s %s is %q, stock gives %q", where, object, k, v, want[object][k])
						}
					}
				}
			}
		})
	}
}

// A refusal that depended on the value would tell it letter by letter to whoever
// may commit. So a piece stays a piece, also where the value holds the delimiter
// and stock kustomize would go on to cut it.
func TestWhetherAValueHoldsADelimiterCanNotBeAsked(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ first, second, want string }{
		"the same delimiter":           {`delimiter: ":", index: 0`, `delimiter: ":", index: 1`, "%s:x"},
		"another delimiter":            {`delimiter: ":", index: 0`, `delimiter: "/", index: 1`, "%s:b/x"},
		"a guess":                      {`delimiter: ":", index: 0`, `delimiter: ":two", index: 1`, "%s:b/c:twox"},
		"before the value":             {`delimiter: ":", index: 1`, `delimiter: ":", index: -1`, "x:a:%s"},
		"the piece itself is replaced": {`delimiter: ":", index: 1`, `delimiter: ":", index: 1`, "a:x"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			replacements := `replacements: [{source: {kind: Secret, name: s, fieldPath: stringData.url}, targets: [{select: {name: t}, fieldPaths: [stringData.url], options: {` + c.first + `}}]}, {sourceValue: x, targets: [{select: {name: t}, fieldPaths: [stringData.url], options: {` + c.second + `}}]}]`
			for _, value := range []string{"hunter2canary:two/three", "hunter2canary"} {
				tree := strings.Replace(cutTree, "hunter2canary:two:three", value, 1)
				tree = strings.Replace(tree, "a:b:c", "a:b/c", 1)
				sealed, _ := trees(t, tree+replacements+"\n")
				p, err := tryRun(t, sealed, passOption{policy: Policy{Plaintext: PlaintextAllow}})
				if err != nil {
					t.Errorf("%s: %v", value, err)
					continue
				}
				want := strings.ReplaceAll(c.want, "%s", value)
				if got := p.bodies(t)["/t"]["url"]; got != want {
					t.Errorf("%s: got %q, want %q", value, got, want)
				}
			}
		})
	}
}

func TestJSON6902TestOfASealedValueSaysWhy(t *testing.T) {
	t.Parallel()
	sealed, _ := trees(t, `-- sealed s.yaml --
apiVersion: v1
kind: Secret
metadata: {name: s}
stringData: {k: hunter2canary}
-- kustomization.yaml --
resources: [s.yaml]
patches:
- target: {kind: Secret}
  patch: |
    - {op: test, path: /stringData/k, value: x}
    - {op: replace, path: /stringData/k, value: y}
`)
	_, err := tryRun(t, sealed, passOption{})
	if err == nil || !strings.Contains(err.Error(), "placeholder") {
		t.Errorf("got %v", err)
	}
}
