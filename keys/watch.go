package keys

import (
	"context"
	"maps"
	"reflect"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

// keyWatch sees what differs from what is known. Of Secrets it knows names and versions.
type keyWatch struct {
	context context.Context
	cancel  context.CancelFunc
	keys    chan struct{} // other keys, or one is asked for
	differs chan struct{} // somebody has changed what is published

	mu       sync.Mutex
	want     map[string]string // of the ConfigMap
	versions map[string]string // of the key Secrets
}

func (k Keeper) watch(ctx context.Context, ring *Ring, p Public) *keyWatch {
	w := &keyWatch{keys: make(chan struct{}, 1), differs: make(chan struct{}, 1)}
	w.context, w.cancel = context.WithCancel(unlogged(ctx))
	w.knows(ring)
	w.wants(p)
	return w
}

func (w *keyWatch) stop() {
	if w != nil {
		w.cancel()
	}
}

// knows says what was read.
func (w *keyWatch) knows(r *Ring) {
	versions := map[string]string{}
	for _, g := range r.Generations {
		versions[g.SecretName()] = g.version
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.versions = versions
}

// wants says what is to be published.
func (w *keyWatch) wants(p Public) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.want = p.data()
}

func (w *keyWatch) followConfigMap(k Keeper) {
	configMaps := k.Client.CoreV1().ConfigMaps(k.Namespace)
	only := fields.OneTermEqualSelector(metav1.ObjectNameField, PublicConfigMap).String()
	w.follow(k, "ConfigMap "+PublicConfigMap, &corev1.ConfigMap{}, sight{one: w.seeConfigMap, gone: func(any) { signal(w.differs) }, all: func(list []any) {
		if len(list) != 1 {
			signal(w.differs)
			return
		}
		w.seeConfigMap(list[0])
	}}, func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
		o.FieldSelector = only
		return configMaps.List(ctx, o)
	}, func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
		o.FieldSelector = only
		return configMaps.Watch(ctx, o)
	})
}

func (w *keyWatch) seeConfigMap(obj any) {
	cm, ok := obj.(*corev1.ConfigMap)
	w.mu.Lock()
	defer w.mu.Unlock()
	if ok {
		if _, asked := wishOf(cm); asked {
			signal(w.keys)
			return
		}
	}
	if !ok || !maps.Equal(cm.Data, w.want) || len(cm.BinaryData) > 0 {
		signal(w.differs)
	}
}

// followSecrets sees the metadata of key Secrets only.
func (w *keyWatch) followSecrets(k Keeper) {
	secrets := k.Metadata.Resource(corev1.SchemeGroupVersion.WithResource("secrets")).Namespace(k.Namespace)
	w.follow(k, "key Secrets", &metav1.PartialObjectMetadata{}, sight{one: w.seeSecret, gone: w.secretGone, all: func(list []any) {
		w.mu.Lock()
		missing := len(w.versions) > len(list)
		w.mu.Unlock()
		if missing {
			signal(w.keys)
		}
		for _, obj := range list {
			w.seeSecret(obj)
		}
	}}, func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
		o.LabelSelector = StateLabel
		return secrets.List(ctx, o)
	}, func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
		o.LabelSelector = StateLabel
		return secrets.Watch(ctx, o)
	})
}

func (w *keyWatch) seeSecret(obj any) {
	m, err := meta.Accessor(obj)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil || w.versions[m.GetName()] != m.GetResourceVersion() {
		signal(w.keys)
	}
}

func (w *keyWatch) secretGone(obj any) {
	m, err := meta.Accessor(obj)
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, known := w.versions[m.GetName()]; err != nil || known {
		signal(w.keys)
	}
}

// follow watches until the keyWatch is stopped. What fails is logged once.
func (w *keyWatch) follow(k Keeper, what string, kind runtime.Object, s sight, list cache.ListWithContextFunc, begin cache.WatchFuncWithContext) {
	var failing bool // the reflector calls from one goroutine
	note := func(err error) {
		if err != nil && !failing && w.context.Err() == nil {
			k.Log.Warn("keys are not watched", "what", what, "error", k.apiError("watch "+what, err).Error())
		}
		failing = err != nil
	}
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			l, err := list(ctx, o)
			note(err)
			return l, err
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			wi, err := begin(ctx, o)
			if err == nil && reflect.TypeOf(wi) == reflect.TypeOf(watch.NewEmptyWatch()) {
				err = errNoWatch
			}
			note(err)
			return wi, err
		},
	}
	quiet := klog.Logger{} // it says on stderr what note is told
	cache.NewReflectorWithOptions(lw, kind, s, cache.ReflectorOptions{Logger: &quiet, Name: what, TypeDescription: what}).RunWithContext(w.context)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // it is about to be dealt with
	}
}

// sight is where a reflector delivers. It keeps nothing.
type sight struct {
	one, gone func(any)
	all       func([]any) // what is there at the start, and after a gap
}

// Add implements cache.ReflectorStore.
func (s sight) Add(obj any) error { s.one(obj); return nil }

// Update implements cache.ReflectorStore.
func (s sight) Update(obj any) error { s.one(obj); return nil }

// Delete implements cache.ReflectorStore.
func (s sight) Delete(obj any) error { s.gone(obj); return nil }

// Replace implements cache.ReflectorStore.
func (s sight) Replace(list []any, _ string) error { s.all(list); return nil }

// Resync implements cache.ReflectorStore.
func (sight) Resync() error { return nil }
