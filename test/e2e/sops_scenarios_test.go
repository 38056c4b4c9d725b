package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/gitseal/gitseal/test/harness"
)

const (
	objectHead = "apiVersion: v1\nkind: Secret\nmetadata: {name: db, namespace: NAMESPACE}\n"
	// nameOnly is for trees whose kustomization sets the namespace.
	nameOnly     = "apiVersion: v1\nkind: Secret\nmetadata: {name: db}\n"
	oneResource  = "-- kustomization.yaml --\nnamespace: NAMESPACE\nresources: [secret.yaml]\n"
	sealedSecret = "-- sealed secret.yaml --\n" + nameOnly + `type: Opaque
stringData:
  password: CANARY
  user: "CANARY user"
  port: "5432"
data:
  raw: BASE64
`
	plainConfigMap = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: beside, namespace: NAMESPACE}\ndata: {a: b}\n"
	allFormats     = `-- sealed config.yaml --
# CANARY at the top
db:
    password: "CANARY: with # a \"lot\" of 'quotes'" # CANARY at the end
    list: [CANARY one, 2, true, null, "", 0.5, 2024-05-06]
    # CANARY between
    text: |
        CANARY
        second line
-- sealed config.json --
{"a": {"b": "CANARY \"quoted\" <&>", "n": 9007199254740993, "f": 1.50, "e": "", "z": null, "l": [1, "CANARY", {"x": true}]}}
-- sealed app.env --
# CANARY in a comment
PASSWORD=CANARY
EMPTY=
-- sealed my.ini --
; CANARY in a comment
top = CANARY
[db]
password = CANARY
port = 5432
-- sealed key.pem --
-----BEGIN FAKE KEY-----
BYTES
-----END FAKE KEY-----
`
	generatedBase = `-- base/kustomization.yaml --
namespace: NAMESPACE
secretGenerator:
- name: app
  envs: [a.env]
-- sealed base/a.env --
A=CANARY a
B=CANARY b
-- sealed b.env --
B=CANARY b of b
C=CANARY c
`
	sealedPatch = "-- sealed patch.yaml --\n" + nameOnly + "stringData:\n  password: CANARY patched\n  user: null\n  added: CANARY added\n"
)

// sopsScenarios are trees that Flux or stock tools turn into Secrets. Ours must
// be the same, byte for byte.
var sopsScenarios = map[string]struct {
	tree string
	// edit changes what lies in git after sealing; stock tools see it unchanged.
	edit func(file, text string) string
}{
	// Formats.
	"a YAML Secret": {tree: "-- sealed secret.yaml --\n" + objectHead + `stringData:
  password: CANARY
  quotes: "CANARY \"'` + "`" + `$(x) ${y} %s%% \\ \\n"
  single: 'CANARY ''x'''
  colon: "CANARY: b # c"
  spaces: "  CANARY  "
  lines: "CANARY\ntwo\n\n"
  tab: "CANARY\ttab"
  number: "0123"
  yes: "yes"
  "null": "null"
  tilde: "~"
  star: "*CANARY"
  braces: "{CANARY: [x]}"
  template: "{{ .Values.CANARY }}"
`},
	"a YAML Secret as a resource": {tree: sealedSecret + oneResource},
	"a file of the extension yml": {tree: "-- sealed secret.yml --\n" + objectHead + "stringData: {password: CANARY}\n"},
	"a JSON Secret": {tree: `-- sealed secret.json --
{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "db", "namespace": "NAMESPACE"},
 "stringData": {"password": "CANARY \"x\" <&>\n", "empty": ""}, "data": {"raw": "BASE64"}}
`},
	"a JSON Secret as a resource": {tree: `-- kustomization.yaml --
namespace: NAMESPACE
namePrefix: a-
resources: [secret.json]
-- sealed secret.json --
{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "db"}, "stringData": {"password": "CANARY"}}
`},
	"a dotenv file as envs": {tree: `-- sealed app.env --
# CANARY in a comment
PASSWORD=CANARY
EQUALS=CANARY=with=equals
QUOTED="CANARY"
SINGLE='CANARY'
SPACES=  CANARY x
NEWLINE=CANARY\nsecond
EMPTY=
UNICODE=CANARY ключ
DOLLAR=$(CANARY) ${CANARY}
HASH=CANARY # no comment
-- kustomization.yaml --
namespace: NAMESPACE
secretGenerator:
- {name: app, envs: [app.env]}
`},
	"an INI file": {tree: `-- sealed my.ini --
; CANARY in a comment
top = CANARY
[db]
password = CANARY
empty =
[a.section]
x = CANARY: y
-- kustomization.yaml --
namespace: NAMESPACE
secretGenerator:
- {name: app, files: [my.ini]}
`},
	"a binary file": {tree: `-- sealed blob.bin --
BYTES
BYTES
-- kustomization.yaml --
namespace: NAMESPACE
secretGenerator:
- {name: app, files: [blob.bin]}
`},

	// Generators.
	"files of each format": {tree: allFormats + `-- kustomization.yaml --
namespace: NAMESPACE
secretGenerator:
- {name: app, files: [config.yaml, config.json, app.env, my.ini, key.pem]}
`},
	"files under other keys": {tree: allFormats + `-- kustomization.yaml --
namespace: NAMESPACE
secretGenerator:
- {name: app, files: [a=config.yaml, b.json=config.json, ".env=app.env", conf=my.ini, tls.key=key.pem, again=key.pem]}
- {name: other, files: [values=config.yaml]}
`},
	"envs, files and literals together": {tree: allFormats + `-- plain.env --
LOG=debug
-- kustomization.yaml --
namespace: NAMESPACE
secretGenerator:
- name: app
  envs: [app.env, plain.env]
  files: [key.pem]
  literals: [MODE=production, 'QUOTED="x y"', "URL=http://x/?a=b"]
`},
	"a TLS and a registry Secret from files": {tree: `-- sealed tls.crt --
-----BEGIN FAKE CERTIFICATE-----
CANARY
-----END FAKE CERTIFICATE-----
-- sealed tls.key --
-----BEGIN FAKE KEY-----
CANARY
-----END FAKE KEY-----
-- sealed docker.json --
{"auths": {"registry.example": {"auth": "BASE64"}}}
-- kustomization.yaml --
namespace: NAMESPACE
secretGenerator:
- {name: tls, type: kubernetes.io/tls, files: [tls.crt, tls.key]}
- {name: registry, type: kubernetes.io/dockerconfigjson, files: [.dockerconfigjson=docker.json]}
`},
	"merge into a generated Secret": {tree: generatedBase + `-- kustomization.yaml --
namespace: NAMESPACE
resources: [base]
secretGenerator:
- {name: app, namespace: NAMESPACE, behavior: merge, envs: [b.env], literals: [D=plain]}
`},
	"replace a generated Secret": {tree: generatedBase + `-- kustomization.yaml --
namespace: NAMESPACE
resources: [base]
secretGenerator:
- {name: app, namespace: NAMESPACE, behavior: replace, envs: [b.env]}
`},
	"merge into a sealed manifest": {tree: sealedSecret + `-- base/kustomization.yaml --
namespace: NAMESPACE
resources: [../secret.yaml]
-- sealed b.env --
password=CANARY of b.env
-- kustomization.yaml --
resources: [base]
generatorOptions: {disableNameSuffixHash: true}
secretGenerator:
- {name: db, namespace: NAMESPACE, behavior: merge, envs: [b.env]}
`},
	"generatorOptions": {tree: `-- sealed a.env --
A=CANARY
-- kustomization.yaml --
namespace: NAMESPACE
generatorOptions:
  disableNameSuffixHash: true
  immutable: true
  labels: {team: a}
  annotations: {note: b}
secretGenerator:
- {name: a, envs: [a.env]}
- name: b
  type: example.com/custom
  envs: [a.env]
  options: {labels: {own: c}}
`},
	"options of one generator": {tree: `-- sealed a.env --
A=CANARY
-- kustomization.yaml --
namespace: NAMESPACE
secretGenerator:
- name: a
  envs: [a.env]
  options: {disableNameSuffixHash: true, immutable: true, labels: {own: c}, annotations: {note: b}}
- {name: b, envs: [a.env]}
`},
	"a kubeconfig as a file": {tree: `-- sealed kubeconfig --
apiVersion: v1
kind: Config
users:
- name: CANARY
  user: {token: CANARY}
-- sealed whole.yaml with encrypted_regex: .* --
apiVersion: v1
kind: Config
current-context: CANARY
clusters:
- cluster: {server: 'https://CANARY', certificate-authority-data: BASE64}
  name: c
users:
- name: u
  user:
    token: "CANARY"   # CANARY
-- sealed parts.yaml with encrypted_regex: ^(token|client-key-data)$ --
apiVersion: v1
kind: Config
users:
- name: u
  user: {token: CANARY, client-key-data: BASE64}
-- kustomization.yaml --
namespace: NAMESPACE
secretGenerator:
- {name: app, files: [kubeconfig, whole.yaml, parts.yaml]}
`},
	"a manifest as a file": {tree: sealedSecret + `-- kustomization.yaml --
namespace: NAMESPACE
secretGenerator:
- {name: app, files: [secret.yaml]}
`},

	// Names as in Flux' documentation, which do not tell the format: for it the
	// key in the Secret does, and envs are dotenv.
	"a JSON file named encrypted":   {tree: "-- sealed config.json.encrypted as json --\n{\"a\": \"CANARY <&>\", \"n\": [1, true]}\n" + filesOf("config.json=config.json.encrypted")},
	"a YAML file named encrypted":   {tree: "-- sealed config.yaml.encrypted as yaml --\n# CANARY\na: CANARY\nn: [1, true]\n" + filesOf("config.yaml=config.yaml.encrypted")},
	"an INI file named encrypted":   {tree: "-- sealed my.ini.encrypted as ini --\n[a]\nb = CANARY\n" + filesOf("my.ini=my.ini.encrypted")},
	"a binary file named encrypted": {tree: "-- sealed token.encrypted --\nCANARY\n" + filesOf("token=token.encrypted")},
	"a dotenv file named encrypted": {tree: "-- sealed config.env.encrypted as dotenv --\n# CANARY\nA=CANARY\nB=CANARY=x\n" + "-- kustomization.yaml --\nnamespace: NAMESPACE\nsecretGenerator:\n- {name: env, envs: [config.env.encrypted]}\n"},
	"a registry's JSON named encrypted": {tree: "-- sealed ghcr.dockerconfigjson.encrypted as json --\n{\"auths\": {\"registry.example\": {\"auth\": \"BASE64\", \"password\": \"CANARY\"}}}\n" +
		"-- kustomization.yaml --\nnamespace: NAMESPACE\nsecretGenerator:\n- {name: registry, type: kubernetes.io/dockerconfigjson, files: [.dockerconfigjson=ghcr.dockerconfigjson.encrypted]}\n"},
	"a sealed file within a Secret's data": {tree: "-- sealed inner.yaml --\na: CANARY\n-- secret.yaml --\n" + nameOnly + "data: {inner.yaml: BASE64OF(inner.yaml)}\n" + oneResource},

	// Patches.
	"a strategic merge patch": {tree: sealedSecret + sealedPatch + oneResource + "patches:\n- path: patch.yaml\n"},
	"a strategic merge patch with a target": {tree: sealedSecret + sealedPatch + `-- secret2.yaml --
apiVersion: v1
kind: Secret
metadata: {name: db2}
` + `-- kustomization.yaml --
namespace: NAMESPACE
resources: [secret.yaml, secret2.yaml]
patches:
- path: patch.yaml
  target: {kind: Secret, name: db.*}
`},
	"patchesStrategicMerge": {tree: sealedSecret + sealedPatch + oneResource + "patchesStrategicMerge: [patch.yaml]\n"},
	"an inline strategic merge patch": {tree: sealedSecret + oneResource + `patches:
- patch: |-
    apiVersion: v1
    kind: Secret
    metadata: {name: db, labels: {patched: "yes"}}
    stringData: {port: "5433", user: null, mode: plain}
- target: {kind: Secret}
  patch: |-
    kind: Secret
    metadata: {name: ignored, annotations: {also: patched}}
    data: {raw: null}
`},
	"a patch that replaces and one that deletes": {tree: sealedSecret + "-- sealed patch.yaml --\n" + nameOnly + "stringData: {$patch: replace, only: CANARY}\n" +
		"-- sealed gone.yaml --\napiVersion: v1\nkind: Secret\nmetadata: {name: gone}\nstringData: {a: CANARY}\n" + `-- kustomization.yaml --
namespace: NAMESPACE
resources: [secret.yaml, gone.yaml]
patches:
- path: patch.yaml
- patch: "{apiVersion: v1, kind: Secret, metadata: {name: gone}, $patch: delete}"
`},
	"a sealed patch of a generated Secret": {tree: `-- sealed a.env --
A=CANARY a
B=CANARY b
-- sealed patch.yaml --
apiVersion: v1
kind: Secret
metadata: {name: app}
data: {B: null, C: BASE64}
-- kustomization.yaml --
namespace: NAMESPACE
secretGenerator:
- {name: app, envs: [a.env]}
patches:
- path: patch.yaml
`},
	"JSON6902 inline": {tree: sealedSecret + oneResource + `patches:
- target: {kind: Secret, name: db}
  patch: |-
    - {op: test, path: /metadata/name, value: db}
    - {op: add, path: /stringData/added, value: plain}
    - {op: copy, from: /data/raw, path: /data/second}
    - {op: move, from: /stringData/password, path: /stringData/moved}
    - {op: remove, path: /stringData/port}
    - {op: replace, path: /stringData/user, value: plain user}
`},
	"JSON6902 from a file": {tree: sealedSecret + `-- patch.json --
[{"op": "copy", "from": "/stringData/user", "path": "/stringData/second"},
 {"op": "move", "from": "/data/raw", "path": "/data/moved"},
 {"op": "remove", "path": "/stringData/password"},
 {"op": "add", "path": "/data/added", "value": "cGxhaW4="},
 {"op": "replace", "path": "/stringData/port", "value": "1"}]
` + oneResource + "patches:\n- {path: patch.json, target: {kind: Secret}}\n"},
	"patchesJson6902": {tree: sealedSecret + "-- patch.yaml --\n- {op: copy, from: /stringData/password, path: /stringData/second}\n" + oneResource +
		"patchesJson6902:\n- {path: patch.yaml, target: {version: v1, kind: Secret, name: db}}\n"},
	"JSON6902 of a generated Secret": {tree: `-- sealed a.env --
A=CANARY a
B=CANARY b
-- kustomization.yaml --
namespace: NAMESPACE
secretGenerator:
- {name: app, envs: [a.env]}
patches:
- target: {kind: Secret, name: app}
  patch: |-
    - {op: move, from: /data/A, path: /data/C}
    - {op: remove, path: /data/B}
`},

	// Layout.
	"Components": {tree: "-- sealed base/secret.yaml --\n" + nameOnly + "stringData: {password: CANARY, kept: CANARY kept}\n" + `-- base/kustomization.yaml --
resources: [secret.yaml]
-- kustomization.yaml --
resources: [base]
components: [components/extra, components/names]
-- components/extra/kustomization.yaml --
apiVersion: kustomize.config.k8s.io/v1alpha1
kind: Component
secretGenerator:
- {name: extra, envs: [extra.env]}
patches:
- path: patch.yaml
-- sealed components/extra/extra.env --
X=CANARY
-- sealed components/extra/patch.yaml --
` + nameOnly + `stringData: {password: CANARY of the component}
-- components/names/kustomization.yaml --
apiVersion: kustomize.config.k8s.io/v1alpha1
kind: Component
namespace: NAMESPACE
namePrefix: c-
`},
	"nested bases": {tree: sealedSecret + generatedBase + `-- one/kustomization.yaml --
namespace: NAMESPACE
namePrefix: one-
resources: [../base, ../secret.yaml]
-- two/kustomization.yaml --
nameSuffix: -two
resources: [../one]
-- sealed two/patch.yaml --
apiVersion: v1
kind: Secret
metadata: {name: one-db}
stringData: {password: CANARY of two}
-- three/kustomization.yaml --
resources: [../two]
patches:
- path: ../two/patch.yaml
  target: {kind: Secret, name: one-db-two}
-- kustomization.yaml --
resources: [three]
`},
	"several overlays of one base": {tree: generatedBase + "-- sealed base/secret.yaml --\n" + nameOnly + "stringData: {password: CANARY of the base}\n" + `-- shared/kustomization.yaml --
resources: [../base, ../base/secret.yaml]
-- overlays/a/kustomization.yaml --
namespace: NAMESPACE
namePrefix: a-
resources: [../../shared]
patches:
- path: patch.yaml
-- sealed overlays/a/patch.yaml --
` + nameOnly + `stringData: {password: CANARY of a}
-- overlays/b/kustomization.yaml --
namespace: NAMESPACE
namePrefix: b-
resources: [../../shared]
secretGenerator:
- {name: own, envs: [../../b.env]}
-- kustomization.yaml --
resources: [overlays/a, overlays/b]
`},
	"a sealed file named in a folder below": {tree: sealedSecret + `-- team/app/kustomization.yaml --
namespace: NAMESPACE
resources: [../../secret.yaml, own.sops.yaml]
secretGenerator:
- {name: env, envs: [conf/a.env]}
-- sealed team/app/own.sops.yaml --
apiVersion: v1
kind: Secret
metadata: {name: own}
stringData: {a: CANARY}
-- sealed team/app/conf/a.env --
A=CANARY
-- kustomization.yaml --
resources: [team/app]
`},
	"folders without a kustomization": {tree: "-- sealed a/b/secret.yaml --\n" + objectHead + "stringData: {a: CANARY}\n-- a/b/c/beside.yaml --\n" + plainConfigMap},

	// Replacements.
	"replacements of whole values": {tree: sealedSecret + `-- sealed other.yaml --
apiVersion: v1
kind: Secret
metadata: {name: other}
stringData: {copy: CANARY to be replaced, own: CANARY own}
-- plain.yaml --
apiVersion: v1
kind: Secret
metadata: {name: plain}
stringData: {copy: x}
-- from.yaml --
apiVersion: v1
kind: ConfigMap
metadata: {name: from}
data: {user: somebody}
-- kustomization.yaml --
namespace: NAMESPACE
resources: [secret.yaml, other.yaml, plain.yaml, from.yaml]
replacements:
- source: {kind: Secret, name: db, fieldPath: stringData.password}
  targets:
  - select: {kind: Secret, name: other}
    fieldPaths: [stringData.copy]
  - select: {kind: Secret, name: plain}
    fieldPaths: [stringData.copy, stringData.new]
    options: {create: true}
- source: {kind: ConfigMap, name: from, fieldPath: data.user}
  targets:
  - select: {kind: Secret, name: db}
    fieldPaths: [stringData.user]
- path: replacement.yaml
-- replacement.yaml --
source: {kind: Secret, name: db, fieldPath: data.raw}
targets:
- select: {kind: Secret, name: plain}
  fieldPaths: [data.raw]
  options: {create: true}
`},
	"replacements into a URL": {tree: sealedSecret + `-- url.yaml --
apiVersion: v1
kind: Secret
metadata: {name: url}
stringData: {url: "postgres://USER:PASSWORD@db.example:5432/app"}
-- kustomization.yaml --
namespace: NAMESPACE
resources: [secret.yaml, url.yaml]
replacements:
- source: {kind: Secret, name: db, fieldPath: stringData.password}
  targets:
  - select: {name: url}
    fieldPaths: [stringData.url]
    options: {delimiter: "@", index: 0}
- source: {kind: Secret, name: db, fieldPath: stringData.user}
  targets:
  - select: {name: url}
    fieldPaths: [stringData.url]
    options: {delimiter: ":", index: 1}
`},
	"generated data copied into stringData": {tree: `-- sealed a.env --
A=CANARY a
-- target.yaml --
apiVersion: v1
kind: Secret
metadata: {name: target}
stringData: {copy: x}
-- kustomization.yaml --
namespace: NAMESPACE
resources: [target.yaml]
secretGenerator:
- {name: app, envs: [a.env]}
replacements:
- source: {kind: Secret, name: app, fieldPath: data.A}
  targets:
  - select: {name: target}
    fieldPaths: [stringData.copy]
`},

	// What a kustomization does to all.
	"names, labels and annotations": {tree: sealedSecret + generatedBase + `-- kustomization.yaml --
namespace: NAMESPACE
namePrefix: pre-
nameSuffix: -post
resources: [secret.yaml, base]
labels:
- pairs: {team: a}
  includeSelectors: true
commonAnnotations: {note: b}
`},
	"commonLabels": {tree: sealedSecret + oneResource + "commonLabels: {team: a}\n"},

	// Several documents.
	"several documents sealed as one": {tree: "-- sealed secret.yaml --\n" + objectHead + "stringData: {a: CANARY one}\n---\n" +
		strings.Replace(objectHead, "name: db", "name: second", 1) + "data: {b: BASE64}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: empty, namespace: NAMESPACE}\n"},
	"several documents sealed as one, as a resource": {tree: "-- sealed secret.yaml --\n---\n" + nameOnly + "stringData: {a: CANARY one}\n---\n" +
		strings.Replace(nameOnly, "name: db", "name: second", 1) + "stringData: {b: CANARY two}\n" + oneResource},
	"a plain document after a sealed one":             {tree: "-- sealed secret.yaml --\n" + objectHead + "stringData: {a: CANARY}\n-- and secret.yaml --\n" + plainConfigMap},
	"a plain document before a sealed one":            {tree: "-- secret.yaml --\n---\n" + plainConfigMap + "-- and sealed secret.yaml --\n" + objectHead + "stringData: {a: CANARY}\n"},
	"plain documents around sealed ones, as resource": {tree: "-- secret.yaml --\n" + plainConfigMap + "-- and sealed secret.yaml --\n" + nameOnly + "stringData: {a: CANARY}\n---\n" + strings.Replace(nameOnly, "name: db", "name: second", 1) + "stringData: {a: CANARY}\n-- and secret.yaml --\n" + strings.Replace(plainConfigMap, "beside", "beside2", 1) + oneResource},
	"files sealed alone, put together": {tree: "-- sealed secret.yaml --\n" + objectHead + "stringData: {a: CANARY one}\n-- and sealed secret.yaml --\n" +
		strings.Replace(objectHead, "name: db", "name: second", 1) + "stringData: {a: CANARY two}\n-- and sealed secret.yaml to retired --\n" +
		strings.Replace(objectHead, "name: db", "name: third", 1) + "stringData: {a: CANARY three}\n"},
	"units and plain documents put together": {tree: "-- sealed secret.yaml --\n" + nameOnly + "stringData: {a: CANARY one}\n---\n" +
		strings.Replace(nameOnly, "name: db", "name: second", 1) + "stringData: {a: CANARY two}\n-- and secret.yaml --\n" + plainConfigMap +
		"-- and sealed secret.yaml --\n" + strings.Replace(nameOnly, "name: db", "name: third", 1) + "stringData: {a: CANARY three}\n" + oneResource},
	"a patch file of units put together": {tree: sealedSecret + "-- sealed patch.yaml --\n" + nameOnly + "stringData: {password: CANARY one}\n-- and sealed patch.yaml --\n" +
		strings.Replace(nameOnly, "name: db", "name: other", 1) + "stringData: {password: CANARY two}\n" +
		"-- sealed other.yaml --\n" + strings.Replace(nameOnly, "name: db", "name: other", 1) + "stringData: {password: CANARY, kept: CANARY}\n" + `-- kustomization.yaml --
namespace: NAMESPACE
resources: [secret.yaml, other.yaml]
patches:
- path: patch.yaml
`},
	"a sealed ConfigMap beside a sealed Secret": {tree: "-- sealed secret.yaml --\n" + objectHead + "stringData: {a: CANARY}\n---\n" + strings.Replace(plainConfigMap, "{a: b}", "{a: not so secret, n: \"1\"}", 1)},
	"kind: List": {tree: `-- sealed list.yaml --
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Secret
  metadata: {name: a, namespace: NAMESPACE}
  stringData: {k: CANARY a}
- apiVersion: v1
  kind: Secret
  metadata: {name: b, namespace: NAMESPACE}
  data: {k: BASE64}
`},
	"kind: List as a resource": {tree: `-- sealed secret.yaml --
apiVersion: v1
kind: SecretList
items:
- apiVersion: v1
  kind: Secret
  metadata: {name: a}
  stringData: {k: CANARY a}
- apiVersion: v1
  kind: Secret
  metadata: {name: b}
  stringData: {k: CANARY b}
` + oneResource},

	// Values.
	"data and stringData": {tree: "-- sealed secret.yaml --\n" + objectHead + "data: {k: BASE64, l: BASE64, same: BASE64}\nstringData: {k: CANARY wins, same: CANARY}\n"},
	"numbers, booleans, dates and nothing": {tree: "-- sealed secret.yaml --\n" + objectHead + `stringData:
  password: CANARY
  port: 5432
  negative: -1
  hex: 0x1F
  octal: 0o17
  big: 9007199254740993
  ratio: 0.50
  small: 1.5e-7
  large: 1e21
  on: true
  off: false
  date: 2024-05-06
  time: 2024-05-06T07:08:09Z
  empty: ""
  nothing: null
  tilde: ~
`},
	"numbers merged into a sealed manifest": {tree: "-- sealed secret.yaml --\n" + nameOnly + "stringData: {password: CANARY, port: 5432, on: true, ratio: 0.5}\n" + `-- base/kustomization.yaml --
resources: [../secret.yaml]
-- kustomization.yaml --
namespace: NAMESPACE
resources: [base]
secretGenerator:
- {name: db, behavior: merge, literals: [added=plain]}
`},
	"comments everywhere": {tree: "-- sealed secret.yaml --\n# above\n" + objectHead + `# before
stringData:
  # CANARY above
  a: "x CANARY"  # CANARY beside
  # CANARY between

  # CANARY again
  b: |  # CANARY after the bar
    CANARY # part of the value
  c: CANARY
  # CANARY at the end
`},
	"anchors and aliases": {tree: "-- sealed secret.yaml --\n" + `apiVersion: v1
kind: Secret
metadata:
  name: &name db
  namespace: NAMESPACE
  labels: {app: *name}
stringData:
  a: &password CANARY
  b: *password
  name: *name
`},
	"aliases and merge keys in a file": {tree: `-- sealed config.yaml --
base: &base
  user: &u CANARY user
  password: CANARY
list: &list [CANARY, *u]
prod:
  <<: *base
  host: CANARY.example
  again: *list
test:
  <<: [*base, {port: 1}]
  password: CANARY test
-- kustomization.yaml --
namespace: NAMESPACE
secretGenerator:
- {name: app, files: [config.yaml]}
`},
	"merge keys in a Secret": {tree: "-- sealed secret.yaml --\n" + objectHead + `stringData:
  <<: {a: CANARY a, b: CANARY b}
  c: CANARY c
`},
	"CRLF in a manifest":                  {tree: "-- sealed secret.yaml --\n" + strings.ReplaceAll(objectHead+"stringData:\n  a: CANARY\n  b: |\n    CANARY\n    two\n  c: \"CANARY\"\n", "\n", "␍\n")},
	"CRLF in a file of several documents": {tree: "-- sealed secret.yaml --\n" + strings.ReplaceAll(objectHead+"stringData: {a: CANARY}\n---\n"+strings.Replace(objectHead, "name: db", "name: second", 1)+"stringData: {b: CANARY}\n", "\n", "␍\n")},
	"CRLF in a dotenv, an INI and a binary file": {tree: `-- sealed a.env --
A=CANARY␍
B=CANARY b␍
-- sealed my.ini --
[a]␍
b = CANARY␍
-- sealed c.txt --
CANARY␍
two␍
-- kustomization.yaml --
namespace: NAMESPACE
secretGenerator:
- {name: env, envs: [a.env]}
- {name: files, files: [a.env, my.ini, c.txt]}
`},
	"a byte order mark": {tree: "-- sealed a.env --\nBOMA=CANARY\nB=CANARY\n-- sealed c.txt --\nBOMCANARY\n" + `-- kustomization.yaml --
namespace: NAMESPACE
secretGenerator:
- {name: env, envs: [a.env]}
- {name: files, files: [a.env, c.txt]}
`},
	"UTF-8 beyond ASCII": {tree: "-- sealed secret.yaml --\n" + objectHead + `stringData:
  a: CANARY ключ 鍵 🔑
  b: "CANARY \u2028 \u0085 \ufeff \U0001F511 \x7f"
  c: "עברית CANARY"
  d: "e\u0301 CANARY é"
` + "-- sealed c.txt --\nCANARY ключ 🔑\n-- sealed a.env --\nA=CANARY ключ 🔑\n-- sealed a.json --\n{\"ключ\": \"CANARY 🔑 \\ud83d\\udd11 \\u2028\"}\n" + `-- kustomization.yaml --
namespace: NAMESPACE
resources: [secret.yaml]
secretGenerator:
- {name: files, files: [c.txt, a.env, a.json]}
- {name: env, envs: [a.env]}
`},
	"a very long line": {tree: "-- sealed secret.yaml --\n" + nameOnly + "stringData: {a: LONG, b: x}\n-- sealed c.txt --\nLONG\n-- sealed a.json --\n{\"a\": \"LONG\"}\n" + `-- kustomization.yaml --
namespace: NAMESPACE
resources: [secret.yaml]
secretGenerator:
- {name: files, files: [c.txt, a.json]}
`},
	"block scalars": {tree: "-- sealed secret.yaml --\n" + objectHead + `stringData:
  literal: |
    CANARY
      indented

    last
  strip: |-
    CANARY
    last

  keep: |+
    CANARY
    last


  folded: >
    CANARY
    joined

    not joined
      indented
  folded-strip: >-
    CANARY
    joined
  folded-keep: >+
    CANARY
    joined

  indented: |2
      CANARY
    last
  quoted: "CANARY
    joined"
  plain: CANARY
    joined
`},
	"block scalars in a file": {tree: `-- sealed config.yaml --
literal: |
  CANARY

strip: |-
  CANARY
keep: |+
  CANARY

folded: >
  CANARY
  joined
list:
- >-
  CANARY
  joined
- |
  CANARY
-- kustomization.yaml --
namespace: NAMESPACE
secretGenerator:
- {name: app, files: [config.yaml]}
`},
	"data over several lines": {tree: "-- sealed secret.yaml --\n" + objectHead + "data:\n  k: |\n    WRAPPED\n  l: >-\n    WRAPPED\n"},
	"keys of every kind": {tree: "-- sealed secret.yaml --\n" + objectHead + `stringData:
  .dotfile: CANARY
  UPPER_case-1.txt: CANARY
  "123": CANARY
  "true": CANARY
  a.b.c: CANARY
  sops: CANARY
`},
	"an empty sealed Secret": {tree: "-- sealed secret.yaml --\n" + objectHead + "stringData: {a: \"\", b: CANARY}\ndata: {}\n"},
	"a type of its own": {tree: "-- sealed secret.yaml --\n" + objectHead + `type: kubernetes.io/basic-auth
immutable: true
stringData: {username: CANARY user, password: CANARY}
`},

	// Selectors.
	"encrypted_regex of Flux' guide":  {tree: "-- sealed secret.yaml with encrypted_regex: ^(data|stringData)$ --\n" + objectHead + "stringData: {a: CANARY}\n"},
	"encrypted_regex of single keys":  {tree: "-- sealed secret.yaml with encrypted_regex: ^pass --\n" + objectHead + "stringData: {password: CANARY, pass: CANARY, user: plain}\n"},
	"unencrypted_regex":               {tree: "-- sealed secret.yaml with unencrypted_regex: ^(apiVersion|kind|metadata|type)$ --\n" + objectHead + "stringData: {a: CANARY}\n"},
	"encrypted_suffix":                {tree: "-- sealed secret.yaml with encrypted_suffix: Data --\n" + objectHead + "stringData: {a: CANARY}\n"},
	"encrypted_comment_regex":         {tree: "-- sealed secret.yaml with encrypted_comment_regex: sealed --\n" + objectHead + "stringData:\n  # sealed\n  a: CANARY\n  b: plain\n"},
	"unencrypted_comment_regex":       {tree: "-- sealed secret.yaml with unencrypted_comment_regex: plain --\n# plain\napiVersion: v1\n# plain\nkind: Secret\n# plain\nmetadata: {name: db, namespace: NAMESPACE}\nstringData:\n  a: CANARY\n  # plain\n  b: x\n"},
	"mac_only_encrypted":              {tree: "-- sealed secret.yaml with encrypted_regex: ^(data|stringData)$; mac_only_encrypted: true --\n" + objectHead + "stringData: {a: CANARY}\n"},
	"mac_only_encrypted, edited":      {tree: "-- sealed secret.yaml with encrypted_regex: ^data$; mac_only_encrypted: true --\n" + objectHead + "data: {a: BASE64}\n", edit: addLabelOutsideMAC},
	"unencrypted_suffix, the default": {tree: "-- sealed config.yaml --\na: CANARY\nb_unencrypted: plain\nc_unencrypted: {d: plain}\n-- sealed a.env --\nA=CANARY\nB_unencrypted=plain\n" + filesOf("config.yaml", "a.env")},
	"unencrypted_suffix":              {tree: "-- sealed config.yaml with unencrypted_suffix: _plain --\na: CANARY\nb_plain: plain\n-- sealed c.json with unencrypted_suffix: _plain --\n{\"a\": \"CANARY\", \"b_plain\": [1]}\n" + filesOf("config.yaml", "c.json")},
	"selectors of a dotenv and an INI": {tree: "-- sealed a.env with encrypted_regex: ^PASS --\nPASSWORD=CANARY\nUSER=plain\n-- sealed my.ini with encrypted_suffix: _sealed --\n[a]\nb_sealed = CANARY\nc = plain\n" +
		filesOf("a.env", "my.ini") + "- {name: env, envs: [a.env]}\n"},

	// Files that were touched after sealing without a change to what they say.
	"a file of an old sops":                {tree: "-- sealed secret.yaml --\n" + objectHead + "stringData: {a: CANARY}\n", edit: asOldSops},
	"CRLF after sealing":                   {tree: sealedSecret + oneResource + "-- sealed a.env --\nA=CANARY\n", edit: asCRLF},
	"a formatter ran over a sealed file":   {tree: "-- sealed secret.yaml --\n" + objectHead + "stringData:\n  a: CANARY\n  # a comment\n  b: |\n    CANARY\n", edit: formatted},
	"comments were added to a sealed file": {tree: "-- sealed secret.yaml --\n" + objectHead + "stringData:\n  a: CANARY\n  b: CANARY\n", edit: commented},

	// Keys.
	"several recipients, one held":    {tree: "-- sealed secret.yaml to stranger,agent --\n" + objectHead + "stringData: {a: CANARY}\n"},
	"a retired key":                   {tree: "-- sealed secret.yaml to retired --\n" + objectHead + "stringData: {a: CANARY}\n-- sealed a.env to stranger,retired --\nA=CANARY\n-- kustomization.yaml --\nresources: [secret.yaml]\nsecretGenerator:\n- {name: env, namespace: NAMESPACE, envs: [a.env]}\n"},
	"a post-quantum key":              {tree: "-- sealed secret.yaml to quantum --\n" + objectHead + "stringData: {a: CANARY}\n"},
	"post-quantum and classic keys":   {tree: "-- sealed secret.yaml to quantum,agent --\n" + objectHead + "stringData: {a: CANARY}\n"},
	"key groups, all of them held":    {tree: "-- sealed secret.yaml with encrypted_regex: ^(data|stringData)$; shamir_threshold: 2; key_groups: [{age: [AGENT_RECIPIENT]}, {age: [STRANGER_RECIPIENT, RETIRED_RECIPIENT]}] --\n" + objectHead + "stringData: {a: CANARY}\n"},
	"key groups, enough of them held": {tree: "-- sealed secret.yaml with encrypted_regex: ^(data|stringData)$; shamir_threshold: 2; key_groups: [{age: [STRANGER_RECIPIENT]}, {age: [AGENT_RECIPIENT]}, {age: [RETIRED_RECIPIENT]}] --\n" + objectHead + "stringData: {a: CANARY}\n"},
	"a KMS, a Vault and ours":         {tree: "-- sealed secret.yaml --\n" + objectHead + "stringData: {a: CANARY}\n", edit: addCloudKeys},
}

// filesOf is a kustomization with one generated Secret of the given files.
func filesOf(files ...string) string {
	return "-- kustomization.yaml --\nnamespace: NAMESPACE\nsecretGenerator:\n- {name: app, files: [" + strings.Join(files, ", ") + "]}\n"
}

// cloudKeys are entries of sops metadata that name keys of other services.
const cloudKeys = `    kms:
        - arn: arn:aws:kms:us-east-1:000000000000:key/00000000-0000-0000-0000-000000000000
          created_at: "2026-01-01T00:00:00Z"
          enc: AAAA
          aws_profile: ""
    gcp_kms:
        - resource_id: projects/p/locations/global/keyRings/r/cryptoKeys/k
          created_at: "2026-01-01T00:00:00Z"
          enc: AAAA
    azure_kv:
        - vault_url: https://vault.example
          name: k
          version: v
          created_at: "2026-01-01T00:00:00Z"
          enc: AAAA
    hc_vault:
        - vault_address: http://vault.example:8200
          engine_path: transit
          key_name: k
          created_at: "2026-01-01T00:00:00Z"
          enc: vault:v1:AAAA
`

func addCloudKeys(_, text string) string {
	return strings.Replace(text, "\nsops:\n", "\nsops:\n"+cloudKeys, 1)
}

// asOldSops is the metadata as sops 3.7 wrote it.
func asOldSops(_, text string) string {
	text = regexp.MustCompile(`(?m)^    version: .*$`).ReplaceAllString(text, "    version: 3.7.3")
	return strings.Replace(text, "\nsops:\n", "\nsops:\n    kms: []\n    gcp_kms: []\n    azure_kv: []\n    hc_vault: []\n    pgp: []\n", 1)
}

func asCRLF(_, text string) string { return strings.ReplaceAll(text, "\n", "\r\n") }

// formatted writes YAML anew, with another indentation and a document marker.
func formatted(_, text string) string {
	var doc yaml.Node
	var out strings.Builder
	out.WriteString("---\n")
	e := yaml.NewEncoder(&out)
	e.SetIndent(2)
	if err := errors.Join(yaml.Unmarshal([]byte(text), &doc), e.Encode(&doc), e.Close()); err != nil {
		return text // which the test takes for a failure
	}
	return strings.ReplaceAll(out.String(), "type:str]", "type:str] # formatted")
}

func commented(_, text string) string {
	return "# managed by a bot\n" + strings.Replace(text, "    b: ENC[", "    # a bot was here\n    b: ENC[", 1)
}

func addLabelOutsideMAC(_, text string) string {
	return strings.Replace(text, "kind: Secret\n", "kind: Secret\ntype: Opaque\n", 1)
}

var notInNames = regexp.MustCompile(`[^a-z0-9]+`)

// TestSecretsAreThoseOfStockSopsAndKustomize applies all scenarios in one pass.
// Where that fails each one that is not as it should be is applied alone, to
// tell whose fault it is.
func TestSecretsAreThoseOfStockSopsAndKustomize(t *testing.T) {
	t.Parallel()
	e := newEnv(t).withKeys()
	secret := strings.TrimSuffix(canary(t), "?") // which YAML forbids in {a: b?}
	s := newStock(e, secret)
	type prepared struct {
		dir, namespace string
		want           map[string]shape
	}
	all := map[string]prepared{}
	e.repo.Remove("apps/begin.yaml")
	for i, name := range slices.Sorted(maps.Keys(sopsScenarios)) {
		c := sopsScenarios[name]
		p := prepared{
			dir:       fmt.Sprintf("apps/%03d-%s", i, strings.Trim(notInNames.ReplaceAllString(strings.ToLower(name), "-"), "-")),
			namespace: e.cp.Namespace(t, fmt.Sprintf("sops-%03d", i)),
		}
		sealed, plain := s.tree(c.tree, p.dir, p.namespace)
		if c.edit != nil {
			for file, f := range sealed {
				after := c.edit(file, string(f.Data))
				if after == string(f.Data) {
					t.Fatalf("%s: nothing to edit in\n%s", name, after)
				}
				f.Data = []byte(after)
			}
		}
		e.writeTree(sealed)
		p.want = stockShapes(t, plain, p.dir)
		if !holdsValue(p.want, strings.TrimSuffix(secret, "&")) { // JSON escapes it
			t.Fatalf("%s: no sealed value is in what it should give: %v", name, p.want)
		}
		all[name] = p
	}
	e.repo.Commit("all scenarios")

	trap := newTrap(t)
	agent := func(more ...string) (onceReport, string, int) {
		t.Helper()
		args := e.syncArgs(append([]string{"--once", "-o", "json", "--decryption-secret", "retired", "--plaintext-secrets", "Allow", "--outside-secrets", "Allow"}, more...)...)
		out, errOut, code := e.run("", "env", trap.env(e, args...)...)
		return parseReport(t, out, errOut), out + errOut, code
	}
	report, said, code := agent("--log-level", "debug", "-v", "10")
	for _, name := range slices.Sorted(maps.Keys(all)) {
		p := all[name]
		t.Run(name, func(t *testing.T) {
			diff := cmp.Diff(p.want, e.liveShapes(p.namespace))
			if code != 0 && (diff != "" || strings.Contains(strings.Join(report.Failures, "\n"), p.dir)) {
				alone, more, _ := agent("--path", p.dir, "--prune=false")
				said += more
				for _, f := range alone.Failures {
					t.Error(f)
				}
				diff = cmp.Diff(p.want, e.liveShapes(p.namespace))
			}
			if diff != "" {
				t.Errorf("(-sops decrypt and kustomize build +cluster):\n%s", diff)
			}
		})
	}
	if code != 0 {
		t.Errorf("agent sync --once of all scenarios: exit code %d, failures:\n%s", code, strings.Join(report.Failures, "\n"))
	}
	if n := trap.calls.Load(); n != 0 {
		t.Errorf("the agent tried to reach other services %d times", n)
	}
	t.Run("again", func(t *testing.T) {
		again, more, codeAgain := agent()
		said += more
		if codeAgain != code || again.Requests != 0 || again.Unchanged != report.Objects {
			t.Errorf("a second pass: exit code %d, %d requests, %d of %d objects unchanged", codeAgain, again.Requests, again.Unchanged, report.Objects)
		}
	})
	t.Run("no value shows", func(t *testing.T) {
		dumps := harness.Undump(said)
		if code == 0 && !strings.Contains(dumps, "PartialObjectMetadata") {
			t.Error("the log holds no hexdump of a body: the search for values in them proves nothing")
		}
		e.showsNowhere(secret, haystack{"what the agent said", []byte(said)}, haystack{"hexdumps in what the agent said", []byte(dumps)})
	})
}

func holdsValue(shapes map[string]shape, text string) bool {
	for _, s := range shapes {
		for _, v := range s.Data {
			if strings.Contains(v, text) {
				return true
			}
		}
	}
	return false
}

// onceReport is what `agent sync --once -o json` prints.
type onceReport struct {
	Ready                                                  bool
	Objects, Created, Changed, Pruned, Unchanged, Requests int
	Actions                                                []struct{ Object, Action, Reason string }
	Failures, Warnings                                     []string
}

func parseReport(t *testing.T, out, errOut string) onceReport {
	t.Helper()
	var r onceReport
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatalf("not a report: %v\n%s\n%s", err, out, tail(errOut, 20))
	}
	return r
}
