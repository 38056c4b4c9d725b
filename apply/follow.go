package apply

import (
	"context"
	"errors"
	"reflect"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

// lister is a kind as a client of ours shows it: its metadata, or whole.
type lister[L runtime.Object] interface {
	List(ctx context.Context, o metav1.ListOptions) (L, error)
	Watch(ctx context.Context, o metav1.ListOptions) (watch.Interface, error)
}

// errNoWatch stands for the empty watch that client-go returns where the connection
// ended before an answer came: a kind behind it is not being watched.
var errNoWatch = errors.New("the connection ended before the watch began")

// follow lists and watches the objects of a kind that carry the owner's label, until
// ctx ends. note is told how each request went.
func follow[L runtime.Object](ctx context.Context, kind lister[L], gvr schema.GroupVersionResource, owner Owner, example runtime.Object, store cache.ReflectorStore, note func(verb string, err error)) {
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.LabelSelector = owner.selector()
			l, err := kind.List(ctx, o)
			note("list", err)
			return l, err
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.LabelSelector = owner.selector()
			w, err := kind.Watch(ctx, o)
			if err == nil && reflect.TypeOf(w) == reflect.TypeOf(watch.NewEmptyWatch()) {
				err = errNoWatch
			}
			note("watch", err)
			return w, err
		},
	}
	quiet := klog.Logger{} // it says on stderr what note is told
	ctx = klog.NewContext(ctx, quiet)
	cache.NewReflectorWithOptions(lw, example, store, cache.ReflectorOptions{Logger: &quiet, Name: gvr.String(), TypeDescription: gvr.String()}).RunWithContext(ctx)
}
