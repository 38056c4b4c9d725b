package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/gitseal/gitseal/api/v1alpha1"
)

// syncFlags say which cluster and namespace a command about Syncs asks.
type syncFlags struct {
	clusterFlags
	namespace     string
	allNamespaces bool
	output        string
	timeout       time.Duration
}

func (o *syncFlags) add(cmd *cobra.Command, outputs ...string) {
	f := cmd.Flags()
	o.clusterFlags.add(f)
	f.StringVarP(&o.namespace, "namespace", "n", "", "namespace of the Syncs (default: the one of the kubeconfig's context)")
	f.BoolVarP(&o.allNamespaces, "all-namespaces", "A", false, "the Syncs of all namespaces")
	outputs = append([]string{"json", "yaml"}, outputs...)
	f.StringVarP(&o.output, "output", "o", "", "output format: "+strings.Join(outputs[:len(outputs)-1], ", ")+" or "+outputs[len(outputs)-1])
	must(cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(outputs, cobra.ShellCompDirectiveNoFileComp)))
	must(cmd.RegisterFlagCompletionFunc("namespace", o.completeNamespaces))
	cmd.ValidArgsFunction = o.completeNames
	cmd.PreRunE = func(*cobra.Command, []string) error {
		if o.output != "" && !slices.Contains(outputs, o.output) {
			return fmt.Errorf("output %q is none of %s", o.output, strings.Join(outputs, ", "))
		}
		return nil
	}
}

// syncs are the Syncs of one namespace, or of all where it is "".
type syncs struct {
	client    dynamic.NamespaceableResourceInterface
	config    *rest.Config
	namespace string
}

// object is a Sync, also as the API server gave it.
type object struct {
	v1alpha1.Sync
	raw *unstructured.Unstructured
}

// label names the Sync in what is printed; it says the namespace where there may be
// several.
func (s *syncs) label(o object) string {
	if s.namespace == "" {
		return "sync/" + o.Name + " of namespace " + o.Namespace
	}
	return "sync/" + o.Name
}

func (o *syncFlags) connect() (*syncs, error) {
	cfg, namespace, err := o.configIn()
	if err != nil {
		return nil, err
	}
	cfg.QPS = -1 // the API server's priority and fairness throttles
	client, err := dynamic.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("connect to the API server: %w", err)
	}
	s := &syncs{client: client.Resource(v1alpha1.GroupVersion.WithResource("syncs")), config: cfg, namespace: cmp.Or(o.namespace, namespace)}
	if o.allNamespaces {
		s.namespace = ""
	}
	return s, nil
}

func (s *syncs) in(namespace string) dynamic.ResourceInterface {
	if namespace == "" {
		return s.client
	}
	return s.client.Namespace(namespace)
}

// namesOf reads NAME and sync/NAME, each once.
func (o *syncFlags) namesOf(args []string) ([]string, error) {
	var names []string
	for _, arg := range args {
		kind, name, slash := strings.Cut(arg, "/")
		if !slash {
			kind, name = "sync", arg
		}
		if !isSyncKind(kind) {
			return nil, fmt.Errorf("%q is no Sync: say NAME or sync/NAME", arg)
		}
		if problems := validation.IsDNS1123Subdomain(name); len(problems) > 0 {
			return nil, fmt.Errorf("%q can not be the name of a Sync", name)
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if len(names) > 0 && o.allNamespaces {
		return nil, errors.New("a name goes with one namespace: leave out --all-namespaces")
	}
	return names, nil
}

func isSyncKind(s string) bool {
	return slices.Contains([]string{"sync", "syncs", "sync.gitseal.io", "syncs.gitseal.io"}, strings.ToLower(s))
}

// find reads the Syncs of these names in their order, or all where there is none, by
// namespace and name. What was found is valid where it fails.
func (s *syncs) find(ctx context.Context, names []string) ([]object, error) {
	if len(names) == 0 {
		all, _, err := s.list(ctx, metav1.ListOptions{})
		return all, err
	}
	var found []object
	var errs []error
	for _, name := range names {
		raw, err := s.in(s.namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			if err = s.explain(ctx, err, name); !apierrors.IsNotFound(err) {
				return found, err
			}
			errs = append(errs, err)
			continue
		}
		o, err := newObject(raw)
		if err != nil {
			return found, err
		}
		found = append(found, o)
	}
	return found, errors.Join(errs...)
}

func (s *syncs) list(ctx context.Context, o metav1.ListOptions) ([]object, string, error) {
	l, err := s.in(s.namespace).List(ctx, o)
	if err != nil {
		return nil, "", s.explain(ctx, err, "")
	}
	var all []object
	for i := range l.Items {
		o, err := newObject(&l.Items[i])
		if err != nil {
			return nil, "", err
		}
		all = append(all, o)
	}
	slices.SortFunc(all, func(a, b object) int {
		return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
	})
	return all, l.GetResourceVersion(), nil
}

func newObject(raw *unstructured.Unstructured) (object, error) {
	raw.SetManagedFields(nil) // as kubectl shows objects
	o := object{raw: raw}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(raw.Object, &o.Sync); err != nil {
		return o, fmt.Errorf("read sync/%s: %w", raw.GetName(), err)
	}
	return o, nil
}

func (s *syncs) patch(ctx context.Context, o object, patch string) (object, error) {
	raw, err := s.in(o.Namespace).Patch(ctx, o.Name, types.MergePatchType, []byte(patch), metav1.PatchOptions{FieldManager: "gitseal-seal"})
	if err != nil {
		return object{}, s.explain(ctx, err, "")
	}
	return newObject(raw)
}

// explain adds a way out to what the API server says; name is the Sync that was asked
// for, "" for all.
func (s *syncs) explain(ctx context.Context, err error, name string) error {
	switch {
	case !apierrors.IsNotFound(err):
		return err
	case apierrors.HasStatusCause(err, metav1.CauseTypeUnexpectedServerResponse):
		return hint(errNoCRD, "gitseal's CRD is missing: apply deploy/base/crds of its repository, or say --context for another cluster")
	case name == "":
		return err
	}
	gone := &notFoundError{err, fmt.Sprintf("sync/%s not found in namespace %s", name, s.namespace)}
	others, _, err := s.list(ctx, metav1.ListOptions{})
	if err != nil {
		return gone
	}
	if len(others) == 0 {
		return hint(gone, "namespace %s has no Syncs; `seal get -A` lists those of all namespaces", s.namespace)
	}
	var names []string
	for _, o := range others {
		names = append(names, o.Name)
	}
	if near := nearest(name, names); near != "" {
		return hint(gone, "did you mean %s?", near)
	}
	text := strings.Join(names[:min(len(names), 10)], ", ")
	if len(names) > 10 {
		text += ", …"
	}
	return hint(gone, "in namespace %s there are: %s", s.namespace, text)
}

var errNoCRD = errors.New("the cluster knows no Syncs (gitseal.io/v1alpha1)")

// notFoundError says it in our words.
type notFoundError struct {
	err  error
	text string
}

func (e *notFoundError) Error() string { return e.text }
func (e *notFoundError) Unwrap() error { return e.err }

// nearest is the name that is most like another, or begins with it; "" if none is.
func nearest(name string, names []string) string {
	best, least := "", 0
	for _, n := range names {
		d := distance(name, n)
		if d > min(3, len(name)/2) && !strings.HasPrefix(n, name) {
			continue
		}
		if best == "" || d < least {
			best, least = n, d
		}
	}
	return best
}

// distance counts the letters to insert, delete or replace (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// noneFound says on stderr what kubectl says, and is no error.
func (s *syncs) noneFound(w io.Writer) {
	if s.namespace == "" {
		fmt.Fprintln(w, "No Syncs found.")
		return
	}
	fmt.Fprintf(w, "No Syncs found in %s namespace.\n", s.namespace)
}

// followAgain is the pause before the API server is asked again, after it was gone.
const followAgain = time.Second

// follow shows each Sync that matches as it is, and then whenever it changes, until see
// is done or fails, or ctx ends. It watches, and does not poll.
func (s *syncs) follow(ctx context.Context, o metav1.ListOptions, see func(watch.EventType, object) (done bool, err error)) error {
	seen := map[types.UID]object{}
	for first := true; ; first = false {
		done, err := s.followOnce(ctx, o, seen, see)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		var status apierrors.APIStatus
		lasting := errors.As(err, &status) && status.Status().Code < 500 && !apierrors.IsTooManyRequests(err) && !apierrors.IsResourceExpired(err) && !apierrors.IsGone(err)
		if done || err != nil && (first && len(seen) == 0 || lasting || errors.Is(err, errNoCRD) || errors.As(err, new(*seenError))) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(followAgain):
		}
	}
}

// seenError is what see has failed with.
type seenError struct{ error }

func (e *seenError) Unwrap() error { return e.error }

// followOnce ends without an error where the API server ends the watch.
func (s *syncs) followOnce(ctx context.Context, o metav1.ListOptions, seen map[types.UID]object, see func(watch.EventType, object) (bool, error)) (done bool, err error) {
	show := func(event watch.EventType, o object) (bool, error) {
		last, known := seen[o.UID]
		if event == watch.Deleted {
			delete(seen, o.UID)
		} else {
			if known && last.ResourceVersion == o.ResourceVersion {
				return false, nil
			}
			seen[o.UID] = o
		}
		done, err := see(event, o)
		if err != nil {
			err = &seenError{err}
		}
		return done, err
	}
	all, version, err := s.list(ctx, o)
	if err != nil {
		return false, err
	}
	there := map[types.UID]bool{}
	for _, one := range all {
		there[one.UID] = true
		if done, err := show(watch.Added, one); done || err != nil {
			return done, err
		}
	}
	for uid, one := range seen {
		if !there[uid] {
			if done, err := show(watch.Deleted, one); done || err != nil {
				return done, err
			}
		}
	}
	o.ResourceVersion = version
	w, err := s.in(s.namespace).Watch(ctx, o)
	if err != nil {
		return false, s.explain(ctx, err, "")
	}
	defer w.Stop()
	for e := range w.ResultChan() {
		if e.Type == watch.Error {
			return false, apierrors.FromObject(e.Object)
		}
		raw, ok := e.Object.(*unstructured.Unstructured)
		if !ok {
			continue
		}
		one, err := newObject(raw)
		if err != nil {
			return false, err
		}
		if done, err := show(e.Type, one); done || err != nil {
			return done, err
		}
	}
	return false, nil
}

// named selects one Sync, which also needs no right but for that one.
func named(name string) metav1.ListOptions {
	return metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", name).String()}
}

// readyOf is the condition Ready; Unknown where there is none.
func readyOf(o object) metav1.Condition {
	if c := meta.FindStatusCondition(o.Status.Conditions, v1alpha1.Ready); c != nil {
		return *c
	}
	return metav1.Condition{Type: v1alpha1.Ready, Status: metav1.ConditionUnknown, Message: "no agent has looked at it yet"}
}

// isReady also asks that it is so for the spec of today, which no agent looks at while
// the Sync is suspended.
func isReady(o object) bool {
	return readyOf(o).Status == metav1.ConditionTrue && (o.Spec.Suspend || o.Status.ObservedGeneration == o.Generation)
}

const completionTimeout = 3 * time.Second

// completeNames offers the Syncs of the namespace; nothing where there is no cluster.
func (o *syncFlags) completeNames(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
	defer cancel()
	s, err := o.connect()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	all, _, err := s.list(ctx, metav1.ListOptions{})
	if err != nil || o.allNamespaces {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var out []cobra.Completion
	for _, one := range all {
		if !slices.Contains(args, one.Name) {
			out = append(out, one.Name)
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

func (o *syncFlags) completeNamespaces(cmd *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
	defer cancel()
	var out []cobra.Completion
	cfg, err := o.config()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	client, err := dynamic.NewForConfig(cfg)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	l, err := client.Resource(schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	for i := range l.Items {
		out = append(out, l.Items[i].GetName())
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}
