package decrypt

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"

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
		value, err := m.putBackData(text)
		if err != nil {
			return fmt.Errorf("data.%s %w", key, err)
		}
		data[key] = value
	}
	return nil
}

// putBackData works in the order of DESIGN.md section 4: a token that stands
// for base64 text, whole masked content, tokens within the decoded text.
func (m *Masked) putBackData(text string) (string, error) {
	var found []string
	if tokenPattern.MatchString(text) {
		out, err := m.values.putBack(text, &found)
		if err != nil {
			return "", err
		}
		out = whiteSpace.Replace(out)
		if _, err := base64.StdEncoding.DecodeString(out); err != nil {
			return "", fmt.Errorf("is not base64 once %s is opened; seal it as stringData, or encode it before sealing", m.values.file(found[0]))
		}
		return out, nil
	}
	plain, err := base64.StdEncoding.DecodeString(whiteSpace.Replace(text))
	if err != nil {
		return "", fmt.Errorf("is not valid base64")
	}
	opened, err := m.putBackText(string(plain))
	if err != nil {
		return "", err
	}
	return base64.StdEncoding.EncodeToString([]byte(opened)), nil
}

func (m *Masked) putBackText(text string) (string, error) {
	w, ok, err := m.values.wholeOf(text)
	if err != nil {
		return "", err
	}
	if ok {
		return string(w.plain.Reveal()), nil
	}
	var found []string
	if strings.Contains(text, openedHead) || strings.Contains(text, unopenedHead) {
		return m.values.putBack(text, &found)
	}
	// A replacement may have copied generated data, base64 of a token, into
	// stringData.
	if findEncodedToken(text) != "" {
		if inner, err := base64.StdEncoding.DecodeString(whiteSpace.Replace(text)); err == nil {
			opened, err := m.putBackText(string(inner))
			if err != nil {
				return "", err
			}
			return base64.StdEncoding.EncodeToString([]byte(opened)), nil
		}
		return "", errFragment
	}
	return text, nil
}
