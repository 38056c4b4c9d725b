package crypto

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strings"

	"github.com/getsops/sops/v3"
	"github.com/getsops/sops/v3/config"
	"github.com/getsops/sops/v3/stores/yaml"
)

// sealedText is a ciphertext as sops writes it. Nothing in it needs quoting in any of
// the formats, so it can be found and replaced as text.
var sealedText = regexp.MustCompile(`ENC\[AES256_GCM,data:[A-Za-z0-9+/=]*,iv:[A-Za-z0-9+/=]*,tag:[A-Za-z0-9+/=]*,type:[a-z]+\]`)

// inText replaces ciphertexts and metadata in the text of the file, in the ways that
// its layout may allow. Whether one of them is right is for the caller to check.
func (r resealing) inText() [][]byte {
	var out [][]byte
	for _, metadata := range metadataWriters(r.req.Format) {
		if file, ok := r.replace(metadata); ok {
			out = append(out, file)
		}
	}
	return out
}

func (r resealing) replace(metadata metadataWriter) ([]byte, bool) {
	documents := [][]byte{r.req.File}
	if r.req.Format == YAML {
		documents = splitDocuments(r.req.File)
	}
	of := make([]*sealedAnew, len(documents))
	for i, u := range r.units {
		if u.documents == nil {
			for d := range documents {
				of[d] = r.anew[i]
			}
		}
		for _, d := range u.documents {
			of[d] = r.anew[i]
		}
	}
	var out bytes.Buffer
	for d, text := range documents {
		if of[d] == nil {
			out.Write(text)
			continue
		}
		begin, end, block, ok := metadata(text, of[d].metadata)
		if !ok {
			return nil, false
		}
		out.Write(of[d].replaceIn(text[:begin]))
		out.Write(block)
		out.Write(of[d].replaceIn(text[end:]))
	}
	return out.Bytes(), true
}

func (a *sealedAnew) replaceIn(text []byte) []byte {
	return sealedText.ReplaceAllFunc(text, func(old []byte) []byte {
		if sealed, ok := a.texts[string(old)]; ok {
			return []byte(sealed)
		}
		return old
	})
}

// A metadataWriter finds the metadata in the text of one document, and writes what
// is to stand there.
type metadataWriter func(text []byte, m sops.Metadata) (begin, end int, block []byte, ok bool)

func metadataWriters(f Format) []metadataWriter {
	switch f {
	case YAML:
		return []metadataWriter{yamlBlock, jsonBlock} // JSON is YAML, too
	case Dotenv:
		return []metadataWriter{dotenvLines}
	case INI:
		return []metadataWriter{iniSection}
	default:
		return []metadataWriter{jsonBlock}
	}
}

// metadataAlone is the metadata of a file with nothing else in it.
func metadataAlone(store sops.Store, m sops.Metadata, text []byte) ([]byte, bool) {
	out, err := store.EmitEncryptedFile(sops.Tree{Branches: sops.TreeBranches{{}}, Metadata: m})
	if bytes.Contains(text, []byte("\r\n")) {
		out = bytes.ReplaceAll(out, []byte("\n"), []byte("\r\n"))
	}
	return out, err == nil
}

var (
	sopsKey     = regexp.MustCompile(`(?m)^sops:[ \t]*\r?\n`)
	nextTop     = regexp.MustCompile(`(?m)^[^ \t\r\n]`)
	firstIndent = regexp.MustCompile(`^( +)`)
)

// yamlBlock is the key sops of a document in block style.
func yamlBlock(text []byte, m sops.Metadata) (begin, end int, block []byte, ok bool) {
	key := sopsKey.FindIndex(text)
	if key == nil {
		return 0, 0, nil, false
	}
	begin, end = key[0], len(text)
	if next := nextTop.FindIndex(text[key[1]:]); next != nil {
		end = key[1] + next[0]
	}
	c := config.NewStoresConfig()
	if indent := firstIndent.Find(text[key[1]:end]); indent != nil {
		c.YAML.Indent = len(indent)
	}
	block, ok = metadataAlone(yaml.NewStore(&c.YAML), m, text)
	end, block = keepBlankEnd(text, begin, end, block)
	return begin, end, block, ok
}

// keepBlankEnd leaves empty lines behind the old block as they are.
func keepBlankEnd(text []byte, begin, end int, block []byte) (int, []byte) {
	return begin + len(bytes.TrimRight(text[begin:end], " \t\r\n")), bytes.TrimRight(block, "\r\n")
}

// jsonBlock is the value of the key sops of an object.
func jsonBlock(text []byte, m sops.Metadata) (begin, end int, block []byte, ok bool) {
	d := json.NewDecoder(bytes.NewReader(text))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return 0, 0, nil, false
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return 0, 0, nil, false
		}
		var value json.RawMessage
		if d.Decode(&value) != nil {
			return 0, 0, nil, false
		}
		if key == "sops" {
			end = int(d.InputOffset())
			begin = end - len(value)
		}
	}
	if end == 0 {
		return 0, 0, nil, false
	}
	alone, ok := metadataAlone(JSON.store(), m, nil)
	var top map[string]json.RawMessage
	if !ok || json.Unmarshal(alone, &top) != nil {
		return 0, 0, nil, false
	}
	var out bytes.Buffer
	if bytes.ContainsRune(text[begin:end], '\n') {
		unit := jsonIndent(text)
		ok = json.Indent(&out, top["sops"], unit, unit) == nil
	} else {
		ok = json.Compact(&out, top["sops"]) == nil
	}
	return begin, end, out.Bytes(), ok
}

// jsonIndent is what stands before the first key.
func jsonIndent(text []byte) string {
	_, rest, _ := strings.Cut(string(text), "{")
	line := strings.TrimLeft(rest, "\r\n")
	return line[:len(line)-len(strings.TrimLeft(line, " \t"))]
}

// dotenvLines are the lines of sops_….
func dotenvLines(text []byte, m sops.Metadata) (begin, end int, block []byte, ok bool) {
	lines := metadataLines.FindAllIndex(text, -1)
	if lines == nil {
		return 0, 0, nil, false
	}
	begin, end = lines[0][0], lines[0][1]
	for _, l := range lines[1:] {
		if l[0] != end {
			return 0, 0, nil, false // other lines between them
		}
		end = l[1]
	}
	block, ok = metadataAlone(Dotenv.store(), m, text)
	end, block = keepBlankEnd(text, begin, end, block)
	return begin, end, block, ok
}

var (
	metadataLines   = regexp.MustCompile(`(?m)^sops_[^\n]*\n?`)
	metadataSection = regexp.MustCompile(`(?m)^\[sops\][ \t]*\r?\n`)
	nextSection     = regexp.MustCompile(`(?m)^[\[;#]`)
)

// iniSection is the section [sops].
func iniSection(text []byte, m sops.Metadata) (begin, end int, block []byte, ok bool) {
	head := metadataSection.FindIndex(text)
	if head == nil {
		return 0, 0, nil, false
	}
	begin, end = head[0], len(text)
	if next := nextSection.FindIndex(text[head[1]:]); next != nil {
		end = head[1] + next[0]
	}
	block, ok = metadataAlone(INI.store(), m, text)
	if at := metadataSection.FindIndex(block); at != nil {
		block = block[at[0]:]
	}
	end, block = keepBlankEnd(text, begin, end, block)
	return begin, end, block, ok
}
