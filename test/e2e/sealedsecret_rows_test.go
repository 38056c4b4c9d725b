package e2e

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// sealedRow is one SealedSecret: a Secret that kubeseal seals, then edited by
// hand. It is given to the controller of sealed-secrets, and then to the agent.
type sealedRow struct {
	values    map[string]string // of the Secret
	binary    map[string]string // the same, given to kubeseal as data
	secret    map[string]any    // more of the Secret, such as type
	meta      map[string]any    // more of its metadata
	args      []string          // of kubeseal
	older     bool              // sealed to the first key of the controller, not to the newest
	foreign   bool              // sealed to a key that nobody has
	sealedAs  string            // name at sealing; that of the row if empty
	sealedIn  string            // namespace at sealing; that of the row if empty
	namespace string            // that of the application if empty
	edit      func(cr map[string]any)
	templates map[string]string // spec.template.data

	existing *corev1.Secret // in the cluster before, made by another program

	// want is what the Secret holds. Where it is nil it is what was sealed, and
	// with templates whatever the controller makes.
	want map[string]string
	// instead is what the Secret holds that the agent makes, where the controller
	// is at fault.
	instead map[string]string
	// complains is a part of what the controller says although it made the Secret.
	complains string
	// fails is a part of what the controller says when it makes no Secret.
	fails string
	// refused is a part of what the API server says to the SealedSecret, which
	// therefore no controller gets to see. Where instead is set, the agent takes it.
	refused string
	// random values are of the same length only.
	random map[string]bool
	// deprecated rows need --accept-deprecated-v1-data.
	deprecated bool
}

// put sets a field of an object; the value nil is kept.
func put(cr map[string]any, value any, path ...string) {
	if err := unstructured.SetNestedField(cr, value, path...); err != nil {
		panic(err)
	}
}

// drop removes a field of an object.
func drop(cr map[string]any, path ...string) { unstructured.RemoveNestedField(cr, path...) }

func encrypted(cr map[string]any, key string) string {
	s, _, err := unstructured.NestedString(cr, "spec", "encryptedData", key)
	if err != nil {
		panic(err)
	}
	return s
}

// flip changes one bit of what a base64 text stands for.
func flip(text string, at int) string {
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		panic(err)
	}
	b[(at+len(b))%len(b)] ^= 1
	return base64.StdEncoding.EncodeToString(b)
}

const (
	scopeNamespace = "sealedsecrets.bitnami.com/namespace-wide"
	scopeCluster   = "sealedsecrets.bitnami.com/cluster-wide"
)

var namespaceWide, clusterWide = []string{"--scope", "namespace-wide"}, []string{"--scope", "cluster-wide"}

// nobodyKnows is part of what the controller says of whatever does not open.
const nobodyKnows = "no key could decrypt secret"

// sealedRows returns the table. other is a second namespace; secret is a value
// that is found nowhere else.
func sealedRows(e *sealedEnv, cert, other, secret string) map[string]sealedRow {
	password := `p'q"<&>\` + secret
	pair := map[string]string{"password": password, "user": "user of " + secret}
	one := map[string]string{"password": password}
	rows := map[string]sealedRow{
		"strict":                              {values: pair},
		"namespace-wide":                      {values: pair, args: namespaceWide},
		"cluster-wide":                        {values: pair, args: clusterWide},
		"namespace-wide, renamed":             {values: pair, args: namespaceWide, sealedAs: "other-name"},
		"cluster-wide, renamed":               {values: pair, args: clusterWide, sealedAs: "other-name"},
		"cluster-wide, moved":                 {values: pair, args: clusterWide, sealedAs: "other-name", namespace: other, sealedIn: e.app},
		"cluster-wide wins over the narrower": {values: one, args: clusterWide, edit: func(cr map[string]any) { put(cr, "true", "metadata", "annotations", scopeNamespace) }},
		"an annotation that says false":       {values: one, edit: func(cr map[string]any) { put(cr, "false", "metadata", "annotations", scopeCluster) }},
		"an annotation that says True":        {values: one, edit: func(cr map[string]any) { put(cr, "True", "metadata", "annotations", scopeCluster) }},
		"the template claims another scope": {values: one, edit: func(cr map[string]any) {
			put(cr, "true", "spec", "template", "metadata", "annotations", scopeCluster)
		}},

		"labels and annotations": {values: one, meta: map[string]any{
			"labels":      map[string]any{"app": "shop", "empty": "", "example.com/tier": "a.b_c"},
			"annotations": map[string]any{"note": "two\nlines: ünï ☃\n", "empty": "", "json": `{"a": "b"}`, "looks-like-a-boolean": "true"},
		}},
		"labels and annotations of the SealedSecret itself": {values: one, edit: func(cr map[string]any) {
			put(cr, "of the SealedSecret", "metadata", "annotations", "note")
			put(cr, "custom-resource", "metadata", "labels", "app")
		}},
		"annotation managed":        {values: one, meta: annotated("sealedsecrets.bitnami.com/managed")},
		"annotation patch":          {values: one, meta: annotated("sealedsecrets.bitnami.com/patch")},
		"annotations managed, skip": {values: one, meta: annotated("sealedsecrets.bitnami.com/managed", "sealedsecrets.bitnami.com/skip-set-owner-references")},
		"annotation skip": {values: one, meta: annotated("sealedsecrets.bitnami.com/skip-set-owner-references"),
			complains: "already exists and is not managed by SealedSecret"},
		"template with another name and namespace": {values: one, edit: func(cr map[string]any) {
			put(cr, "another", "spec", "template", "metadata", "name")
			put(cr, other, "spec", "template", "metadata", "namespace")
		}},
		"template with metadata of a living object": {values: one, edit: func(cr map[string]any) {
			put(cr, "2020-01-01T00:00:00Z", "spec", "template", "metadata", "creationTimestamp")
			put(cr, "0000", "spec", "template", "metadata", "uid")
			put(cr, "generated-", "spec", "template", "metadata", "generateName")
		}},

		"type tls":              {values: map[string]string{"tls.crt": "certificate of " + secret, "tls.key": "key of " + secret}, secret: map[string]any{"type": "kubernetes.io/tls"}},
		"type dockerconfigjson": {values: map[string]string{".dockerconfigjson": `{"auths":{"registry.example":{"auth":"` + base64.StdEncoding.EncodeToString([]byte(secret)) + `"}}}`}, secret: map[string]any{"type": "kubernetes.io/dockerconfigjson"}},
		"type basic-auth":       {values: map[string]string{"username": "me", "password": password}, secret: map[string]any{"type": "kubernetes.io/basic-auth"}},
		"type custom":           {values: one, secret: map[string]any{"type": "example.com/custom"}},
		"immutable":             {values: one, secret: map[string]any{"immutable": true}},
		"immutable false":       {values: one, secret: map[string]any{"immutable": false}},

		"two keys, sealed to the older": {values: pair, older: true},
		"two keys, one value each": {values: pair, edit: func(cr map[string]any) {
			put(cr, e.sealRaw(e.home+"/older.pem", e.app, "two-keys-one-value-each", "by the older "+secret), "spec", "encryptedData", "older")
		}, want: with(pair, "older", "by the older "+secret)},
		"values of two keys swapped": {values: pair, edit: func(cr map[string]any) {
			a, b := encrypted(cr, "password"), encrypted(cr, "user")
			put(cr, b, "spec", "encryptedData", "password")
			put(cr, a, "spec", "encryptedData", "user")
		}, want: map[string]string{"password": pair["user"], "user": password}},

		"binary values":      {binary: map[string]string{"bytes": allBytes(), "zero": "\x00", "invalid": "a\xffb\xc0\xaf" + secret}},
		"empty values":       {values: map[string]string{"empty": "", "password": password}},
		"lines and blanks":   {values: map[string]string{"crlf": "one\r\ntwo\r\n", "tabs": "\ta\t", "blanks": "  ", "newline": "\n", "unicode": "ünï ☃ 日本 🙂", "bom": "\ufeffx"}},
		"texts that mislead": {values: map[string]string{"yes": "yes", "null": "null", "number": "0123", "tilde": "~", "tag": "!!binary x", "braces": "{{ .password }}", "base64": "aGVsbG8="}},
		"a long value":       {values: map[string]string{"long": secret + strings.Repeat("0123456789", 10_000)}},
		"many values":        {values: many(secret)},
		"keys of all forms":  {values: map[string]string{".dot": "1", "_under": "2", "UPPER-case.ext": "3", "a.b.c": "4", "a..b": "5", "0": "6", strings.Repeat("k", 253): "7"}},
		"no values at all":   {args: []string{"--allow-empty-data"}, want: map[string]string{}},

		"template: null":          {values: one, edit: func(cr map[string]any) { put(cr, nil, "spec", "template") }},
		"template missing":        {values: one, edit: func(cr map[string]any) { drop(cr, "spec", "template") }},
		"template: {}":            {values: one, edit: func(cr map[string]any) { put(cr, map[string]any{}, "spec", "template") }},
		"template.metadata: null": {values: one, edit: func(cr map[string]any) { put(cr, nil, "spec", "template", "metadata") }},
		"template.data: null":     {values: one, edit: func(cr map[string]any) { put(cr, nil, "spec", "template", "data") }},
		"template.data: {}":       {values: one, edit: func(cr map[string]any) { put(cr, map[string]any{}, "spec", "template", "data") }},
		"labels: null":            {values: one, edit: func(cr map[string]any) { put(cr, nil, "spec", "template", "metadata", "labels") }},
		"type: empty":             {values: one, edit: func(cr map[string]any) { put(cr, "", "spec", "template", "type") }},
		"a status from elsewhere": {values: one, edit: func(cr map[string]any) {
			put(cr, map[string]any{"observedGeneration": int64(7)}, "status")
		}},
		"fields that nobody knows": {values: one, edit: func(cr map[string]any) {
			put(cr, "x", "spec", "unknown")
			put(cr, map[string]any{"ignored": "x"}, "spec", "template", "stringData")
		}},
	}
	maps.Copy(rows, existingRows(pair))
	maps.Copy(rows, templateRows(pair, password, secret))
	maps.Copy(rows, deprecatedRows(e, cert, secret))
	maps.Copy(rows, failingRows(other, pair, one))
	return rows
}

const managed, patch = "sealedsecrets.bitnami.com/managed", "sealedsecrets.bitnami.com/patch"

// existingSecret is one of another program.
func existingSecret(annotations ...string) *corev1.Secret {
	s := secretObject("", map[string][]byte{"old": []byte("an old value"), "user": []byte("an old user")})
	s.Labels = map[string]string{"old": "label", "app": "old"}
	s.Annotations = map[string]string{"old": "annotation", "note": "old"}
	for _, a := range annotations {
		s.Annotations[a] = "true"
	}
	return s
}

// overExisting is metadata that changes some of an existingSecret's.
func overExisting(annotations ...string) map[string]any {
	m := annotated(annotations...)
	m["labels"] = map[string]any{"app": "shop"}
	m["annotations"].(map[string]any)["note"] = "new"
	return m
}

// existingRows find a Secret in their place.
func existingRows(pair map[string]string) map[string]sealedRow {
	existing, meta := existingSecret, overExisting
	bare := secretObject("", nil)
	bare.Annotations = map[string]string{patch: "true"}
	merged := with(pair, "old", "an old value")
	return map[string]sealedRow{
		"a Secret that is managed":                   {values: pair, existing: existing(managed), meta: meta(managed)},
		"a Secret that is managed, and then not":     {values: pair, existing: existing(managed), meta: meta()},
		"a Secret that is patched":                   {values: pair, existing: existing(patch), meta: meta(patch), want: merged},
		"a Secret that is patched, and then not":     {values: pair, existing: existing(patch), meta: meta(), want: merged},
		"a Secret that is patched, without data":     {values: pair, existing: bare, meta: meta(patch)},
		"a Secret that is managed and patched":       {values: pair, existing: existing(managed, patch), meta: meta(managed, patch), want: merged},
		"a Secret that is managed, without metadata": {values: pair, existing: existing(managed)},
	}
}

// templateRows are those with spec.template.data.
func templateRows(pair map[string]string, password, secret string) map[string]sealedRow {
	quoted, err := json.Marshal(password)
	if err != nil {
		panic(err)
	}
	foo := map[string]string{"foo": "foo of " + secret}
	long := secret + "\n"
	for i := range 3000 {
		long += fmt.Sprintf("  line %d\n", i)
	}
	return map[string]sealedRow{
		"template: index": {values: foo, templates: map[string]string{"bar": `secret {{ index . "foo" }} value`},
			want: with(foo, "bar", "secret foo of "+secret+" value")},
		"template: toJson of quotes": {values: pair, templates: map[string]string{"conf.json": `{"user":"x","password":{{ toJson .password }}}`},
			want: with(pair, "conf.json", `{"user":"x","password":`+string(quoted)+`}`)},
		"template: a missing key": {values: foo, templates: map[string]string{
			"field": "[{{ .missing }}]", "index": `[{{ index . "missing" }}]`, "default": `[{{ default "x" .missing }}]`, "if": `{{ if .missing }}yes{{ else }}no{{ end }}`,
			"print": "{{ print .missing }}", "quote": "{{ quote .missing }}", "json": "{{ toJson .missing }}", "empty": "{{ empty .missing }}", "hasKey": `{{ kindOf .missing }}`,
		}, want: with(foo, "field", "[<no value>]", "index", "[]", "default", "[x]", "if", "no", "print", "<nil>", "quote", "", "json", "null", "empty", "true", "hasKey", "invalid")},
		"template overrides a value": {values: pair, templates: map[string]string{"password": "not {{ .user }}"}, want: map[string]string{"password": "not " + pair["user"], "user": pair["user"]}},
		"templates only":             {args: []string{"--allow-empty-data"}, templates: map[string]string{"a": "b", "empty": "", "lines": "one\r\n\ttwo\n", "dot": "{{ . }}", "len": "{{ len . }}"}, want: map[string]string{"a": "b", "empty": "", "lines": "one\r\n\ttwo\n", "dot": "map[]", "len": "0"}},
		"template: bytes": {binary: map[string]string{"bytes": "\x00\xff\xfe" + secret}, templates: map[string]string{
			"raw": "{{ .bytes }}", "b64": "{{ .bytes | b64enc }}", "json": "{{ .bytes | toJson }}", "len": "{{ len .bytes }}", "sum": "{{ .bytes | sha256sum }}", "q": "{{ printf `%q` .bytes }}"}},
		"template: flow": {values: pair, templates: map[string]string{
			"if":       `{{ if eq .user "x" }}a{{ else if contains "of" .user }}b{{ else }}c{{ end }}`,
			"range":    `{{ range $k, $v := . }}{{ $k }}={{ $v }};{{ end }}`,
			"rangelen": `{{ range $i, $c := until 3 }}{{ $i }}{{ end }}`,
			"else":     `{{ range list }}x{{ else }}none{{ end }}`,
			"break":    `{{ range until 9 }}{{ if eq . 4 }}{{ break }}{{ end }}{{ if eq . 1 }}{{ continue }}{{ end }}{{ . }}{{ end }}`,
			"with":     `{{ with .user }}{{ . }}{{ else }}none{{ end }}`,
			"variable": `{{ $a := .user }}{{ $a = upper $a }}{{ $a }}`,
			"define":   `{{ define "x" }}<{{ . }}>{{ end }}{{ template "x" .user }}`,
			"block":    `{{ block "y" .user }}[{{ . }}]{{ end }}`,
			"trim":     "a  {{- /* comment */ -}}  b\n{{- `raw` }}\n",
			"root":     `{{ range list 1 2 }}{{ $.user }}{{ end }}`,
			"and":      `{{ and .user .missing }}{{ or .missing .user }}{{ not .missing }}`,
			"compare":  `{{ lt 1 2 }}{{ ge "b" "a" }}{{ ne .user .password }}{{ eq 1 2 1 }}`,
			"escape":   `{{ html .password }} {{ js .password }} {{ urlquery .password }}`,
			"slice":    `{{ slice (list 1 2 3) 0 2 }} {{ index .user 0 }} {{ printf "%-8s|%x" "a" "b" }}`,
			"dot":      `{{ . }} {{ toJson . }} {{ len . }}`,
			"brackets": `{{ "{{" }} .user {{ "}}" }}`,
		}},
		"template: functions on text": {values: pair, templates: map[string]string{
			"case":    `{{ upper .user }} {{ lower .user }} {{ title "ab cd" }} {{ untitle "Ab" }} {{ swapcase "aB" }}`,
			"style":   `{{ snakecase "FirstName" }} {{ camelcase "http_server" }} {{ kebabcase "FirstName" }} {{ initials "First Try" }}`,
			"trim":    `{{ trim "  a  " }}|{{ trimAll "$" "$5$" }}|{{ trimSuffix "-" "a-" }}|{{ trimPrefix "-" "-a" }}|{{ nospace " a b " }}`,
			"cut":     `{{ trunc 5 .user }} {{ trunc -5 .user }} {{ substr 0 3 .user }} {{ abbrev 8 .user }} {{ abbrevboth 5 9 "0123456789abcdef" }}`,
			"wrap":    `{{ wrap 4 "aa bb cc" }} {{ wrapWith 3 "_" "abcdef" }} {{ repeat 3 "x" }} {{ cat "a" "b" }}`,
			"indent":  "x:\n{{ indent 4 \"a\\nb\" }}{{ nindent 2 \"c\\nd\" }}",
			"quote":   `{{ quote .password }} {{ squote "a" }} {{ plural "one" "many" 2 }} {{ replace "of" "OF" .user }}`,
			"has":     `{{ contains "of" .user }} {{ hasPrefix "user" .user }} {{ hasSuffix "x" .user }} {{ has 1 (list 1 2) }}`,
			"regex":   `{{ regexMatch "^u" .user }} {{ regexFind "[a-z]+" "12ab" }} {{ regexFindAll "[0-9]" "1a2" -1 }} {{ regexReplaceAll "a(.)" "xay" "$1" }} {{ regexReplaceAllLiteral "a" "xay" "$1" }} {{ regexSplit "," "a,b" -1 }} {{ regexQuoteMeta "a.b" }}`,
			"split":   `{{ $s := split "," "a,b" }}{{ $s._0 }}{{ $s._1 }} {{ splitList "," "a,b" | join "-" }} {{ (splitn "," 2 "a,b,c")._1 }} {{ list "b" "a" | sortAlpha }}`,
			"default": `{{ default "d" "" }} {{ coalesce "" "c" }} {{ ternary "t" "f" true }} {{ empty "" }} {{ all 1 0 }} {{ any 1 0 }} {{ compact (list 1 0 2) }}`,
			"convert": `{{ toString 1 }} {{ toStrings (list 1 2) }} {{ atoi "5" }} {{ int "7" }} {{ int64 "8" }} {{ float64 "1.5" }} {{ toDecimal "0777" }}`,
			"kinds":   `{{ kindOf . }} {{ typeOf .user }} {{ kindIs "map" . }} {{ typeIs "string" .user }} {{ typeOf . }} {{ deepEqual 1 1 }}`,
			"hello":   `{{ hello }}`,
		}},
		"template: functions on bytes and numbers": {values: pair, templates: map[string]string{
			"base":     `{{ b64enc .password }} {{ b64dec (b64enc .user) }} {{ b32enc .user }} {{ b32dec (b32enc "a") }}`,
			"sums":     `{{ sha1sum .password }} {{ sha256sum .password }} {{ sha512sum .password }} {{ adler32sum .password }}`,
			"derive":   `{{ derivePassword 1 "long" .password "user" "example.com" }}`,
			"aes":      `{{ .user | encryptAES "secretkey" | decryptAES "secretkey" }}`,
			"math":     `{{ add 1 2 3 }} {{ sub 5 2 }} {{ mul 2 3 }} {{ div 7 2 }} {{ mod 7 2 }} {{ add1 1 }} {{ max 1 3 2 }} {{ min 3 1 }} {{ biggest 1 2 }}`,
			"floats":   `{{ addf 1.5 2 }} {{ subf 3 0.5 }} {{ mulf 1.5 2 }} {{ divf 3 2 }} {{ maxf 1.5 2 }} {{ floor 1.9 }} {{ ceil 1.1 }} {{ round 1.2345 2 }}`,
			"until":    `{{ until 3 }} {{ untilStep 0 6 2 }} {{ seq 1 2 5 }}`,
			"json":     `{{ toJson .password }} {{ toRawJson .password }} {{ toPrettyJson . }} {{ (fromJson "{\"a\":[1,\"b\"]}").a }} {{ mustToJson 1 }}`,
			"lists":    `{{ $l := list 1 2 3 }}{{ first $l }}{{ last $l }}{{ rest $l }}{{ initial $l }}{{ append $l 4 }}{{ prepend $l 0 }}{{ concat $l $l }}{{ reverse $l }}{{ uniq (list 1 1) }}{{ without $l 2 }}{{ slice $l 1 2 }}{{ chunk 2 $l }}{{ len $l }}{{ tuple 1 2 }}`,
			"dicts":    `{{ $d := dict "a" 1 "b" (dict "c" 2) }}{{ $_ := set $d "e" "f" }}{{ get $d "a" }}{{ hasKey $d "z" }}{{ keys $d | sortAlpha }}{{ pick $d "a" }}{{ omit $d "a" }}{{ dig "b" "c" 0 $d }}{{ $_ := unset $d "e" }}{{ $d }}{{ pluck "a" $d }}{{ merge (dict "x" 1) $d }}{{ mergeOverwrite (dict "a" 9) $d }}{{ values (dict "a" 1) }}{{ deepCopy $d }}`,
			"paths":    `{{ base "/a/b.c" }} {{ dir "/a/b.c" }} {{ ext "b.c" }} {{ clean "/a/../b" }} {{ isAbs "/a" }} {{ osBase "/a/b" }}`,
			"dates":    `{{ dateInZone "2006-01-02 15:04" (toDate "2006-01-02T15:04:05Z07:00" "2026-01-02T03:04:05Z") "UTC" }} {{ duration 95 }} {{ durationRound "2h10m5s" }} {{ unixEpoch (toDate "2006-01-02T15:04:05Z07:00" "2026-01-02T03:04:05Z") }}`,
			"versions": `{{ semverCompare "^1.2.0" "1.3.0" }} {{ (semver "1.2.3-beta.1+x").Prerelease }}`,
			"ca":       `{{ $ca := genCA "foo" 9 }}{{ trunc 27 $ca.Cert }}`,
			"urls":     `{{ (urlParse "https://me@example.com:80/p?q=1#f").host }} {{ urlJoin (dict "scheme" "https" "host" "h" "path" "/p") }}`,
		}},
		"template: functions that are not the same twice": {values: pair, templates: map[string]string{
			"htpasswd": `{{ htpasswd .user .password }}`, "bcrypt": `{{ bcrypt .password }}`, "uuid": `{{ uuidv4 }}`, "letters": `{{ randAlphaNum 16 }}`,
			"digits": `{{ randNumeric 8 }}`, "bytes": `{{ randBytes 12 }}`, "cipher": `{{ .user | encryptAES "x" }}`, "key": `{{ genPrivateKey "ed25519" }}`, "time": `{{ now | unixEpoch }}`,
		}, random: map[string]bool{"htpasswd": true, "bcrypt": true, "uuid": true, "letters": true, "digits": true, "bytes": true, "cipher": true, "key": true, "time": true}},
		"template: a long value": {values: map[string]string{"long": long}, templates: map[string]string{
			"indent": "{{ indent 8 .long }}", "nindent": "{{ nindent 2 .long | trim }}", "replace": `{{ replace "\n" "\\n" .long }}`, "regex": `{{ regexReplaceAll "line (\\d+)" .long "<$1>" }}`,
			"lines": `{{ range $i, $l := splitList "\n" .long }}{{ if contains "99" $l }}{{ $i }}:{{ $l | trim | upper }};{{ end }}{{ end }}`, "join": `{{ splitList "\n" .long | join "," }}`,
			"base64": "{{ .long | b64enc | b64dec }}", "json": "{{ dict `long` .long | toJson }}", "pretty": "{{ dict `long` .long | toPrettyJson }}", "quote": "{{ quote .long }}", "printf": `{{ printf "%s and %q" .long "x" }}`,
			"twice": "{{ .long }}{{ .long }}", "sort": `{{ splitList "\n" .long | sortAlpha | uniq | len }}`, "wrap": "{{ wrap 64 .long }}", "wrapWith": `{{ wrapWith 64 "\n" .long }}`, "html": "{{ html .long }}",
		}},
	}
}

// deprecatedRows have spec.data: the whole Secret in JSON, sealed as one blob.
func deprecatedRows(e *sealedEnv, cert, secret string) map[string]sealedRow {
	blob := func(row, inner string, change func(cr map[string]any)) func(cr map[string]any) {
		return func(cr map[string]any) {
			put(cr, e.sealRaw(cert, e.app, slug(row), inner), "spec", "data")
			put(cr, map[string]any{}, "spec", "encryptedData")
			if change != nil {
				change(cr)
			}
		}
	}
	b64 := base64.StdEncoding.EncodeToString([]byte("v1 " + secret))
	want := map[string]string{"password": "v1 " + secret}
	plain := fmt.Sprintf(`{"kind":"Secret","apiVersion":"v1","metadata":{"name":"x","namespace":"y","creationTimestamp":null,"labels":{"from":"inside"},"annotations":{"a":"b"}},"data":{"password":%q},"type":"example.com/inside","immutable":true}`, b64)
	rows := map[string]sealedRow{}
	add := func(name, inner string, change func(cr map[string]any), r sealedRow) {
		r.edit, r.deprecated = blob(name, inner, change), true
		r.values = map[string]string{"any": "thing"}
		rows[name] = r
	}
	add("spec.data", plain, nil, sealedRow{want: want})
	add("spec.data with a template", plain, func(cr map[string]any) {
		put(cr, map[string]any{"labels": map[string]any{"from": "template"}}, "spec", "template", "metadata")
		put(cr, map[string]any{"more": "{{ .password }}"}, "spec", "template", "data")
		put(cr, "example.com/template", "spec", "template", "type")
	}, sealedRow{want: want})
	add("spec.data without a type, a template with one", fmt.Sprintf(`{"kind":"Secret","apiVersion":"v1","data":{"password":%q}}`, b64), func(cr map[string]any) {
		put(cr, map[string]any{"labels": map[string]any{"from": "template"}, "annotations": map[string]any{"from": "template"}}, "spec", "template", "metadata")
		put(cr, "example.com/template", "spec", "template", "type")
		put(cr, true, "spec", "template", "immutable")
	}, sealedRow{want: want})
	add("spec.data with a template that is none", plain, func(cr map[string]any) {
		put(cr, map[string]any{"more": "{{ .password"}, "spec", "template", "data")
	}, sealedRow{want: want})
	// The controller creates the Secret with its values, and then takes them away.
	add("spec.data with stringData", fmt.Sprintf(`{"kind":"Secret","apiVersion":"v1","stringData":{"password":%q}}`, "v1 "+secret), nil,
		sealedRow{want: map[string]string{}, instead: want})
	add("spec.data with unknown fields", fmt.Sprintf(`{"kind":"Secret","apiVersion":"v1","status":1,"data":{"password":%q}}`, b64), nil, sealedRow{want: want})
	add("spec.data in YAML", "kind: Secret\napiVersion: v1\ndata: {password: "+b64+"}\n", nil, sealedRow{want: want})
	add("spec.data without a kind", fmt.Sprintf(`{"data":{"password":%q}}`, b64), nil, sealedRow{want: want})
	add("spec.data that is no Secret", fmt.Sprintf(`{"kind":"ConfigMap","apiVersion":"v1","data":{"password":%q}}`, "v1 "+secret), nil, sealedRow{fails: "unknown conversion"})
	add("spec.data that is cut", plain[:len(plain)-30], nil, sealedRow{fails: "couldn't get version/kind"})
	add("spec.data that is a text", "v1 "+secret, nil, sealedRow{fails: "couldn't get version/kind"})
	add("spec.data with a bad value", `{"kind":"Secret","apiVersion":"v1","data":{"password":"v1 `+secret+`"}}`, nil, sealedRow{fails: "illegal base64"})
	add("spec.data that was altered", plain, func(cr map[string]any) {
		data, _, _ := unstructured.NestedString(cr, "spec", "data")
		put(cr, flip(data, -1), "spec", "data")
	}, sealedRow{fails: nobodyKnows})
	add("spec.data and encryptedData", plain, func(cr map[string]any) {
		put(cr, map[string]any{"password": e.sealRaw(cert, e.app, slug("spec.data and encryptedData"), "new "+secret)}, "spec", "encryptedData")
	}, sealedRow{fails: "at the same time"})
	add("spec.data that is not base64", plain, func(cr map[string]any) { put(cr, "?", "spec", "data") }, sealedRow{refused: "must be of type byte"})
	add("spec.data alone", plain, func(cr map[string]any) { drop(cr, "spec", "encryptedData") },
		sealedRow{refused: "spec.encryptedData: Required value", instead: want})
	values := map[string]string{"password": "beside an empty spec.data " + secret}
	rows["spec.data: empty"] = sealedRow{values: values, edit: func(cr map[string]any) { put(cr, "", "spec", "data") }, refused: "must be of type byte"}
	rows["spec.data: null"] = sealedRow{values: values, edit: func(cr map[string]any) { put(cr, nil, "spec", "data") }}
	return rows
}

// failingRows make no Secret.
func failingRows(other string, pair, one map[string]string) map[string]sealedRow {
	rows := map[string]sealedRow{
		"bad: strict, renamed":       {values: one, sealedAs: "other-name", fails: nobodyKnows},
		"bad: strict, moved":         {values: one, namespace: other, sealedIn: "elsewhere", fails: nobodyKnows},
		"bad: namespace-wide, moved": {values: one, args: namespaceWide, namespace: other, sealedIn: "elsewhere", fails: nobodyKnows},
		"bad: another key":           {values: one, foreign: true, fails: nobodyKnows},
		"bad: one of two":            {values: pair, edit: func(cr map[string]any) { put(cr, flip(encrypted(cr, "user"), -1), "spec", "encryptedData", "user") }, fails: nobodyKnows + " (user)"},
		"bad: value altered": {values: one, edit: func(cr map[string]any) {
			put(cr, flip(encrypted(cr, "password"), -18), "spec", "encryptedData", "password")
		}, fails: nobodyKnows},
		"bad: sealed key altered": {values: one, edit: func(cr map[string]any) {
			put(cr, flip(encrypted(cr, "password"), 100), "spec", "encryptedData", "password")
		}, fails: nobodyKnows},
		"bad: length altered": {values: one, edit: func(cr map[string]any) {
			put(cr, flip(encrypted(cr, "password"), 0), "spec", "encryptedData", "password")
		}, fails: nobodyKnows},
		"bad: cut":        {values: one, edit: func(cr map[string]any) { put(cr, encrypted(cr, "password")[:400], "spec", "encryptedData", "password") }, fails: nobodyKnows},
		"bad: empty":      {values: one, edit: func(cr map[string]any) { put(cr, "", "spec", "encryptedData", "password") }, fails: nobodyKnows},
		"bad: not base64": {values: one, edit: func(cr map[string]any) { put(cr, "?"+encrypted(cr, "password"), "spec", "encryptedData", "password") }, fails: "illegal base64 data at input byte 0 (password)"},
		"bad: base64 for URLs": {values: one, edit: func(cr map[string]any) {
			put(cr, strings.NewReplacer("+", "-", "/", "_").Replace(encrypted(cr, "password")), "spec", "encryptedData", "password")
		}, fails: "illegal base64 data"},
		"bad: strict, widened":        {values: one, edit: func(cr map[string]any) { put(cr, "true", "metadata", "annotations", scopeCluster) }, fails: nobodyKnows},
		"bad: cluster-wide, narrowed": {values: one, args: clusterWide, edit: func(cr map[string]any) { drop(cr, "metadata", "annotations", scopeCluster) }, fails: nobodyKnows},
		"bad: namespace-wide, denied": {values: one, args: namespaceWide, edit: func(cr map[string]any) { put(cr, "false", "metadata", "annotations", scopeNamespace) }, fails: nobodyKnows},

		"bad: a key with a blank":       {values: one, templates: map[string]string{"a b": "x"}, fails: "Invalid value"},
		"bad: docker's JSON":            {values: one, edit: func(cr map[string]any) { put(cr, "kubernetes.io/dockerconfigjson", "spec", "template", "type") }, fails: "Required value"},
		"bad: a label that is a number": {values: one, edit: func(cr map[string]any) { put(cr, int64(1), "spec", "template", "metadata", "labels", "a") }, refused: `must be of type string: "integer"`},
		"bad: a value that is a number": {values: one, edit: func(cr map[string]any) { put(cr, int64(1), "spec", "encryptedData", "a") }, refused: `must be of type string: "integer"`},
		"bad: encryptedData missing":    {values: one, edit: func(cr map[string]any) { drop(cr, "spec", "encryptedData") }, refused: "spec.encryptedData: Required value"},
		"bad: encryptedData null":       {values: one, edit: func(cr map[string]any) { put(cr, nil, "spec", "encryptedData") }, refused: "spec.encryptedData: Required value"},
		"bad: immutable as a text":      {values: one, edit: func(cr map[string]any) { put(cr, "true", "spec", "template", "immutable") }, refused: `must be of type boolean: "string"`},
	}
	for name, template := range map[string]string{
		"syntax":              `{{ .password `,
		"unclosed if":         `{{ if .password }}`,
		"unknown function":    `{{ nosuch .password }}`,
		"env":                 `{{ env "HOME" }}`,
		"expandenv":           `{{ expandenv "$HOME" }}`,
		"getHostByName":       `{{ getHostByName "localhost" }}`,
		"fail":                `{{ fail .password }}`,
		"fail in base64":      `{{ fail (b64enc .password) }}`,
		"fail in upper case":  `{{ .password | upper | fail }}`,
		"a pattern":           `{{ mustRegexMatch (print "(" .password) "x" }}`,
		"a panicking pattern": `{{ regexFind (print "(" .password) "x" }}`,
		"a panicking cipher":  `{{ .password | b64enc | decryptAES "x" }}`,
		"a URL":               `{{ urlParse (print "http://[" .password) }}`,
		"a duration":          `{{ mustDateModify .password now }}`,
		"a date":              `{{ mustToDate "2006" .password }}`,
		"a version":           `{{ semver .password }}`,
		"JSON":                `{{ mustFromJson .password }}`,
		"a field of a text":   `{{ .password.field }}`,
		"an index of a map":   `{{ index . 1 }}`,
		"a call":              `{{ call .password }}`,
		"a template's name":   `{{ template "password" . }}`,
		"a missing argument":  `{{ upper .missing }}`,
		"get of the root":     `{{ get . "password" }}`,
		"keys of the root":    `{{ keys . }}`,
		"division by zero":    `{{ div 1 0 }}`,
		"a list's end":        `{{ index (list 1) 3 }}`,
		"an order":            `{{ lt .password 1 }}`,
	} {
		rows["bad template: "+name] = sealedRow{values: one, templates: map[string]string{"x": template}, fails: "template: x:1"}
	}
	return rows
}

func annotated(names ...string) map[string]any {
	annotations := map[string]any{}
	for _, name := range names {
		annotations[name] = "true"
	}
	return map[string]any{"annotations": annotations}
}

// with returns a copy of the map with more keys and values.
func with(m map[string]string, more ...string) map[string]string {
	out := maps.Clone(m)
	for i := 0; i < len(more); i += 2 {
		out[more[i]] = more[i+1]
	}
	return out
}

func allBytes() string {
	b := make([]byte, 256)
	for i := range b {
		b[i] = byte(i)
	}
	return string(b)
}

func many(secret string) map[string]string {
	out := map[string]string{}
	for i := range 60 {
		out[fmt.Sprintf("key-%02d", i)] = fmt.Sprintf("%d of %s", i, secret)
	}
	return out
}

// slug makes the name of an object out of that of a row.
func slug(name string) string {
	words := strings.FieldsFunc(strings.ToLower(name), func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') })
	return strings.Join(words, "-")
}
