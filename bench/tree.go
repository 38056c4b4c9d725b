package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/gitseal/gitseal/crypto"
)

const perNamespace = 50

// tree generates a repository: one folder and kustomization for each namespace,
// and one kustomization over them. prefix tells the namespaces of two trees
// apart.
func tree(prefix string, objects int, recipients []crypto.Recipient) (map[string]string, error) {
	files := map[string]string{}
	var top strings.Builder
	top.WriteString("resources:\n")
	for n := 0; n < objects; n += perNamespace {
		ns := fmt.Sprintf("%s-%03d", prefix, n/perNamespace)
		fmt.Fprintf(&top, "  - %s\n", ns)
		var list strings.Builder
		list.WriteString("resources:\n")
		add := func(name, content string) {
			files["apps/"+ns+"/"+name] = content
			fmt.Fprintf(&list, "  - %s\n", name)
		}
		add("namespace.yaml", fmt.Sprintf("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: %s\n", ns))
		for i := 1; i < min(perNamespace, objects-n); i++ {
			name := fmt.Sprintf("o%02d", i)
			switch i % 5 {
			case 0:
				sealed, err := sealedSecret(ns, name, recipients)
				if err != nil {
					return nil, err
				}
				add(name+".yaml", sealed)
			case 1:
				add(name+".yaml", fmt.Sprintf("apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: %s\n  namespace: %s\nspec:\n  replicas: 1\n  selector:\n    matchLabels: {app: %s}\n  template:\n    metadata:\n      labels: {app: %s}\n    spec:\n      containers:\n        - name: c\n          image: nginx:1.29\n          ports: [{containerPort: 80}]\n", name, ns, name, name))
			case 2:
				add(name+".yaml", fmt.Sprintf("apiVersion: v1\nkind: Service\nmetadata:\n  name: %s\n  namespace: %s\nspec:\n  selector: {app: o%02d}\n  ports: [{port: 80}]\n", name, ns, i-1))
			default:
				add(name+".yaml", fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: %s\n  namespace: %s\ndata:\n  a: \"1\"\n  b: some text that is a little longer\n", name, ns))
			}
		}
		files["apps/"+ns+"/kustomization.yaml"] = list.String()
	}
	files["apps/kustomization.yaml"] = top.String()
	return files, nil
}

func sealedSecret(ns, name string, recipients []crypto.Recipient) (string, error) {
	plain := secret(ns, name)
	b, err := crypto.SealSOPS(crypto.SealRequest{
		Plain: crypto.NewSecretString(plain), Format: crypto.YAML, Binding: crypto.Binding(ns + "/" + name), Now: time.Now(),
		Rule: crypto.Rule{EncryptedRegex: crypto.KubernetesSelector, Recipients: recipients},
	})
	return string(b), err
}

// secret is a Secret of four values, in the clear.
func secret(ns, name string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata:\n  name: %s\n  namespace: %s\nstringData:\n  user: admin\n  password: %s-%s-hunter2\n  host: db.example.com\n  dsn: postgres://admin@db.example.com/x\n", name, ns, ns, name)
}
