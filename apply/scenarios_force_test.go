package apply

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

func roleBinding(role, annotation string) string {
	return "apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {name: b, namespace: NS, annotations: {" + annotation + "}}\nroleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: " + role + "}\nsubjects: []\n"
}

func storageClass(provisioner, annotation string) string {
	return "apiVersion: storage.k8s.io/v1\nkind: StorageClass\nmetadata: {name: NS-class, annotations: {" + annotation + "}}\nprovisioner: example.com/" + provisioner + "\n"
}

func fixedSecret(value, annotation string) string {
	return "apiVersion: v1\nkind: Secret\nmetadata: {name: s, namespace: NS, annotations: {" + annotation + "}}\nimmutable: true\nstringData: {v: " + value + "}\n"
}

func job(image, annotation string) string {
	return "apiVersion: batch/v1\nkind: Job\nmetadata: {name: j, namespace: NS, annotations: {" + annotation + "}}\nspec: {suspend: true, template: {spec: {restartPolicy: Never, containers: [{name: c, image: " + image + "}]}}}\n"
}

func volume(size, annotation string) string {
	return "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: v, namespace: NS, annotations: {" + annotation + "}}\nspec: {accessModes: [" + size + "], resources: {requests: {storage: 1Gi}}}\n"
}

const (
	force      = "gitseal.io/force: enabled"
	fluxForced = "kustomize.toolkit.fluxcd.io/force: enabled"
	argoForced = "argocd.argoproj.io/sync-options: 'Validate=false,Force=true'"
)

// remade is a change of an immutable field: refused with a hint, and carried out
// once the object, or the Sync, asks for it.
func remade(object, before, after, forced string, allowed func(*player) error) story {
	hint := "; a field of it can not be changed (it is immutable); the annotation gitseal.io/force: enabled lets gitseal delete the object and make it anew"
	kind, _, _ := strings.Cut(object, "/")
	return story{
		{git: before, done: "create " + object},
		{git: after, failed: []string{"the API server refused it: Invalid (422)"}, inventory: object + " intended", cluster: object + " same", then: hinted(kind, hint)},
		{meanwhile: allowed, git: forced, done: "change " + object, cluster: object + " anew"},
		{requests: "none", cluster: object + " same"},
	}
}

// hinted applies once more and looks at the whole text of the only failure.
func hinted(kind, hint string) act {
	return func(p *player) error {
		res, err := p.run.Run(p.t.Context(), NewPlan(p.input(p.git)), "commit")
		if err != nil {
			return err
		}
		var refusal *RefusedError
		if len(res.Failed) != 1 || !errors.As(res.Failed[0].Err, &refusal) || refusal.Code != 422 || !strings.Contains(res.Failed[0].Error(), hint) || res.Failed[0].ID.Kind != kind {
			return fmt.Errorf("failed: %v, want %s", res.Failed, hint)
		}
		return nil
	}
}

func forceAll(p *player) error {
	p.run.Force = true
	return nil
}

// 4, 14
var forceStories = map[string]story{
	"a RoleBinding to another role":        remade("RoleBinding/b", roleBinding("one", ""), roleBinding("two", ""), roleBinding("two", force), nil),
	"a StorageClass, in no namespace":      remade("StorageClass/NS-class", storageClass("one", ""), storageClass("two", ""), storageClass("two", fluxForced), nil),
	"an immutable Secret":                  remade("Secret/s", fixedSecret("one", ""), fixedSecret("two", ""), fixedSecret("two", argoForced), nil),
	"a Job with another image":             remade("Job/j", job("one", ""), job("two", ""), job("two", "argocd.argoproj.io/sync-options: Replace=true"), nil),
	"a StorageClass of a Sync that forces": remade("StorageClass/NS-class", storageClass("one", ""), storageClass("two", ""), storageClass("two", ""), forceAll),
	"a mistake is no reason to delete": {
		{git: job("one", ""), done: "create Job/j"},
		{git: strings.Replace(job("two", force), "Never", "Sometimes", 1), failed: []string{"Job/NS/j: the API server refused it: Invalid (422)"}, inventory: "Job/j intended", cluster: "Job/j same"},
		{git: job("two", force), done: "change Job/j", cluster: "Job/j anew"},
	},
	"a change that the API server takes is no reason to delete": {
		{git: storageClass("one", force), done: "create StorageClass/NS-class"},
		{git: storageClass("one", force+", a: b"), done: "change StorageClass/NS-class", requests: "patch storageclasses/NS-class", cluster: "StorageClass/NS-class changed"},
	},
	"data is never deleted": {
		{git: volume("ReadWriteOnce", force), done: "create PersistentVolumeClaim/v"},
		{meanwhile: forceAll, git: volume("ReadWriteMany", force), failed: []string{"PersistentVolumeClaim/NS/v: the API server refused it: Invalid (422)"}, inventory: "PersistentVolumeClaim/v intended",
			cluster: "PersistentVolumeClaim/v same", requests: "patch persistentvolumeclaims/v", then: hinted("PersistentVolumeClaim", "; gitseal never makes a PersistentVolumeClaim anew; where the change is meant, do it by hand")},
	},
	"a CRD is never deleted, nor its objects": {
		{meanwhile: forceAll, git: versions("true", "false") + newVersion + widget("v1"), done: "create CustomResourceDefinition/widgets.GROUP, create Widget/one"},
		{git: strings.Replace(versions("true", "false")+newVersion, "scope: Namespaced", "scope: Cluster", 1), failed: []string{"CustomResourceDefinition/widgets.GROUP: the API server refused it: Invalid (422)"},
			inventory: "CustomResourceDefinition/widgets.GROUP intended, Widget/one applied", cluster: "CustomResourceDefinition/widgets.GROUP same, Widget/one same"},
	},
	"what a finalizer holds is made anew once it is gone": {
		{git: roleBinding("one", ""), done: "create RoleBinding/b"},
		{meanwhile: all(patch("RoleBinding/b", `{"metadata":{"finalizers":["example.com/hold"]}}`), later(patch("RoleBinding/b", `{"metadata":{"finalizers":null}}`))),
			git: roleBinding("two", force), done: "change RoleBinding/b", cluster: "RoleBinding/b anew", then: holds("RoleBinding/b", "roleRef.name=two")},
	},
}

// later does it when the object is being deleted.
func later(a act) act {
	return func(p *player) error {
		done := make(chan error, 1)
		go func() {
			done <- eventually(func(p *player) error {
				if err := holds("RoleBinding/b", "metadata.deletionTimestamp=")(p); err == nil {
					return errors.New("not yet")
				}
				return a(p)
			})(p)
		}()
		p.t.Cleanup(func() {
			select {
			case err := <-done:
				if err != nil {
					p.t.Error(err)
				}
			case <-time.After(time.Minute):
				p.t.Error("the object was never being deleted")
			}
		})
		return nil
	}
}
