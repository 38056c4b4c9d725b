package crypto

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/gitseal/gitseal/test/corpus"
)

// maxScan is far more than the largest file that the fuzzer makes may take.
const maxScan = 20 * time.Second

// FuzzCheckYAML: what it lets through can be expanded within the limits, and
// finding out takes bounded time.
func FuzzCheckYAML(f *testing.F) {
	c := corpus.Of(f)
	f.Fuzz(func(t *testing.T, file []byte) {
		start := time.Now()
		err := CheckYAML(file)
		if took := time.Since(start); took > maxScan {
			t.Errorf("%d bytes took %s", len(file), took)
		}
		var limit *LimitError
		var format *FormatError
		switch {
		case errors.As(err, &limit):
			c.Saw("a limit")
			return
		case errors.As(err, &format):
			c.Saw("not readable")
			hides(t, err, sealedCanary)
			return
		case err != nil:
			t.Fatalf("%T: %v", err, err)
		}
		c.Saw("fine")
		leaves := 0
		for d := yaml.NewDecoder(bytes.NewReader(file)); ; {
			var doc yaml.Node
			if err := d.Decode(&doc); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("it is let through and can not be read: %v", err)
			}
			n, depth := expanded(&doc, 0)
			if leaves += n; leaves > MaxSealedLeaves+len(file) || depth > 10*MaxSealedDepth+1 {
				t.Errorf("%d values, %d levels", leaves, depth)
			}
		}
	})
	c.Reached("a limit", "not readable", "fine")
}

// expanded counts values, with aliases as often as they are used, and levels.
func expanded(n *yaml.Node, depth int) (leaves, deepest int) {
	if n.Kind == yaml.AliasNode {
		return expanded(n.Alias, depth)
	}
	if n.Kind == yaml.ScalarNode {
		return 1, depth
	}
	deepest = depth
	for i, c := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 0 {
			continue
		}
		l, d := expanded(c, depth+1)
		leaves, deepest = leaves+l, max(deepest, d)
	}
	return leaves, deepest
}

// FuzzSealManifests: of what somebody hands to kubeseal's place, no error shows a
// value, and each that is sealed opens again.
func FuzzSealManifests(f *testing.F) {
	c := corpus.Of(f)
	key := fixedCertificateKey(f)
	f.Fuzz(func(t *testing.T, plain []byte, scope, namespace, name string, none bool) {
		if s, err := ParseScope(scope); err != nil && scope != "" || len(plain) > 1<<14 {
			return
		} else if s == "" {
			c.Saw("scope of the manifest")
		}
		got, err := SealManifests(SealManifestRequest{Plain: NewSecret(bytes.Clone(plain)), Cert: key.Certificate(), Scope: Scope(scope), Namespace: namespace, Name: name, AllowNone: none, Now: testTime})
		docs, docErr := Documents(NewSecret(bytes.Clone(plain)), YAML)
		if docErr != nil {
			hides(t, docErr, sealedCanary)
			if docs != nil && err == nil {
				t.Errorf("sealed although it can not be read: %v", docErr)
			}
		}
		if err != nil {
			c.Saw("an error")
			hides(t, err, sealedCanary)
			return
		}
		c.Saw("sealed")
		for _, s := range got {
			meta := s["metadata"].(map[string]any)
			ns, _ := meta["namespace"].(string)
			annotations := map[string]string{}
			if a, ok := meta["annotations"].(map[string]any); ok {
				for k, v := range a {
					annotations[k] = v.(string)
				}
			}
			for k, v := range s["spec"].(map[string]any)["encryptedData"].(map[string]any) {
				if _, err := OpenValue(OpenValueRequest{Keys: []CertificateKey{key}, Target: Target{ns, meta["name"].(string), ScopeOf(annotations)}, Text: v.(string)}); err != nil {
					t.Errorf("%q does not open: %v", k, err)
				}
			}
		}
	})
	c.Reached("an error", "sealed")
}
