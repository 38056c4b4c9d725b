package keys

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/gitseal/gitseal/crypto"
)

// secretList is what a backup holds: kubectl takes it, too.
type secretList struct {
	APIVersion string          `json:"apiVersion"`
	Kind       string          `json:"kind"`
	Items      []corev1.Secret `json:"items"`
}

// Export is every generation and the token key, in one text.
type Export struct {
	Text        crypto.Secret // a v1 List, as YAML
	Generations []PublicGeneration
}

// Export reads all that a restored cluster needs to open what is in git. The Secrets in
// it say that they were backed up at that time.
func (s Store) Export(ctx context.Context, at time.Time) (Export, error) {
	ring, err := s.own(ctx)
	if err != nil {
		return Export{}, err
	}
	if len(ring.Generations) == 0 {
		return Export{}, fmt.Errorf("namespace %s holds no keys (Secrets labelled %s)", s.Namespace, StateLabel)
	}
	list := secretList{APIVersion: "v1", Kind: "List", Items: []corev1.Secret{*tokenSecret(s.Namespace, ring.Token)}}
	out := Export{}
	for _, g := range ring.Generations {
		g.BackedUp = at
		out.Generations = append(out.Generations, g.Public())
		secret := g.secret(s.Namespace)
		metav1.SetMetaDataAnnotation(&secret.ObjectMeta, BackedUpAnnotation, at.UTC().Format(time.RFC3339))
		list.Items = append(list.Items, *secret)
	}
	for i := range list.Items {
		list.Items[i].TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}
	}
	b, err := yaml.Marshal(list)
	if err != nil {
		return Export{}, errors.New("the keys could not be written as YAML") // the cause may quote them
	}
	out.Text = crypto.NewSecret(b)
	return out, nil
}

// NoteBackup says on the Secrets of these generations that they were backed up. One that
// holds another key by now is left out, and named by the error.
func (s Store) NoteBackup(ctx context.Context, of []PublicGeneration, at time.Time) error {
	ctx = unlogged(ctx)
	for try := 0; ; try++ {
		now, err := s.generations(ctx)
		if err != nil {
			return err
		}
		err = s.noteBackup(ctx, now, of, at)
		if !apierrors.IsConflict(err) || try == maxConflicts {
			return err
		}
	}
}

func (s Store) noteBackup(ctx context.Context, now []Generation, of []PublicGeneration, at time.Time) error {
	var errs []error
	for _, g := range now {
		i := slices.IndexFunc(of, func(p PublicGeneration) bool { return p.Number == g.Number })
		if i < 0 || g.BackedUp.Equal(at) {
			continue
		}
		if p := g.Public(); p.Recipient != of[i].Recipient || p.Certificate != of[i].Certificate {
			errs = append(errs, fmt.Errorf("secret %s/%s holds another key than the backup", s.Namespace, g.SecretName()))
			continue
		}
		if err := s.patch(ctx, g, "", map[string]any{BackedUpAnnotation: at.UTC().Format(time.RFC3339)}); err != nil {
			return s.apiError("note the backup on "+g.SecretName(), err)
		}
	}
	return errors.Join(errs...)
}

// patch changes the state ("" for not at all) and annotations of a generation, as it was
// read. The error is the API server's own.
func (s Store) patch(ctx context.Context, g Generation, to State, annotations map[string]any) error {
	meta := map[string]any{"resourceVersion": g.version, "annotations": annotations}
	if to != "" {
		meta["labels"] = map[string]any{StateLabel: string(to)}
	}
	b, err := json.Marshal(map[string]any{"metadata": meta})
	if err != nil {
		panic("keys: internal error: " + err.Error())
	}
	_, err = s.Client.CoreV1().Secrets(s.Namespace).Patch(unlogged(ctx), g.SecretName(), types.MergePatchType, b, metav1.PatchOptions{})
	return err
}

// saved is what a backup holds.
type saved struct {
	token       crypto.Secret
	generations []Generation // newest first
	secrets     map[string]*corev1.Secret
}

// ErrNoKeys says that a text is no backup of keys.
var ErrNoKeys = errors.New("it does not hold what `seal keys backup` writes")

// parseExport reads the text of an Export. Its errors do not repeat it.
func parseExport(text crypto.Secret) (saved, error) {
	out := saved{secrets: map[string]*corev1.Secret{}}
	var list secretList
	if err := yaml.UnmarshalStrict(text.Reveal(), &list); err != nil || list.Kind != "List" || list.APIVersion != "v1" {
		return saved{}, ErrNoKeys
	}
	for i := range list.Items {
		s := &list.Items[i]
		if s.Kind != "Secret" || s.APIVersion != "v1" {
			return saved{}, ErrNoKeys
		}
		if s.Name == TokenSecret {
			if len(s.Data[tokenDataKey]) != tokenKeyBytes || !out.token.IsZero() {
				return saved{}, fmt.Errorf("%w: its %s is damaged or there twice", ErrNoKeys, TokenSecret)
			}
			out.token = crypto.NewSecret(s.Data[tokenDataKey])
		} else {
			g, err := parseGeneration(s)
			if err != nil {
				return saved{}, fmt.Errorf("%w: %w", ErrNoKeys, err)
			}
			if out.secrets[s.Name] != nil {
				return saved{}, fmt.Errorf("%w: %s is there twice", ErrNoKeys, s.Name)
			}
			out.generations = append(out.generations, g)
		}
		out.secrets[s.Name] = s
	}
	if out.token.IsZero() || len(out.generations) == 0 {
		return saved{}, fmt.Errorf("%w: a key or the token key is missing", ErrNoKeys)
	}
	slices.SortFunc(out.generations, func(a, b Generation) int { return b.Number - a.Number })
	return out, nil
}

// Restored is what became of the Secrets of a backup.
type Restored struct {
	Created []string `json:"created"`
	Kept    []string `json:"kept"` // they were there already
}

// DiffersError says that the cluster holds other keys than a backup.
type DiffersError struct {
	Namespace string
	Secrets   []Difference
}

// Difference of one Secret, by public fingerprints.
type Difference struct{ Secret, Cluster, Backup string }

func (e *DiffersError) Error() string {
	var out []string
	for _, d := range e.Secrets {
		out = append(out, fmt.Sprintf("secret %s/%s: the cluster holds %s, the backup %s", e.Namespace, d.Secret, d.Cluster, d.Backup))
	}
	return strings.Join(out, "; ")
}

// Restore brings back what is missing of an Export. It looks at everything before it
// writes anything; where a Secret holds another key it writes nothing, and the error is a
// *DiffersError. The result is valid when err is not nil: what was made stays, and a
// second Restore goes on.
func (s Store) Restore(ctx context.Context, text crypto.Secret) (Restored, error) {
	ctx = unlogged(ctx)
	var done Restored
	backup, err := parseExport(text)
	if err != nil {
		return done, err
	}
	if err := s.ensureNamespace(ctx); err != nil {
		return done, err
	}
	missing, err := s.missing(ctx, backup)
	if err != nil {
		return done, err
	}
	// The token key first, for an agent that has refused to start goes on when it sees a
	// generation; and the newest of them first, which is to be published.
	names := []string{TokenSecret}
	for _, g := range backup.generations {
		names = append(names, g.SecretName())
	}
	for _, name := range names {
		if !missing[name] {
			done.Kept = append(done.Kept, name)
			continue
		}
		from := backup.secrets[name]
		secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: s.Namespace, Labels: from.Labels, Annotations: from.Annotations}, Type: from.Type, Data: from.Data}
		if _, err := s.Client.CoreV1().Secrets(s.Namespace).Create(ctx, secret, metav1.CreateOptions{}); err != nil {
			if apierrors.IsAlreadyExists(err) {
				return done, fmt.Errorf("secret %s/%s was made by somebody else meanwhile; run it again", s.Namespace, name)
			}
			return done, s.apiError("create "+name, err)
		}
		done.Created = append(done.Created, name)
	}
	return done, nil
}

// Compare is what Restore would do.
func (s Store) Compare(ctx context.Context, text crypto.Secret) (Restored, error) {
	ctx = unlogged(ctx)
	var out Restored
	backup, err := parseExport(text)
	if err != nil {
		return out, err
	}
	missing, err := s.missing(ctx, backup)
	if err != nil {
		return out, err
	}
	for _, name := range slices.Sorted(maps.Keys(backup.secrets)) {
		if missing[name] {
			out.Created = append(out.Created, name)
		} else {
			out.Kept = append(out.Kept, name)
		}
	}
	return out, nil
}

// missing names the Secrets of a backup that are not there.
func (s Store) missing(ctx context.Context, backup saved) (map[string]bool, error) {
	missing := map[string]bool{}
	differs := &DiffersError{Namespace: s.Namespace}
	for _, name := range slices.Sorted(maps.Keys(backup.secrets)) {
		there, err := s.Client.CoreV1().Secrets(s.Namespace).Get(ctx, name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			missing[name] = true
			continue
		case err != nil:
			return nil, s.apiError("read "+name, err)
		}
		if d := difference(there, backup.secrets[name]); d != nil {
			differs.Secrets = append(differs.Secrets, *d)
		}
	}
	if len(differs.Secrets) > 0 {
		return nil, differs
	}
	return missing, nil
}

// difference is nil where both hold the same key; labels do not count, for a key may have
// been retired since.
func difference(there, backup *corev1.Secret) *Difference {
	d := &Difference{Secret: backup.Name, Cluster: "what is no key", Backup: fingerprintOf(backup)}
	if f := fingerprintOf(there); f != "" {
		d.Cluster = f
	}
	if d.Cluster == d.Backup {
		return nil
	}
	return d
}

// fingerprintOf names the keys in a Secret; "" where there is none.
func fingerprintOf(s *corev1.Secret) string {
	if s.Name == TokenSecret {
		if len(s.Data[tokenDataKey]) != tokenKeyBytes {
			return ""
		}
		mac := hmac.New(sha256.New, s.Data[tokenDataKey])
		_, _ = mac.Write([]byte("fingerprint of the token key")) // a hash never fails
		return "token key " + base64.RawStdEncoding.EncodeToString(mac.Sum(nil))[:16]
	}
	s = s.DeepCopy()
	s.Labels = map[string]string{StateLabel: string(Active)} // whatever it is now
	g, err := parseGeneration(s)
	if err != nil {
		return ""
	}
	return g.Identity.Recipient().Fingerprint() + " and " + g.Certificate.Certificate().Fingerprint()
}
