package keys

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// GenerationAnnotation of the ConfigMap gitseal-keys says that a generation shall exist:
// its value is the number. The agent makes the one after the newest, and takes the
// annotation off. Whoever sets it sends the version of the ConfigMap that he has read, so
// that of two who ask at once one sees that the generation is on its way.
const GenerationAnnotation = "gitseal.io/generation"

// wish is the value of that annotation.
type wish string

func wishOf(cm *corev1.ConfigMap) (w wish, there bool) {
	text, there := cm.Annotations[GenerationAnnotation]
	return wish(text), there
}

// number is 0 where the text is none, in the one way that a number is written.
func (w wish) number() int {
	n, err := strconv.Atoi(string(w))
	if err != nil || n < 1 || strconv.Itoa(n) != string(w) {
		return 0
	}
	return n
}

// open reports whether it asks for the generation after the newest, which does not exist
// yet.
func (w wish) open(newest int) bool { return newest > 0 && w.number() == newest+1 }

// fulfilled reports whether that generation is there.
func (w wish) fulfilled(newest int) bool { return w.number() > 0 && w.number() <= newest }

// Ask asks the agent for the next generation, and returns its number. Where somebody asks
// at the same time, both ask for the same one.
func (s Store) Ask(ctx context.Context) (number int, err error) {
	configMaps := s.Client.CoreV1().ConfigMaps(s.Namespace)
	for try := 0; ; try++ {
		cm, err := configMaps.Get(ctx, PublicConfigMap, metav1.GetOptions{})
		if err != nil {
			return 0, fmt.Errorf("read ConfigMap %s/%s: %w", s.Namespace, PublicConfigMap, err)
		}
		p, err := ParsePublic(cm.Data)
		if err != nil {
			return 0, fmt.Errorf("configmap %s/%s: %w", s.Namespace, PublicConfigMap, err)
		}
		newest := p.Newest()
		if newest == 0 {
			return 0, ErrOldAgent
		}
		if number == 0 {
			number = newest + 1
		}
		if w, _ := wishOf(cm); newest >= number || w.number() == number {
			return number, nil // somebody else has asked
		}
		metav1.SetMetaDataAnnotation(&cm.ObjectMeta, GenerationAnnotation, strconv.Itoa(number))
		_, err = configMaps.Update(ctx, cm, metav1.UpdateOptions{})
		if err == nil {
			return number, nil
		}
		if !apierrors.IsConflict(err) || try == maxConflicts {
			return 0, fmt.Errorf("ask for key generation %d in ConfigMap %s/%s: %w", number, s.Namespace, PublicConfigMap, err)
		}
	}
}

// ErrOldAgent says that the public keys were published by an agent that knows one
// generation only.
var ErrOldAgent = errors.New("the agent is older than this seal and publishes no list of its keys; upgrade it")
