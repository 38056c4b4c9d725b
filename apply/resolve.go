package apply

import (
	"encoding/json"
	"errors"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/gitseal/gitseal/decrypt"
)

// Desired is an object with the place where it goes.
type Desired struct {
	ID     ID
	Object decrypt.Object
	kind   kind
	scaled bool // an autoscaler from git sets its replicas

	ignored    []pointer // fields that others may take over; set by NewPlan
	ignoredErr error
}

// Failure is an object for which something went wrong; Err is safe to print.
type Failure struct {
	ID  ID
	Err error
	// Wave of the object, where it was not even tried.
	Wave int
}

func (f Failure) Error() string { return f.ID.String() + ": " + f.Err.Error() }
func (f Failure) Unwrap() error { return f.Err }

// Resolve finds each object's resource and namespace. A custom resource whose
// CRD is among the objects is resolved by that. Objects without a namespace go
// to defaultNamespace.
func (c *Cluster) Resolve(objects []decrypt.Object, defaultNamespace string) ([]Desired, []Failure) {
	kinds := crdKinds(objects)
	var out []Desired
	var failed []Failure
	seen := map[ID]bool{}
	asked := false
	for _, o := range objects {
		gvk := o.GroupVersionKind()
		id := ID{Group: gvk.Group, Kind: gvk.Kind, Namespace: o.Namespace(), Name: o.Name()}
		k, ok := kinds[gvk]
		if !ok {
			var err error
			if k, err = c.lookup(gvk); err != nil && !asked {
				// Its CRD may have been installed since: ask once in a pass.
				asked = true
				c.forget()
				k, err = c.lookup(gvk)
			}
			if err != nil {
				failed = append(failed, Failure{id, err, WaveOf(o.Masked.GetAnnotations())})
				continue
			}
			kinds[gvk] = k // a lookup makes a good deal of garbage
		}
		switch {
		case k.namespaced && id.Namespace == "":
			id.Namespace = defaultNamespace
		case !k.namespaced:
			id.Namespace = ""
		}
		if seen[id] {
			failed = append(failed, Failure{id, twice(o, defaultNamespace), WaveOf(o.Masked.GetAnnotations())})
			continue
		}
		seen[id] = true
		out = append(out, Desired{ID: id, Object: withoutInjected(o), kind: k})
	}
	scaleTargets(out)
	return out, failed
}

func twice(o decrypt.Object, defaultNamespace string) error {
	switch {
	case o.FromSealedSecret():
		return errors.New("is in git twice: as a SealedSecret, and once more")
	case o.Namespace() == "":
		return errors.New("is in git twice; without a namespace it goes to " + defaultNamespace)
	default:
		return errors.New("is in git twice, once perhaps as a SealedSecret or without a namespace")
	}
}

// crdKinds reads the kinds that the CRDs among the objects define.
func crdKinds(objects []decrypt.Object) map[schema.GroupVersionKind]kind {
	out := map[schema.GroupVersionKind]kind{}
	for _, o := range objects {
		if !isCRD(o.GroupVersionKind().GroupKind()) {
			continue
		}
		b, err := json.Marshal(o.Masked.Object["spec"])
		if err != nil {
			continue
		}
		var spec struct {
			Group    string
			Scope    string
			Names    struct{ Kind, Plural string }
			Versions []struct{ Name string }
		}
		if json.Unmarshal(b, &spec) != nil {
			continue // the API server will say what is wrong with it
		}
		for _, v := range spec.Versions {
			out[schema.GroupVersionKind{Group: spec.Group, Version: v.Name, Kind: spec.Names.Kind}] = kind{
				resource:   schema.GroupVersionResource{Group: spec.Group, Version: v.Name, Resource: spec.Names.Plural},
				namespaced: spec.Scope == "Namespaced",
			}
		}
	}
	return out
}

func isCRD(gk schema.GroupKind) bool {
	return gk.Group == "apiextensions.k8s.io" && gk.Kind == "CustomResourceDefinition"
}
