package decrypt

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gitseal/gitseal/crypto"
)

const sealedConfigMap = `-- sealed c.yaml --
apiVersion: v1
kind: ConfigMap
metadata: {name: c, namespace: prod}
data: {host: hunter2canary, port: "x"}
`

func TestOutsideSecretsOnlyWhereAllowedAndSealed(t *testing.T) {
	t.Parallel()
	custom := `-- sealed h.yaml --
apiVersion: helm.toolkit.fluxcd.io/v2
kind: HelmRelease
metadata: {name: h, namespace: prod}
data: {password: hunter2canary, n: 5, on: true, ratio: 0.5, list: [hunter2canary one, plain, {deep: hunter2canary}]}
`
	tampered := "-- tampered h.yaml --\napiVersion: example.com/v1\nkind: untouched\nmetadata: {name: h}\ndata: {password: hunter2canary}\n"
	for name, c := range map[string]struct {
		tree   string
		policy Policy
		reason Reason
		want   map[string]any // of data
	}{
		"by default":         {sealedConfigMap, Policy{}, ReasonPlaceholderOutsideSecret, nil},
		"into its own field": {sealedConfigMap, Policy{Outside: OutsideAllow}, "", map[string]any{"host": "hunter2canary", "port": "x"}},
		"with its types": {custom, Policy{Outside: OutsideAllow}, "", map[string]any{
			"password": "hunter2canary", "n": 5.0, "on": true, "ratio": 0.5, "list": []any{"hunter2canary one", "plain", map[string]any{"deep": "hunter2canary"}}}},
		"a generated ConfigMap": {"-- sealed a.env --\nA=hunter2canary\n-- kustomization.yaml --\nconfigMapGenerator: [{name: c, envs: [a.env]}]\n",
			Policy{Outside: OutsideAllow}, ReasonPlaceholderOutsideSecret, nil},
		"from a Secret into a ConfigMap": {"-- sealed s.yaml --\napiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {host: hunter2canary}\n-- c.yaml --\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {host: x}\n-- kustomization.yaml --\nresources: [s.yaml, c.yaml]\n" +
			replacement("{kind: Secret, name: s, fieldPath: stringData.host}", "{kind: ConfigMap}", "data.host"), Policy{Outside: OutsideAllow}, ReasonPlaceholderOutsideSecret, nil},
		"into another field": {sealedConfigMap + "-- kustomization.yaml --\nresources: [c.yaml]\n" +
			replacement("{kind: ConfigMap, name: c, fieldPath: data.host}", "{kind: ConfigMap}", "data.port"), Policy{Outside: OutsideAllow}, ReasonPlaceholderOutsideSecret, nil},
		"within a longer text": {sealedConfigMap + "-- kustomization.yaml --\nresources: [c.yaml]\npatches:\n- target: {kind: ConfigMap}\n  patch: |\n    - {op: add, path: /data/host, value: x}\n" +
			"configMapGenerator: [{name: d, files: [c.yaml]}]\n", Policy{Outside: OutsideAllow}, ReasonPlaceholderOutsideSecret, nil},
		"into a kind of the same name in another group": {strings.Replace(sealedConfigMap, "ConfigMap", "Secret", 1) + "-- kustomization.yaml --\nresources: [c.yaml]\npatches:\n- target: {kind: Secret}\n  patch: |\n    - {op: replace, path: /apiVersion, value: example.com/v1}\n", Policy{Outside: OutsideAllow}, ReasonPlaceholderOutsideSecret, nil},
		"into a list's key":                             {"-- sealed d.yaml --\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\ndata: [{name: hunter2canary}]\n", Policy{Outside: OutsideAllow}, ReasonStructureSealed, nil},
		"bound to another object":                       {strings.Replace(sealedConfigMap, "sealed c.yaml", "sealed c.yaml for prod/other", 1), Policy{Outside: OutsideAllow}, ReasonBindingMismatch, nil},
		"a kind that the MAC does not cover":            {strings.Replace(sealedConfigMap, "sealed c.yaml", "maconly c.yaml", 1), Policy{Outside: OutsideAllow}, ReasonPlaceholderOutsideSecret, nil},
		"a kind that was changed after sealing":         {tampered, Policy{Outside: OutsideAllow, MAC: crypto.MACWarn}, ReasonPlaceholderOutsideSecret, nil},
		"a binding is required":                         {sealedConfigMap, Policy{Outside: OutsideAllow, Binding: BindingRequired}, ReasonBindingMissing, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sealed, _ := trees(t, c.tree)
			p := run(t, sealed, passOption{policy: c.policy})
			if c.reason != "" {
				if len(p.gated.Refused) != 1 || p.gated.Refused[0].Reason != c.reason {
					t.Fatalf("got %v, want %s; rendered:\n%s", p.gated.Refused, c.reason, p.yaml)
				}
				return
			}
			if len(p.gated.Refused) > 0 || len(p.gated.Objects) != 1 || !p.gated.Objects[0].CarriesPlaintext() {
				t.Fatalf("refused %v", p.gated.Refused)
			}
			body, _, err := p.gated.Objects[0].Body(nil)
			if err != nil {
				t.Fatal(err)
			}
			var got struct{ Data map[string]any }
			if err := json.Unmarshal(body.Reveal(), &got); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.want, got.Data); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}
