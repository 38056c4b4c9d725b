package image

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// bom is what we look at of a CycloneDX document: https://cyclonedx.org/docs/1.6/json/
type bom struct {
	BOMFormat, SpecVersion, SerialNumber string
	Metadata                             struct {
		Timestamp  string
		Component  component
		Properties []struct{ Name, Value string }
	}
	Components []component
}

type component struct{ Name, Version, PURL string }

// TestTheSBOMIsTheBinary compares it with what Go has recorded in the binary.
func TestTheSBOMIsTheBinary(t *testing.T) {
	root, _ := makeImage(t)
	for name, program := range map[string]string{"seal": filepath.Join(root, "bin/seal"), "agent": filepath.Join(root, "bin/agent"), "the image's agent": binary(root)} {
		t.Run(name, func(t *testing.T) {
			var b bom
			read(t, program+".cdx.json", &b)
			if b.BOMFormat != "CycloneDX" || b.SpecVersion != "1.6" {
				t.Errorf("format %q %q", b.BOMFormat, b.SpecVersion)
			}
			if b.SerialNumber != "" || b.Metadata.Timestamp != "" {
				t.Error("it has a serial number or a time: no two are the same")
			}
			info, err := buildinfo.ReadFile(program)
			if err != nil {
				t.Fatal(err)
			}
			want := map[component]int{{"std", info.GoVersion, ""}: 1}
			for _, m := range info.Deps {
				if m.Replace != nil {
					m = m.Replace
				}
				want[component{Name: m.Path, Version: m.Version}]++
			}
			if len(want) < 50 {
				t.Fatalf("only %d modules: the test looks at the wrong thing", len(want))
			}
			got := map[component]int{}
			for _, c := range b.Components {
				if url, _, _ := strings.Cut(c.PURL, "?"); url != "pkg:golang/"+c.Name+"@"+strings.ReplaceAll(c.Version, "+", "%2B") {
					t.Errorf("%s %s has the URL %q", c.Name, c.Version, c.PURL)
				}
				got[component{Name: c.Name, Version: c.Version}]++
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("modules (-want, of the binary, +got):\n%s", diff)
			}
			if b.Metadata.Component.Name != info.Main.Path || b.Metadata.Component.Version != runVersion(t, program).Version {
				t.Errorf("it is about %+v", b.Metadata.Component)
			}
			content, err := os.ReadFile(program)
			if err != nil {
				t.Fatal(err)
			}
			hash := sha256.Sum256(content)
			for _, p := range b.Metadata.Properties {
				if p.Name == "cdx:gomod:binary:hash:SHA-256" && p.Value == hex.EncodeToString(hash[:]) {
					return
				}
			}
			t.Error("it is about another binary: the hash is not there")
		})
	}
}
