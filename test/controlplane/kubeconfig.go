package main

import "encoding/json"

// auditPolicy logs the metadata of every request, with one event when a request
// is complete. Requests that may run long (watches, logs, proxies) get an event
// when they start too, and a failed authentication has only that one; so
// ResponseStarted is not omitted, and readers count each auditID once.
const auditPolicy = `{
  "apiVersion": "audit.k8s.io/v1",
  "kind": "Policy",
  "omitStages": ["RequestReceived"],
  "rules": [{"level": "Metadata"}]
}
`

// kubeconfig renders a kubeconfig with embedded certificates, as JSON (which is
// YAML too).
func kubeconfig(server, user string, ca []byte, client pair) ([]byte, error) {
	type object = map[string]any
	return json.MarshalIndent(object{
		"apiVersion": "v1",
		"kind":       "Config",
		"clusters": []object{{"name": "gitseal-test", "cluster": object{
			"server":                     server,
			"certificate-authority-data": ca, // []byte is base64 in JSON
		}}},
		"users": []object{{"name": user, "user": object{
			"client-certificate-data": client.certificate,
			"client-key-data":         client.key,
		}}},
		"contexts":        []object{{"name": "gitseal-test", "context": object{"cluster": "gitseal-test", "user": user}}},
		"current-context": "gitseal-test",
	}, "", "  ")
}
