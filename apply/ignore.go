package apply

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
	"sigs.k8s.io/structured-merge-diff/v6/value"

	"github.com/gitseal/gitseal/crypto"
)

// pointer names a field of an object by the steps of a JSON pointer (RFC 6901).
type pointer []string

// replicas is the one field that an autoscaler owns by right.
var (
	replicas     = pointer{"spec", "replicas"}
	replicasPath = fieldpath.MakePathOrDie("spec", "replicas")
	replicasText = replicas.String()
)

// autoscalers are who sets replicas by the subresource scale: the controller of
// HorizontalPodAutoscalers, and KEDA, which scales to and from zero itself. A person
// with `kubectl scale` is not among them.
var autoscalers = []string{"kube-controller-manager", "keda-operator", "keda"}

// IgnoreRule lets others take fields of objects over: each is sent until somebody
// else has written it.
type IgnoreRule struct {
	Kind     schema.GroupKind
	Name     string // "" for every object of the kind
	pointers []pointer
}

var ignoreRule = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9]*)(?:\.([a-z0-9.-]+))?(?:/([^:]+))?:(/.*)$`)

// ParseIgnoreRule reads KIND[.GROUP][/NAME]:POINTER[,POINTER…], for instance
// "Deployment.apps/web:/spec/replicas".
func ParseIgnoreRule(s string) (IgnoreRule, error) {
	m := ignoreRule.FindStringSubmatch(s)
	if m == nil {
		return IgnoreRule{}, fmt.Errorf("%q is not KIND[.GROUP][/NAME]:/JSON/POINTER, as in Deployment.apps/web:/spec/replicas", s)
	}
	p, err := parsePointers(m[4])
	return IgnoreRule{Kind: schema.GroupKind{Group: m[2], Kind: m[1]}, Name: m[3], pointers: p}, err
}

// ParseIgnoreRules reads several; the error names every one that is wrong.
func ParseIgnoreRules(texts []string) ([]IgnoreRule, error) {
	out, errs := make([]IgnoreRule, len(texts)), make([]error, len(texts))
	for i, text := range texts {
		out[i], errs[i] = ParseIgnoreRule(text)
	}
	return out, errors.Join(errs...)
}

// parsePointers reads JSON pointers that are separated by commas or white space.
func parsePointers(s string) ([]pointer, error) {
	var out []pointer
	for _, text := range strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' || r == '\n' || r == '\t' }) {
		if !strings.HasPrefix(text, "/") {
			return nil, fmt.Errorf("%q is not a JSON pointer, which begins with a slash, as in /spec/replicas", text)
		}
		var p pointer
		for step := range strings.SplitSeq(text[1:], "/") {
			p = append(p, strings.NewReplacer("~1", "/", "~0", "~").Replace(step))
		}
		if essential(p) {
			return nil, fmt.Errorf("%s can not be left to others: gitseal knows an object by it", text)
		}
		out = append(out, p)
	}
	return out, nil
}

// essential fields make an object what it is, or ours.
func essential(p pointer) bool {
	for _, e := range []pointer{{"apiVersion"}, {"kind"}, {"metadata", "name"}, {"metadata", "namespace"}, {"metadata", "labels", SyncLabel}} {
		if n := min(len(e), len(p)); slices.Equal(p[:n], e[:n]) && len(p) <= len(e) {
			return true
		}
	}
	return false
}

// leave says which fields of an object others may take over: by its annotation, by
// the rules of the Sync, and by an autoscaler in git.
func (d *Desired) leave(rules []IgnoreRule) {
	out, err := parsePointers(d.Object.Masked.GetAnnotations()[ignoreAnnotation])
	if err != nil {
		d.ignoredErr = fmt.Errorf("the annotation %s: %w", ignoreAnnotation, err)
		return
	}
	for _, rule := range rules {
		if rule.Kind == d.ID.GroupKind() && (rule.Name == "" || rule.Name == d.ID.Name) {
			out = append(out, rule.pointers...)
		}
	}
	if d.scaled {
		out = append(out, replicas)
	}
	for i, p := range out {
		if p[0] == "stringData" && isSecret(d.ID) {
			out[i] = append(pointer{"data"}, p[1:]...)
		}
	}
	d.ignored = out
}

// leaving is a text of the fields that others may take over.
func (d Desired) leaving() string {
	texts := make([]string, len(d.ignored))
	for i, p := range d.ignored {
		texts[i] = p.String()
	}
	return strings.Join(texts, " ")
}

// String is the JSON pointer.
func (p pointer) String() string {
	var b strings.Builder
	for _, step := range p {
		b.WriteString("/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(step))
	}
	return b.String()
}

// leaves reports whether a text of fields names this one.
func leaves(leaving, field string) bool { return slices.Contains(strings.Fields(leaving), field) }

// locate finds the field of an object in a set of owned fields. Of a list that the
// API server keeps as a whole no item is owned alone: the list stands for it, and
// the steps that lead to it are returned.
func (p pointer) locate(set *fieldpath.Set, object any) (path fieldpath.Path, steps pointer, found bool) {
	for i, step := range p {
		element, inside, ok := owned(set, object, step)
		if !ok {
			return nil, nil, false
		}
		path = append(path, element)
		below, split := set.Children.Get(element)
		switch {
		case i == len(p)-1:
			return path, p, true
		case !split:
			return path, p[:i+1], true
		}
		set, object = below, inside
	}
	return nil, nil, false
}

// owned finds one step in a set.
func owned(set *fieldpath.Set, object any, step string) (element fieldpath.PathElement, inside any, ok bool) {
	has := func(e fieldpath.PathElement) bool {
		_, below := set.Children.Get(e)
		return below || set.Members.Has(e)
	}
	switch v := object.(type) {
	case map[string]any:
		element = fieldpath.PathElement{FieldName: &step}
		return element, v[step], has(element)
	case []any:
		n, err := strconv.Atoi(step)
		if err != nil || n < 0 || n >= len(v) {
			return element, nil, false
		}
		count := 0
		look := func(e fieldpath.PathElement) {
			if isItem(e, v[n]) && (count == 0 || !e.Equals(element)) {
				element = e
				count++
			}
		}
		set.Members.Iterate(look)
		set.Children.Iterate(look)
		return element, v[n], count == 1
	}
	return element, nil, false
}

// isItem reports whether a path element stands for a list item. Fields of its key
// that git leaves out have been defaulted.
func isItem(e fieldpath.PathElement, item any) bool {
	switch {
	case e.Value != nil:
		return value.Equals(*e.Value, value.NewValueInterface(item))
	case e.Key != nil:
		fields, ok := item.(map[string]any)
		if !ok {
			return false
		}
		for _, f := range *e.Key {
			if v, there := fields[f.Name]; there && !value.Equals(f.Value, value.NewValueInterface(v)) {
				return false
			}
		}
		return true
	}
	return false
}

// yield is the body without the fields that others have taken over.
func (r *Runner) yield(ctx context.Context, d Desired, e Entry, body crypto.Secret) (crypto.Secret, error) {
	live, err := r.Cluster.get(ctx, d.kind.resource, d.ID)
	if apierrors.IsNotFound(err) {
		return body, nil
	}
	if err != nil {
		return body, err
	}
	theirs := takenOver(live, r.Owner.fieldManager(), d, e)
	if len(theirs) == 0 {
		return body, nil
	}
	body, _, err = d.Object.Without(theirs...).Body(r.Owner.labels())
	return body, err
}

// takenOver are the fields that others have written, as the steps to them: somebody
// else owns it, or we did and do no more, as after a scale to zero, which leaves no
// owner. While an object is new to us, what a predecessor owns does not count.
func takenOver(m metav1.Object, manager string, d Desired, e Entry) [][]string {
	var out [][]string
	take := func(from *fieldpath.Set, pointers []pointer, unless *fieldpath.Set) {
		for _, p := range pointers {
			if path, steps, ok := p.locate(from, d.Object.Masked.Object); ok && !unless.Has(path) {
				out = append(out, steps)
			}
		}
	}
	isNew := e.Evidence.UID == ""
	regained := leaves(e.Leaving, replicasText) && !leaves(d.leaving(), replicasText)
	ours := &fieldpath.Set{}
	for _, f := range m.GetManagedFields() {
		if f.FieldsV1 == nil || f.Subresource == "status" || isNew && f.Subresource == "" && slices.Contains(predecessors, f.Manager) {
			continue
		}
		set, err := fieldSet(f)
		switch {
		case err != nil: // then it is overruled, as without a rule
		case isOurs(f, manager):
			ours = set
		case scales(f) && regained: // its autoscaler leaves git with this commit
		case scales(f):
			take(set, append(slices.Clip(d.ignored), replicas), &fieldpath.Set{})
		default:
			take(set, d.ignored, &fieldpath.Set{})
		}
	}
	take(ignoredSet(e.Ignored), d.ignored, ours)
	return out
}

// scales reports whether the entry is that of an autoscaler.
func scales(f metav1.ManagedFieldsEntry) bool {
	return f.Subresource == "scale" && slices.Contains(autoscalers, f.Manager)
}

// autoscaled reports whether an autoscaler owns the replicas.
func autoscaled(m metav1.Object) bool { return ownedBy(m, replicasPath, scales) }

// hasReplicas reports whether git sets the field.
func hasReplicas(d Desired) bool {
	spec, _ := d.Object.Masked.Object["spec"].(map[string]any)
	_, ok := spec["replicas"]
	return ok
}

// ignoredSet are the fields of Entry.Ignored.
func ignoredSet(text string) *fieldpath.Set {
	set := &fieldpath.Set{}
	if text == "" || set.FromJSON(strings.NewReader(text)) != nil {
		return &fieldpath.Set{}
	}
	return set
}

// nowIgnored is what Ignored becomes after an apply: what of the ignored fields is
// ours, and what was and is not any more.
func nowIgnored(m metav1.Object, manager string, d Desired, before Entry) (string, error) {
	if len(d.ignored) == 0 {
		return "", nil
	}
	known := ignoredSet(before.Ignored)
	for _, f := range m.GetManagedFields() {
		if isOurs(f, manager) && f.FieldsV1 != nil {
			set, err := fieldSet(f)
			if err != nil {
				return "", err
			}
			known = known.Union(set)
		}
	}
	out := &fieldpath.Set{}
	for _, p := range d.ignored {
		if path, _, ok := p.locate(known, d.Object.Masked.Object); ok {
			out.Insert(path)
		}
	}
	if out.Empty() {
		return "", nil
	}
	b, err := out.ToJSON()
	if err != nil {
		return "", errors.New("the fields to ignore can not be written")
	}
	return string(b), nil
}

// scaleTargets marks the objects whose replicas an autoscaler among the objects sets.
func scaleTargets(desired []Desired) {
	targets := map[ID]bool{}
	for _, d := range desired {
		id := ID{Namespace: d.ID.Namespace}
		switch d.ID.GroupKind() {
		case schema.GroupKind{Group: "autoscaling", Kind: "HorizontalPodAutoscaler"}:
		case schema.GroupKind{Group: "keda.sh", Kind: "ScaledObject"}:
			id.Group, id.Kind = "apps", "Deployment"
		default:
			continue
		}
		ref, _, _ := unstructured.NestedStringMap(d.Object.Masked.Object, "spec", "scaleTargetRef")
		if v, ok := ref["apiVersion"]; ok {
			gv, _ := schema.ParseGroupVersion(v)
			id.Group = gv.Group
		}
		id.Kind, id.Name = cmp.Or(ref["kind"], id.Kind), ref["name"]
		targets[id] = true
	}
	for i, d := range desired {
		desired[i].scaled = targets[d.ID]
	}
}
