// Package version says what was built.
package version

import (
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"sigs.k8s.io/yaml"
)

// Set by the Makefile with -ldflags -X.
var (
	number = "dev"
	commit = ""
	date   = ""
)

// Info is what `version -o json` prints.
type Info struct {
	Version   string `json:"version"`
	Commit    string `json:"commit,omitempty"`
	Date      string `json:"date,omitempty"` // of the commit, RFC 3339
	GoVersion string `json:"goVersion"`
	Platform  string `json:"platform"`
}

// Get returns the build's data, from the linker or from Go's own record.
func Get() Info {
	i := Info{Version: number, Commit: commit, Date: date, GoVersion: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if b, ok := debug.ReadBuildInfo(); ok && i.Commit == "" {
		for _, s := range b.Settings {
			switch s.Key {
			case "vcs.revision":
				i.Commit = s.Value
			case "vcs.time":
				i.Date = s.Value
			}
		}
	}
	return i
}

// Print writes the version as text, json or yaml.
func Print(w io.Writer, output string) error {
	i := Get()
	var b []byte
	var err error
	switch output {
	case "json":
		if b, err = json.MarshalIndent(i, "", "  "); err == nil {
			b = append(b, '\n')
		}
	case "yaml":
		b, err = yaml.Marshal(i)
	case "":
		b = []byte(fmt.Sprintf("%s %s %s %s\n", i.Version, i.Commit, i.GoVersion, i.Platform))
	default:
		return fmt.Errorf("output %q is not json or yaml", output)
	}
	if err != nil {
		return err
	}
	_, err = w.Write(b)
	return err
}
