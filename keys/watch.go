package keys

import (
	"context"
	"log/slog"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

const (
	firstPause = time.Second      // after the first correction, or failure
	maxPause   = time.Minute      // it doubles up to this
	calm       = 10 * time.Minute // after so long a correction counts as the first again
)

// KeepPublished puts the ConfigMap gitseal-keys back when it is changed or
// deleted, until ctx ends. published is what it holds now, as Publish wrote it;
// what is put back is the public half of the keys of that moment, so that a
// rotation is not undone. The first correction comes at once, the next ones
// after growing pauses, so that another writer who insists costs little. While
// nothing changes there is one watch and no other request.
func (s Store) KeepPublished(ctx context.Context, published Public, log *slog.Logger) {
	w := &publicWatch{want: published.data(), differs: make(chan struct{}, 1)}
	go w.reflect(ctx, s, log)
	name := s.Namespace + "/" + PublicConfigMap
	var pause time.Duration
	var last time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.differs:
		}
		if time.Since(last) > calm {
			pause = 0
		}
		changed, err := s.publishAgain(ctx)
		last, pause = time.Now(), min(max(2*pause, firstPause), maxPause)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			log.Error("the public keys could not be put back", "configmap", name, "error", err.Error(), "retry", pause)
			w.signal()
		case changed:
			log.Info("the public keys were changed in the cluster and put back", "configmap", name)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

func (s Store) publishAgain(ctx context.Context) (changed bool, err error) {
	ring, err := s.Load(ctx)
	if err != nil {
		return false, err
	}
	public, err := ring.Public()
	if err != nil {
		return false, err
	}
	changed, _, err = s.Publish(ctx, public) // the warning was given when the agent started
	return changed, err
}

// publicWatch is where the reflector delivers. It keeps nothing.
type publicWatch struct {
	want    map[string]string
	differs chan struct{}
}

func (w *publicWatch) reflect(ctx context.Context, s Store, log *slog.Logger) {
	configMaps, only := s.Client.CoreV1().ConfigMaps(s.Namespace), fields.OneTermEqualSelector(metav1.ObjectNameField, PublicConfigMap).String()
	var failing bool // the reflector calls from one goroutine
	note := func(err error) {
		if err != nil && !failing && ctx.Err() == nil {
			log.Warn("the public keys are not watched", "error", s.apiError("watch ConfigMap "+PublicConfigMap, err).Error())
		}
		failing = err != nil
	}
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector = only
			l, err := configMaps.List(ctx, o)
			note(err)
			return l, err
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector = only
			wi, err := configMaps.Watch(ctx, o)
			note(err)
			return wi, err
		},
	}
	quiet := klog.Logger{}
	cache.NewReflectorWithOptions(lw, &corev1.ConfigMap{}, w, cache.ReflectorOptions{Logger: &quiet, Name: PublicConfigMap}).RunWithContext(ctx)
}

func (w *publicWatch) signal() {
	select {
	case w.differs <- struct{}{}:
	default:
	}
}

func (w *publicWatch) see(obj any) error {
	if cm, ok := obj.(*corev1.ConfigMap); !ok || !maps.Equal(cm.Data, w.want) || len(cm.BinaryData) > 0 {
		w.signal()
	}
	return nil
}

// Add implements cache.ReflectorStore.
func (w *publicWatch) Add(obj any) error { return w.see(obj) }

// Update implements cache.ReflectorStore.
func (w *publicWatch) Update(obj any) error { return w.see(obj) }

// Delete implements cache.ReflectorStore.
func (w *publicWatch) Delete(any) error { w.signal(); return nil }

// Replace brings what is there at the start and after a gap.
func (w *publicWatch) Replace(list []any, _ string) error {
	if len(list) != 1 {
		w.signal()
		return nil
	}
	return w.see(list[0])
}

// Resync implements cache.ReflectorStore.
func (*publicWatch) Resync() error { return nil }
