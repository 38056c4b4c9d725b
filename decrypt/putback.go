package decrypt

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

type fieldError struct{ field, what string }

// secretValues merges data and stringData, which wins, into base64 texts.
// Numbers and booleans in stringData become their text, which is what people
// mean; the API server would refuse them.
func secretValues(u *unstructured.Unstructured) (map[string]any, *fieldError) {
	out := map[string]any{}
	switch data := u.Object["data"].(type) {
	case nil:
	case map[string]any:
		for k, v := range data {
			switch v := v.(type) {
			case nil:
				out[k] = ""
			case string:
				out[k] = v
			default:
				return nil, &fieldError{"data." + k, "is not base64 text; did you mean stringData?"}
			}
		}
	default:
		return nil, &fieldError{"data", "is not a map"}
	}
	switch data := u.Object["stringData"].(type) {
	case nil:
	case map[string]any:
		for k, v := range data {
			text, ok := scalarText(v)
			if !ok {
				return nil, &fieldError{"stringData." + k, "is not a text"}
			}
			out[k] = base64.StdEncoding.EncodeToString([]byte(text))
		}
	default:
		return nil, &fieldError{"stringData", "is not a map"}
	}
	return out, nil
}

func scalarText(v any) (string, bool) {
	switch v := v.(type) {
	case nil:
		return "", true
	case string:
		return v, true
	case bool:
		return strconv.FormatBool(v), true
	case int64:
		return strconv.FormatInt(v, 10), true
	case float64:
		return strconv.FormatFloat(v, 'g', -1, 64), true
	default:
		return "", false
	}
}

// putBackSecret replaces the tokens in a Secret's data by what they stand for.
func (m *Masked) putBackSecret(u *unstructured.Unstructured) error {
	data, _ := u.Object["data"].(map[string]any)
	for _, key := range sortedKeys(data) {
		text, _ := data[key].(string)
		r := resolver{values: m.values, reveal: true}
		value, err := r.data(text)
		if err != nil {
			return fmt.Errorf("data.%s %w", key, err)
		}
		data[key] = value
	}
	return nil
}

// resolver puts values back into one field. The gate walks the same way without
// reveal, so that it judges exactly the tokens that Body would resolve.
type resolver struct {
	values *values
	reveal bool
	tokens []string // in the order in which they were met
	whole  []string // digests of the whole files that were met
}

var errNotBase64 = errors.New("is not valid base64; did you mean stringData?")

// data works in the order of DESIGN.md section 4: a token that stands for
// base64 text, whole masked content, tokens within the decoded text.
func (r *resolver) data(text string) (string, error) {
	if kind := r.values.sealed[text].kind; kind != "" && kind != "str" {
		return "", errNotBase64 // the API server would refuse the number that it was
	}
	if headPattern.MatchString(text) {
		out, err := r.replace(text)
		if err != nil || !r.reveal {
			return "", err
		}
		out = whiteSpace.Replace(out)
		if _, err := base64.StdEncoding.DecodeString(out); err != nil {
			return "", fmt.Errorf("is not base64 once %s is opened; seal it as stringData, or encode it before sealing", r.values.file(r.tokens[0]))
		}
		return out, nil
	}
	plain, err := base64.StdEncoding.DecodeString(whiteSpace.Replace(text))
	if err != nil {
		return "", errNotBase64
	}
	opened, err := r.text(string(plain))
	if err != nil {
		return "", err
	}
	return base64.StdEncoding.EncodeToString([]byte(opened)), nil
}

func (r *resolver) text(text string) (string, error) {
	w, ok, err := r.values.wholeOf(text)
	if err != nil {
		return "", err
	}
	if ok {
		r.tokens = append(r.tokens, tokenPattern.FindAllString(text, -1)...)
		r.whole = append(r.whole, w.digest)
		if !r.reveal {
			return "", nil
		}
		return string(w.plain.Reveal()), nil
	}
	if headPattern.MatchString(text) {
		return r.replace(text)
	}
	// A replacement may have copied generated data, base64 of a token, into
	// stringData.
	if findEncodedToken(text) == "" {
		return text, nil
	}
	inner, err := base64.StdEncoding.DecodeString(whiteSpace.Replace(text))
	if err != nil {
		return "", errEncoded
	}
	before := len(r.tokens)
	opened, err := r.text(string(inner))
	if err != nil {
		return "", err
	}
	if len(r.tokens) == before { // the token is there, but not at this alignment
		return "", errEncoded
	}
	return base64.StdEncoding.EncodeToString([]byte(opened)), nil
}

// replace puts a value into the place of each token, and refuses what is left
// of others.
func (r *resolver) replace(text string) (string, error) {
	var err error
	open := func(token string) string {
		r.tokens = append(r.tokens, token)
		value, ok := r.values.sealed[token]
		if !ok && err == nil {
			err = r.values.unresolved(token)
		}
		if !ok || !r.reveal {
			return ""
		}
		return string(value.text.Reveal())
	}
	if _, ok := r.values.sealed[text]; ok { // most often it is one token and nothing else
		return open(text), nil
	}
	rest := tokenPattern.ReplaceAllString(text, "|")
	switch {
	case headPattern.MatchString(rest):
		return "", errFragment
	case findEncodedToken(rest) != "":
		return "", errEncoded
	}
	out := tokenPattern.ReplaceAllStringFunc(text, open)
	if err != nil {
		return "", err
	}
	if r.reveal && rest != "|" && !r.keepsStructure(text, out) {
		return "", errStructure
	}
	return out, nil
}

// keepsStructure reports whether a text that is YAML or JSON itself still says
// the same with the values in it: they are put in as they are, and one with a
// quote or a line break in it would end the string it stands in.
func (r *resolver) keepsStructure(masked, opened string) bool {
	before, ok := documents(masked)
	if !ok {
		return true
	}
	after, ok := documents(opened)
	return ok && reflect.DeepEqual(r.substitute(before), any(after))
}

// documents decodes a text that is made of maps or lists; anything else is
// plain text, where nothing can be broken.
func documents(text string) ([]any, bool) {
	var out []any
	for d := yaml.NewDecoder(strings.NewReader(text)); ; {
		var doc any
		switch err := d.Decode(&doc); {
		case errors.Is(err, io.EOF):
			return out, len(out) > 0
		case err != nil:
			return nil, false
		}
		switch doc.(type) {
		case map[string]any, []any:
			out = append(out, doc)
		default:
			return nil, false
		}
	}
}

func (r *resolver) substitute(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, item := range v {
			out[r.substituteText(k)] = r.substitute(item)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, item := range v {
			out[i] = r.substitute(item)
		}
		return out
	case string:
		return r.substituteText(v)
	default:
		return v
	}
}

func (r *resolver) substituteText(text string) string {
	return tokenPattern.ReplaceAllStringFunc(text, func(token string) string { return string(r.values.sealed[token].text.Reveal()) })
}
