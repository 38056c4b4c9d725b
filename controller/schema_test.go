package controller

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/gitseal/gitseal/api/v1alpha1"
)

// The API server itself refuses what no agent could carry out, and says which field.
func TestTheSchemaOfSyncs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const url = "source: {url: https://git.example/x.git"
	long := strings.Repeat("x", 1100)
	for name, c := range map[string]struct{ spec, says string }{
		"the least":              {url + "}", ""},
		"ssh":                    {"source: {url: ssh://git@git.example/x.git}", ""},
		"scp":                    {"source: {url: 'git@git.example:x.git'}", ""},
		"everything":             {url + ", ref: {semver: '>=1.0.0 <2'}, secretRef: {name: s}, timeout: 30s, verify: {mode: TagAndHEAD, secretRef: {name: k}, paths: [{path: prod, secretRef: {name: p}}]}}\npath: a/b\ninterval: 1m30s\nretryInterval: 10s\ntimeout: 1h\nwait: true\nprune: false\npruneLimit: 30%\ndeletionPolicy: Orphan\ndrift: Report\nignoreFields: [{kind: Deployment, group: apps, name: web, jsonPointers: [/spec/replicas]}]\nforce: true\nsuspend: true\nserviceAccountName: d.e-f\ntargetNamespace: x\nallowProtected: true\ndependsOn: [{name: a, namespace: b}]\ndecryption: {keysFrom: {name: s}, binding: Required, mac: Warn, plaintextSecrets: Allow, outsideSecrets: Allow, sealedSecrets: PassThrough, acceptDeprecatedV1Data: true}", ""},
		"no source":              {"path: x", "spec.source: Required"},
		"no url":                 {"source: {}", "spec.source.url: Required"},
		"a file":                 {"source: {url: file:///etc}", "spec.source.url"},
		"a path":                 {"source: {url: /etc}", "spec.source.url"},
		"a password in the url":  {"source: {url: 'https://me:secret@git.example/x.git'}", "must not hold a password"},
		"another scheme":         {"source: {url: 'ftp://git.example/x.git'}", "spec.source.url"},
		"two refs":               {url + ", ref: {branch: a, tag: b}}", "only one of branch, tag, semver and commit"},
		"a full ref":             {url + ", ref: {branch: refs/heads/a}}", "without refs/heads/"},
		"a full tag":             {url + ", ref: {tag: refs/tags/a}}", "without refs/tags/"},
		"an empty branch":        {url + ", ref: {branch: ''}}", "spec.source.ref.branch"},
		"half a commit":          {url + ", ref: {commit: abc}}", "spec.source.ref.commit"},
		"no name of a Secret":    {url + ", secretRef: {}}", "spec.source.secretRef.name: Required"},
		"verify without keys":    {url + ", verify: {}}", "spec.source.verify.secretRef: Required"},
		"verify in another mode": {url + ", verify: {mode: head, secretRef: {name: k}}}", "spec.source.verify.mode"},
		"a path rule's keys":     {url + ", verify: {secretRef: {name: k}, paths: [{path: prod}]}}", "spec.source.verify.paths[0].secretRef: Required"},
		"out of the repository":  {url + "}\npath: a/../../b", "must stay inside of the repository"},
		"a long path":            {url + "}\npath: " + long, "spec.path"},
		"no duration":            {url + "}\ninterval: soon", "spec.interval"},
		"too often":              {url + "}\ninterval: 10ms", "interval must be one second or more"},
		"too eager":              {url + "}\nretryInterval: 0s", "retryInterval must be one second or more"},
		"no time":                {url + "}\ntimeout: 0s", "timeout must be one second or more"},
		"no time for git":        {url + ", timeout: 1ms}", "timeout must be one second or more"},
		"no limit":               {url + "}\npruneLimit: many", "spec.pruneLimit"},
		"another deletion":       {url + "}\ndeletionPolicy: Keep", "spec.deletionPolicy"},
		"another drift":          {url + "}\ndrift: correct", "spec.drift"},
		"a field of no kind":     {url + "}\nignoreFields: [{jsonPointers: [/a]}]", "spec.ignoreFields[0].kind: Required"},
		"no pointer":             {url + "}\nignoreFields: [{kind: X, jsonPointers: []}]", "spec.ignoreFields[0].jsonPointers"},
		"no JSON pointer":        {url + "}\nignoreFields: [{kind: X, jsonPointers: [a]}]", "spec.ignoreFields[0].jsonPointers[0]"},
		"no account":             {url + "}\nserviceAccountName: 'a b'", "spec.serviceAccountName"},
		"no namespace":           {url + "}\ntargetNamespace: A", "spec.targetNamespace"},
		"nobody to wait for":     {url + "}\ndependsOn: [{}]", "spec.dependsOn[0].name: Required"},
		"another binding":        {url + "}\ndecryption: {binding: None}", "spec.decryption.binding"},
		"another mac":            {url + "}\ndecryption: {mac: Ignore}", "spec.decryption.mac"},
		"another plaintext":      {url + "}\ndecryption: {plaintextSecrets: allow}", "spec.decryption.plaintextSecrets"},
		"another outside":        {url + "}\ndecryption: {outsideSecrets: Warn}", "spec.decryption.outsideSecrets"},
		"another sealed secrets": {url + "}\ndecryption: {sealedSecrets: Both}", "spec.decryption.sealedSecrets"},
		"a field that is none":   {url + "}\nintervall: 1m", "unknown field \"spec.intervall\""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "gitseal.io/v1alpha1", "kind": "Sync", "metadata": map[string]any{"name": "s", "namespace": w.team}}}
			spec := map[string]any{}
			if err := yaml.Unmarshal([]byte(c.spec), &spec); err != nil {
				t.Fatal(err)
			}
			o.Object["spec"] = spec
			err := w.admin.Create(t.Context(), o, client.DryRunAll, client.FieldValidation(metav1.FieldValidationStrict))
			switch {
			case c.says == "" && err != nil:
				t.Errorf("got %v, want it to be let in", err)
			case c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)):
				t.Errorf("got %v, want %s", err, c.says)
			}
		})
	}
	t.Run("a name that is too long", func(t *testing.T) {
		s := &v1alpha1.Sync{ObjectMeta: metav1.ObjectMeta{Namespace: w.team, Name: strings.Repeat("n", 64)}, Spec: v1alpha1.SyncSpec{Source: v1alpha1.Source{URL: w.url()}}}
		if err := w.admin.Create(t.Context(), s, client.DryRunAll); err == nil || !strings.Contains(err.Error(), "63 characters") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("defaults", func(t *testing.T) {
		s := &v1alpha1.Sync{ObjectMeta: metav1.ObjectMeta{Namespace: w.team, Name: "defaults"}, Spec: v1alpha1.SyncSpec{Source: v1alpha1.Source{URL: w.url()}}}
		if err := w.admin.Create(t.Context(), s, client.DryRunAll); err != nil {
			t.Fatal(err)
		}
		if got := s.Spec; got.Interval.Duration.String() != "1m0s" || got.Timeout.Duration.String() != "5m0s" || got.Source.Timeout.Duration.String() != "1m0s" || got.Prune == nil || !*got.Prune || got.Drift != "Correct" {
			t.Errorf("got %+v", got)
		}
	})
}
