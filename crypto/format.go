package crypto

import (
	"bytes"
	stdjson "encoding/json"
	"regexp"

	"github.com/getsops/sops/v3"
	"github.com/getsops/sops/v3/cmd/sops/formats"
	"github.com/getsops/sops/v3/config"
	"github.com/getsops/sops/v3/stores/dotenv"
	"github.com/getsops/sops/v3/stores/ini"
	"github.com/getsops/sops/v3/stores/json"
	"github.com/getsops/sops/v3/stores/yaml"
)

// Format is one of the file formats of sops.
type Format string

// The formats, chosen by the file's name as stock sops does.
const (
	YAML   Format = "yaml"
	JSON   Format = "json"
	Dotenv Format = "dotenv"
	INI    Format = "ini"
	Binary Format = "binary"
)

var sopsFormats = map[Format]formats.Format{
	YAML: formats.Yaml, JSON: formats.Json, Dotenv: formats.Dotenv, INI: formats.Ini, Binary: formats.Binary,
}

// FormatOf returns the format that stock sops would use for a file of this
// name; everything it does not know is Binary.
func FormatOf(path string) Format {
	f := formats.FormatForPath(path)
	for ours, theirs := range sopsFormats {
		if theirs == f {
			return ours
		}
	}
	return Binary
}

// FormatOfFile is FormatOf, but where the name says nothing it goes by the
// content of a sealed file: people call a sealed dotenv file a.env.encrypted,
// as Flux' documentation does.
func FormatOfFile(path string, sealed []byte) Format {
	if f := FormatOf(path); f != Binary {
		return f
	}
	text := bytes.TrimSpace(sealed)
	switch {
	case bytes.HasPrefix(text, []byte("{")):
		var top map[string]stdjson.RawMessage
		if stdjson.Unmarshal(text, &top) == nil && top["sops"] != nil && (len(top) != 2 || top["data"] == nil) {
			return JSON
		}
		return Binary // {"data": …, "sops": …}
	case yamlMetadata.Match(text):
		return YAML
	case iniMetadata.Match(text):
		return INI
	case dotenvMetadata.Match(text):
		return Dotenv
	default:
		return Binary
	}
}

var (
	yamlMetadata   = regexp.MustCompile(`(?m)^sops:\s*$`)
	iniMetadata    = regexp.MustCompile(`(?m)^\[sops\]\s*$`)
	dotenvMetadata = regexp.MustCompile(`(?m)^sops_(?:mac|version)=`)
)

func (f Format) store() sops.Store {
	c := config.NewStoresConfig()
	switch f {
	case YAML:
		return yaml.NewStore(&c.YAML)
	case JSON:
		return json.NewStore(&c.JSON)
	case Dotenv:
		return dotenv.NewStore(&c.Dotenv)
	case INI:
		return ini.NewStore(&c.INI)
	default:
		return json.NewBinaryStore(&c.JSONBinary)
	}
}

// sopsVersion goes into the metadata of files that we write: the version of
// the library that go.mod names (a test compares them). The library's own
// constant sits in a package that pulls in its command line.
const sopsVersion = "3.13.3"
