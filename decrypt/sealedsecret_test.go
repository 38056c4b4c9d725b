package decrypt

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/gitseal/gitseal/crypto"
)

func sealValue(t testing.TB, key crypto.CertificateKey, namespace, name string, scope crypto.Scope, value string) string {
	t.Helper()
	return must(crypto.SealValue(key.Certificate(), crypto.Target{Namespace: namespace, Name: name, Scope: scope}, crypto.NewSecretString(value), testTime))(t)
}

type m = map[string]any

// sealedSecretOf has one value, sealed for prod/db in the scope.
func sealedSecretOf(t testing.TB, scope crypto.Scope, change func(u m)) *unstructured.Unstructured {
	t.Helper()
	meta := m{"name": "db", "namespace": "prod"}
	if a := scope.Annotation(); a != "" {
		meta["annotations"] = m{a: "true"}
	}
	u := m{"apiVersion": "bitnami.com/v1alpha1", "kind": "SealedSecret", "metadata": meta,
		"spec": m{"encryptedData": m{"password": sealValue(t, certKeyOf(t), "prod", "db", scope, "hunter2canary")}}}
	if change != nil {
		change(u)
	}
	return &unstructured.Unstructured{Object: u}
}

func gateOne(t testing.TB, u *unstructured.Unstructured, keys Keys, policy Policy) Gated {
	t.Helper()
	g := NewMasker(MaskerConfig{Keys: keys, Digester: digesterOf(t), Policy: policy}).Pass().Gate([]*unstructured.Unstructured{u})
	assertNoCanary(t, g, g.Objects, g.Refused)
	return g
}

func TestSealedSecretsOpenInTheirBody(t *testing.T) {
	t.Parallel()
	keys := &fakeKeys{certs: []crypto.CertificateKey{certKeyOf(t)}}
	template := func(v any) func(m) { return func(u m) { u["spec"].(m)["template"] = v } }
	plain := func(rest m) m {
		out := m{"apiVersion": "v1", "kind": "Secret", "metadata": m{"name": "db", "namespace": "prod"}, "data": m{"password": "aHVudGVyMmNhbmFyeQ=="}}
		for k, v := range rest {
			out[k] = v
		}
		return out
	}
	for name, c := range map[string]struct {
		scope  crypto.Scope
		change func(m)
		policy Policy
		want   m
	}{
		"strict":                {crypto.Strict, nil, Policy{}, plain(nil)},
		"namespace-wide, moved": {crypto.NamespaceWide, func(u m) { u["metadata"].(m)["name"] = "other" }, Policy{}, plain(m{"metadata": m{"name": "other", "namespace": "prod"}})},
		"cluster-wide, moved": {crypto.ClusterWide, func(u m) { u["metadata"].(m)["name"], u["metadata"].(m)["namespace"] = "other", "elsewhere" }, Policy{},
			plain(m{"metadata": m{"name": "other", "namespace": "elsewhere"}})},
		"the default namespace": {crypto.Strict, func(u m) { delete(u["metadata"].(m), "namespace") }, Policy{Namespace: "prod"}, plain(m{"metadata": m{"name": "db"}})},
		"template null":         {crypto.Strict, template(nil), Policy{}, plain(nil)},
		"template with labels, annotations, type and immutable": {crypto.Strict,
			template(m{"type": "kubernetes.io/basic-auth", "immutable": true, "data": nil, "metadata": m{"name": "ignored", "namespace": "ignored", "creationTimestamp": nil, "labels": m{"a": "b"}, "annotations": m{"c": "d"}}}),
			Policy{}, plain(m{"type": "kubernetes.io/basic-auth", "immutable": true, "metadata": m{"name": "db", "namespace": "prod", "labels": m{"a": "b"}, "annotations": m{"c": "d"}}})},
		"the policy for SOPS bindings is not for it": {crypto.Strict, nil, Policy{Binding: BindingRequired}, plain(nil)},
		"no values on purpose":                       {crypto.Strict, func(u m) { u["spec"].(m)["encryptedData"] = m{} }, Policy{}, m{"apiVersion": "v1", "kind": "Secret", "metadata": m{"name": "db", "namespace": "prod"}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u := sealedSecretOf(t, c.scope, c.change)
			before := u.DeepCopy()
			g := gateOne(t, u, keys, c.policy)
			if len(g.Refused) > 0 || len(g.Objects) != 1 {
				t.Fatalf("refused: %v", g.Refused)
			}
			if g.Objects[0].Masked.Object["data"] != nil || !g.Objects[0].CarriesPlaintext() {
				t.Error("the masked Secret should hold no values, and say that its body does")
			}
			body, digest, err := g.Objects[0].Body(nil)
			if err != nil || digest == "" {
				t.Fatal(err)
			}
			got := &unstructured.Unstructured{}
			if err := got.UnmarshalJSON(body.Reveal()); err != nil {
				t.Fatal(err)
			}
			got.SetLabels(got.GetLabels()) // Body always sets the map
			want := &unstructured.Unstructured{Object: c.want}
			if want.GetLabels() == nil {
				unstructured.RemoveNestedField(got.Object, "metadata", "labels")
			}
			if d := cmp.Diff(want.Object, got.Object); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			if d := cmp.Diff(before.Object, u.Object); d != "" {
				t.Errorf("the gate changed its input:\n%s", d)
			}
		})
	}
}

func TestSealedSecretsThatAreRefused(t *testing.T) {
	t.Parallel()
	keys := &fakeKeys{certs: []crypto.CertificateKey{certKeyOf(t)}}
	for name, c := range map[string]struct {
		change func(m)
		field  string
		reason Reason
	}{
		"encryptedData missing":          {func(u m) { delete(u["spec"].(m), "encryptedData") }, "spec.encryptedData", ReasonInvalidSealedSecret},
		"encryptedData is a list":        {func(u m) { u["spec"].(m)["encryptedData"] = []any{"x"} }, "spec.encryptedData", ReasonInvalidSealedSecret},
		"a value that is no text":        {func(u m) { u["spec"].(m)["encryptedData"].(m)["n"] = int64(5) }, "spec.encryptedData", ReasonInvalidSealedSecret},
		"a value that is null":           {func(u m) { u["spec"].(m)["encryptedData"].(m)["n"] = nil }, "spec.encryptedData", ReasonInvalidSealedSecret},
		"the deprecated blob":            {func(u m) { u["spec"] = m{"data": "AAAA"} }, "spec.data", ReasonInvalidSealedSecret},
		"no spec":                        {func(u m) { delete(u, "spec") }, "spec", ReasonInvalidSealedSecret},
		"no name":                        {func(u m) { delete(u["metadata"].(m), "name") }, "metadata.name", ReasonInvalidSealedSecret},
		"another version":                {func(u m) { u["apiVersion"] = "bitnami.com/v2" }, "apiVersion", ReasonInvalidSealedSecret},
		"a template that does not parse": {func(u m) { u["spec"].(m)["template"] = m{"data": m{"a": "{{ .password"}} }, "", ReasonInvalidSealedSecret},
		"a template with env":            {func(u m) { u["spec"].(m)["template"] = m{"data": m{"a": `{{ env "HOME" }}`}} }, "", ReasonInvalidSealedSecret},
		"the blob beside encryptedData":  {func(u m) { u["spec"].(m)["data"] = "AAAA" }, "spec.data", ReasonInvalidSealedSecret},
		"a template that is a text":      {func(u m) { u["spec"].(m)["template"] = "x" }, "spec.template", ReasonInvalidSealedSecret},
		"a label that is a number":       {func(u m) { u["spec"].(m)["template"] = m{"metadata": m{"labels": m{"a": int64(1)}}} }, "spec.template.metadata", ReasonInvalidSealedSecret},
		"a type that is a map":           {func(u m) { u["spec"].(m)["template"] = m{"type": m{"a": "b"}} }, "spec.template.type", ReasonInvalidSealedSecret},
		"immutable that is a text":       {func(u m) { u["spec"].(m)["template"] = m{"immutable": "true"} }, "spec.template.immutable", ReasonInvalidSealedSecret},
		"the key label":                  {func(u m) { u["metadata"].(m)["labels"] = m{"gitseal.io/key": "active"} }, "metadata.labels", ReasonReserved},
		"the key label in the template":  {func(u m) { u["spec"].(m)["template"] = m{"metadata": m{"labels": m{"gitseal.io/key": "active"}}} }, "metadata.labels", ReasonReserved},
		"a placeholder in the template":  {func(u m) { u["spec"].(m)["template"] = m{"metadata": m{"labels": m{"a": shapedToken}}} }, "spec.template.metadata.labels.a", ReasonPlaceholderBroken},
		"a value of SOPS, left as it is": {func(u m) { u["spec"].(m)["encryptedData"].(m)["n"] = "ENC[AES256_GCM,data:AAAA" }, "spec.encryptedData.n", ReasonStillSealed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := gateOne(t, sealedSecretOf(t, crypto.Strict, c.change), keys, Policy{})
			if len(g.Refused) != 1 || g.Refused[0].Reason != c.reason || g.Refused[0].Field != c.field {
				t.Fatalf("got %v, want %s at %s", g.Refused, c.reason, c.field)
			}
			if r := g.Refused[0]; r.Target.Kind != "Secret" || r.Target.Group != "" || !strings.HasPrefix(r.Object, "SealedSecret/") {
				t.Errorf("got target %v of %s", r.Target, r.Object)
			}
		})
	}
	if g := gateOne(t, sealedSecretOf(t, crypto.Strict, nil), nil, Policy{}); len(g.Refused) != 1 {
		t.Error("a SealedSecret passes without keys")
	}
}

func TestSealedSecretsThatDoNotOpen(t *testing.T) {
	t.Parallel()
	right, wrong := certKeyOf(t), must(otherCertKey())(t)
	for name, c := range map[string]struct {
		keys   []crypto.CertificateKey
		scope  crypto.Scope
		change func(m)
		says   []string
	}{
		"renamed":           {[]crypto.CertificateKey{right}, crypto.Strict, func(u m) { u["metadata"].(m)["name"] = "other" }, []string{"password", right.Certificate().Fingerprint()}},
		"another namespace": {[]crypto.CertificateKey{right}, crypto.NamespaceWide, func(u m) { u["metadata"].(m)["namespace"] = "evil" }, []string{"password"}},
		"another scope":     {[]crypto.CertificateKey{right}, crypto.Strict, func(u m) { u["metadata"].(m)["annotations"] = m{crypto.ClusterWideAnnotation: "true"} }, []string{"scope strict", "cluster-wide"}},
		"a scope in the template only": {[]crypto.CertificateKey{right}, crypto.NamespaceWide, func(u m) {
			delete(u["metadata"].(m), "annotations")
			u["spec"].(m)["template"] = m{"metadata": m{"annotations": m{crypto.NamespaceWideAnnotation: "true"}}}
		}, []string{"namespace-wide", "strict"}},
		"another key": {[]crypto.CertificateKey{wrong}, crypto.Strict, nil, []string{"password", wrong.Certificate().Fingerprint()}},
		"no key":      {nil, crypto.Strict, nil, []string{"no key"}},
		"bad base64 in two values": {[]crypto.CertificateKey{right}, crypto.Strict, func(u m) {
			u["spec"].(m)["encryptedData"].(m)["one"], u["spec"].(m)["encryptedData"].(m)["two"] = "!!", "??"
		}, []string{"encryptedData.one, encryptedData.two: not base64"}},
		"a value cut off": {[]crypto.CertificateKey{right}, crypto.Strict, func(u m) { u["spec"].(m)["encryptedData"].(m)["one"] = "AAAA" }, []string{"encryptedData.one"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := gateOne(t, sealedSecretOf(t, c.scope, c.change), &fakeKeys{certs: c.keys}, Policy{})
			if len(g.Objects) != 1 {
				t.Fatalf("refused: %v", g.Refused)
			}
			body, digest, err := g.Objects[0].Body(nil)
			assertNoCanary(t, err)
			var valueErr *crypto.SealedValueError
			if !errors.As(err, &valueErr) || !body.IsZero() || digest != "" {
				t.Fatalf("got %v", err)
			}
			for _, s := range c.says {
				if !strings.Contains(err.Error(), s) {
					t.Errorf("does not say %q: %v", s, err)
				}
			}
		})
	}
}

func TestInputOfASealedSecretFollowsTheKeys(t *testing.T) {
	t.Parallel()
	right, wrong := certKeyOf(t), must(otherCertKey())(t)
	u := sealedSecretOf(t, crypto.Strict, nil)
	input := func(u *unstructured.Unstructured, keys ...crypto.CertificateKey) string {
		return gateOne(t, u, &fakeKeys{certs: keys}, Policy{}).Objects[0].Input
	}
	one := input(u, right)
	if one != input(u, right) || input(u, right, wrong) != input(u, wrong, right) {
		t.Error("the same input has two digests")
	}
	again := sealedSecretOf(t, crypto.Strict, nil) // sealed again
	if one == input(u, right, wrong) || one == input(u) || one == input(again, right) {
		t.Error("another input has the same digest")
	}
}

func TestSealedSecretsAreCountedByTheKeysThatTheyNeed(t *testing.T) {
	t.Parallel()
	older, newer := certKeyOf(t), must(crypto.GenerateCertificateKey(testTime))(t)
	a, b := older.Certificate().Fingerprint(), newer.Certificate().Fingerprint()
	mixed := func(u m) {
		u["spec"].(m)["encryptedData"].(m)["new"] = sealValue(t, newer, "prod", "db", crypto.Strict, "hunter2canary")
		u["spec"].(m)["encryptedData"].(m)["too"] = sealValue(t, newer, "prod", "db", crypto.Strict, "hunter2canary")
	}
	for name, c := range map[string]struct {
		certs  []crypto.CertificateKey
		change func(m)
		want   map[string]int
	}{
		"the only key there is": {[]crypto.CertificateKey{older}, nil, map[string]int{a: 1}},
		"the older of two":      {[]crypto.CertificateKey{newer, older}, nil, map[string]int{a: 1}},
		"both":                  {[]crypto.CertificateKey{newer, older}, mixed, map[string]int{a: 1, b: 1}},
		"the place counts":      {[]crypto.CertificateKey{newer, older}, func(u m) { u["metadata"].(m)["name"] = "moved" }, map[string]int{}},
		"refused":               {[]crypto.CertificateKey{newer, older}, func(u m) { u["spec"].(m)["encryptedData"] = "x" }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := gateOne(t, sealedSecretOf(t, crypto.Strict, c.change), &fakeKeys{certs: c.certs}, Policy{}).SealedTo
			if diff := cmp.Diff(got, c.want); diff != "" {
				t.Errorf("got -, want +:\n%s", diff)
			}
		})
	}
	t.Log("what was found out is not looked for again, until the key is taken away")
	cache := NewCache()
	u := sealedSecretOf(t, crypto.Strict, nil)
	count := func(certs ...crypto.CertificateKey) map[string]int {
		return NewMasker(MaskerConfig{Keys: &fakeKeys{certs: certs}, Digester: digesterOf(t), Cache: cache}).Pass().Gate([]*unstructured.Unstructured{u}).SealedTo
	}
	third := must(crypto.GenerateCertificateKey(testTime))(t)
	for _, step := range []struct {
		certs []crypto.CertificateKey
		want  map[string]int
	}{{[]crypto.CertificateKey{newer, older}, map[string]int{a: 1}}, {[]crypto.CertificateKey{third, newer, older}, map[string]int{a: 1}}, {[]crypto.CertificateKey{third, newer}, map[string]int{}}} {
		if diff := cmp.Diff(count(step.certs...), step.want); diff != "" {
			t.Errorf("got -, want +:\n%s", diff)
		}
		if len(cache.sealed) != 1 {
			t.Errorf("%d values are known, want one", len(cache.sealed))
		}
	}
}
