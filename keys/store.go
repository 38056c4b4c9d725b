package keys

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"

	"github.com/gitseal/gitseal/crypto"
)

// Store keeps keys in Secrets of one namespace. Safe for concurrent use, and
// for use by several agents at once.
type Store struct {
	Client    kubernetes.Interface
	Namespace string
	// DecryptionSecret names a Secret whose *.agekey and *.asc entries open files too,
	// as people who come from Flux have it. "" for none.
	DecryptionSecret string
	// DecryptionNamespace is that of DecryptionSecret: Namespace, if it is "".
	DecryptionNamespace string
	// DecryptionClient reads DecryptionSecret: Client, if it is nil.
	DecryptionClient kubernetes.Interface
	// OwnDecryption says that the keys of DecryptionSecret belong to one tenant alone.
	OwnDecryption bool
	// SealedSecretsFrom are namespaces whose sealed-secrets key Secrets open
	// SealedSecrets too.
	SealedSecretsFrom []string
	Now               func() time.Time
}

// Ensure loads the keys, and makes the first generation and the token key where
// there are none. Two agents that do so at once end with the same ones: the
// names are fixed, and the loser of the create reads what the winner made.
func (s Store) Ensure(ctx context.Context) (*Ring, error) {
	ctx = unlogged(ctx)
	if err := s.ensureNamespace(ctx); err != nil {
		return nil, err
	}
	there, err := s.generations(ctx)
	if err != nil {
		return nil, err
	}
	if len(there) == 0 { // before the token key is made, too: a restored one would differ
		if err := s.neverPublished(ctx); err != nil {
			return nil, err
		}
		if err := s.nothingApplied(ctx); err != nil {
			return nil, err
		}
	}
	if err := s.ensureToken(ctx); err != nil {
		return nil, err
	}
	if len(there) == 0 {
		g, err := newGeneration(1, Active, s.Now())
		if err != nil {
			return nil, err
		}
		if err := s.create(ctx, g); err != nil && !apierrors.IsAlreadyExists(err) {
			return nil, s.apiError("create the first key generation", err)
		}
	}
	return s.Load(ctx)
}

// create stores a generation. The error is the API server's own.
func (s Store) create(ctx context.Context, g Generation) error {
	_, err := s.Client.CoreV1().Secrets(s.Namespace).Create(unlogged(ctx), g.secret(s.Namespace), metav1.CreateOptions{})
	return err
}

// ErrKeysLost says that there were keys once. New ones would open nothing that
// is in git, and take the place of the published ones.
var ErrKeysLost = errors.New("the key Secrets are gone")

func (s Store) neverPublished(ctx context.Context) error {
	_, err := s.Client.CoreV1().ConfigMaps(s.Namespace).Get(ctx, PublicConfigMap, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return s.apiError("read ConfigMap "+PublicConfigMap, err)
	}
	return fmt.Errorf("%w, but public keys were published before in ConfigMap %s/%s: bring Secret %s1 (labelled %s) back with `seal keys restore`; to begin anew, and seal everything again, delete that ConfigMap",
		ErrKeysLost, s.Namespace, PublicConfigMap, secretPrefix, StateLabel)
}

// inventoryLabel is on the Secrets in which package apply keeps what was applied.
const inventoryLabel = "gitseal.io/inventory"

// nothingApplied looks for inventories: where a Sync was applied there were keys.
func (s Store) nothingApplied(ctx context.Context) error {
	l, err := s.Client.CoreV1().Secrets(s.Namespace).List(ctx, metav1.ListOptions{LabelSelector: inventoryLabel, Limit: 1})
	if err != nil {
		return s.apiError("look for inventories", err)
	}
	if len(l.Items) == 0 {
		return nil
	}
	return fmt.Errorf("%w, but %s/%s says that Syncs were applied: bring Secret %s1 (labelled %s) back with `seal keys restore`; to begin anew, and seal everything again, delete the Secrets labelled %s",
		ErrKeysLost, s.Namespace, l.Items[0].Name, secretPrefix, StateLabel, inventoryLabel)
}

// Load reads the keys that are there. A key Secret that can not be read fails
// the whole: the agent must not go on as if the key did not exist.
func (s Store) Load(ctx context.Context) (*Ring, error) {
	ring, err := s.own(unlogged(ctx))
	if err != nil {
		return nil, err
	}
	return s.WithForeign(ctx, ring)
}

// generations are those that are there, newest first.
func (s Store) generations(ctx context.Context) ([]Generation, error) {
	list, err := s.Client.CoreV1().Secrets(s.Namespace).List(unlogged(ctx), metav1.ListOptions{LabelSelector: StateLabel})
	if err != nil {
		return nil, s.apiError("list key Secrets", err)
	}
	var out []Generation
	for i := range list.Items {
		g, err := parseGeneration(&list.Items[i])
		if err != nil {
			return nil, err
		}
		out = append(out, g)
	}
	slices.SortFunc(out, func(a, b Generation) int { return cmp.Compare(b.Number, a.Number) })
	return out, nil
}

// own reads the agent's own keys, and none that are only to open.
func (s Store) own(ctx context.Context) (*Ring, error) {
	generations, err := s.generations(ctx)
	if err != nil {
		return nil, err
	}
	ring := &Ring{Generations: generations}
	token, err := s.Client.CoreV1().Secrets(s.Namespace).Get(ctx, TokenSecret, metav1.GetOptions{})
	if err != nil {
		return nil, s.apiError("read the token key "+TokenSecret, err)
	}
	if len(token.Data[tokenDataKey]) != tokenKeyBytes {
		return nil, fmt.Errorf("secret %s/%s: %s is not %d bytes long; restore it from a backup", s.Namespace, TokenSecret, tokenDataKey, tokenKeyBytes)
	}
	ring.Token = crypto.NewSecret(token.Data[tokenDataKey])
	return ring, nil
}

// WithForeign is a ring with the keys of DecryptionSecret and SealedSecretsFrom besides
// its own. The ring itself is not changed.
func (s Store) WithForeign(ctx context.Context, ring *Ring) (*Ring, error) {
	foreign, err := s.loadForeign(unlogged(ctx))
	if err != nil {
		return nil, err
	}
	return &Ring{Generations: ring.Generations, Token: ring.Token, foreign: foreign}, nil
}

func (s Store) ensureNamespace(ctx context.Context) error {
	_, err := s.Client.CoreV1().Namespaces().Get(ctx, s.Namespace, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.Namespace}}
		_, err = s.Client.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{})
	}
	// An identity without rights on namespaces can do without, where it exists.
	if err == nil || apierrors.IsAlreadyExists(err) || apierrors.IsForbidden(err) {
		return nil
	}
	return s.apiError("create the namespace", err)
}

func (s Store) ensureToken(ctx context.Context) error {
	secrets := s.Client.CoreV1().Secrets(s.Namespace)
	_, err := secrets.Get(ctx, TokenSecret, metav1.GetOptions{})
	if err == nil {
		return nil
	}
	if !apierrors.IsNotFound(err) {
		return s.apiError("read the token key "+TokenSecret, err)
	}
	key := make([]byte, tokenKeyBytes)
	if _, err := rand.Read(key); err != nil {
		return fmt.Errorf("make a token key: %w", err)
	}
	_, err = secrets.Create(ctx, tokenSecret(s.Namespace, crypto.NewSecret(key)), metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return s.apiError("create the token key "+TokenSecret, err)
	}
	return nil
}

func tokenSecret(namespace string, key crypto.Secret) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: TokenSecret, Namespace: namespace}, Type: corev1.SecretTypeOpaque,
		Data: map[string][]byte{tokenDataKey: key.Reveal()},
	}
}

// Publish writes the public halves into the ConfigMap gitseal-keys, which it
// lets every authenticated user read. It sends nothing where all is right. A wish for a
// generation that is there, or can not be fulfilled, is taken off.
// warning is set where the identity may not manage that permission.
func (s Store) Publish(ctx context.Context, p Public) (changed bool, warning error, err error) {
	for try := 0; ; try++ {
		changed, err = s.publish(ctx, p)
		if err == nil {
			return changed, s.allowReading(ctx), nil
		}
		// Somebody has written it meanwhile, as one does who asks for a new generation.
		if !apierrors.IsConflict(err) && !apierrors.IsAlreadyExists(err) || try == maxConflicts {
			return false, nil, s.apiError("publish the public keys in ConfigMap "+PublicConfigMap, err)
		}
	}
}

const maxConflicts = 4

func (s Store) publish(ctx context.Context, p Public) (changed bool, err error) {
	configMaps := s.Client.CoreV1().ConfigMaps(s.Namespace)
	want := p.data()
	cm, err := configMaps.Get(ctx, PublicConfigMap, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		cm = &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: PublicConfigMap, Namespace: s.Namespace}, Data: want}
		_, err = configMaps.Create(ctx, cm, metav1.CreateOptions{})
		return true, err
	}
	if err != nil {
		return false, err
	}
	text, asked := cm.Annotations[GenerationAnnotation]
	asked = asked && !wish(text).open(p.Newest())
	if maps.Equal(cm.Data, want) && len(cm.BinaryData) == 0 && !asked {
		return false, nil
	}
	cm.Data, cm.BinaryData = want, nil
	if asked {
		delete(cm.Annotations, GenerationAnnotation)
	}
	_, err = configMaps.Update(ctx, cm, metav1.UpdateOptions{})
	return true, err
}

func (s Store) allowReading(ctx context.Context) error {
	meta := metav1.ObjectMeta{Name: PublicConfigMap + "-reader", Namespace: s.Namespace}
	role := &rbacv1.Role{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{{
		APIGroups: []string{""}, Resources: []string{"configmaps"}, ResourceNames: []string{PublicConfigMap}, Verbs: []string{"get"},
	}}}
	binding := &rbacv1.RoleBinding{ObjectMeta: meta,
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: meta.Name},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: "system:authenticated"}},
	}
	rbac := s.Client.RbacV1()
	if _, err := rbac.RoleBindings(s.Namespace).Get(ctx, meta.Name, metav1.GetOptions{}); err == nil {
		return nil
	}
	if _, err := rbac.Roles(s.Namespace).Create(ctx, role, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return s.apiError("let authenticated users read ConfigMap "+PublicConfigMap, err)
	}
	if _, err := rbac.RoleBindings(s.Namespace).Create(ctx, binding, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return s.apiError("let authenticated users read ConfigMap "+PublicConfigMap, err)
	}
	return nil
}

// FetchPublic reads what Publish wrote.
func FetchPublic(ctx context.Context, client kubernetes.Interface, namespace string) (Public, error) {
	cm, err := client.CoreV1().ConfigMaps(namespace).Get(ctx, PublicConfigMap, metav1.GetOptions{})
	if err != nil {
		return Public{}, fmt.Errorf("read ConfigMap %s/%s: %w", namespace, PublicConfigMap, err)
	}
	p, err := ParsePublic(cm.Data)
	if err != nil {
		return Public{}, fmt.Errorf("configmap %s/%s: %w", namespace, PublicConfigMap, err)
	}
	return p, nil
}

// apiError keeps only the reason of a server's answer about a Secret, and of what a
// webhook says, which was shown private keys, not even that.
func (s Store) apiError(doing string, err error) error {
	var status apierrors.APIStatus
	if errors.As(err, &status) && (status.Status().Reason == metav1.StatusReasonUnknown || strings.HasPrefix(status.Status().Message, "admission webhook ")) {
		return &serverError{fmt.Sprintf("%s in namespace %s: the API server says %s (%d)", doing, s.Namespace, http.StatusText(int(status.Status().Code)), status.Status().Code), "", status.Status().Code}
	}
	if reason := apierrors.ReasonForError(err); reason != metav1.StatusReasonUnknown {
		return &serverError{fmt.Sprintf("%s in namespace %s: the API server says %s", doing, s.Namespace, reason), reason, 0}
	}
	return fmt.Errorf("%s in namespace %s: %w", doing, s.Namespace, err)
}

// serverError is what is kept of an answer. It unwraps to one without the server's text,
// so that callers can tell what kind it is.
type serverError struct {
	text   string
	reason metav1.StatusReason
	code   int32
}

func (e *serverError) Error() string { return e.text }

func (e *serverError) Unwrap() error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{Status: metav1.StatusFailure, Reason: e.reason, Code: e.code}}
}

// unlogged keeps request and response bodies out of client-go's log, which
// prints them at high verbosity.
func unlogged(ctx context.Context) context.Context {
	return klog.NewContext(ctx, klog.Logger{})
}
