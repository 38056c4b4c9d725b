package controller

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gitseal/gitseal/api/v1alpha1"
	"github.com/gitseal/gitseal/crypto"
	"github.com/gitseal/gitseal/keys"
)

// resealTerms are what a Reseal is answered with: no word of the caller, and none of the
// files but the names of recipients, decides who may open what comes out.
type resealTerms struct {
	ring   *keys.Ring
	active keys.Generation
	// listed are the recipients besides the cluster's own whom an administrator allows.
	listed []crypto.Recipient
	now    time.Time
}

// The messages of refusals. They depend on nothing that is sealed: why a file does not
// open, a wrong key or a changed byte, would tell a caller what he may not know.
const (
	saysCanNotBeOpened = "it does not open with the keys of this namespace, or was changed after it was sealed"
	saysMalformed      = "it is not a well-formed file of this format"
	saysNamespace      = "a SealedSecret of it names no namespace, and none was said"
	saysNotSealed      = "it holds nothing that is sealed"
	saysTooLarge       = "the files of one Reseal may be 600 KiB together"
	saysUnsupported    = "it is sealed to kinds of keys, or to key groups, that can not be sealed to here"
)

// resealFiles answers for each file by itself.
func resealFiles(spec v1alpha1.ResealSpec, terms resealTerms) []v1alpha1.ResealedFile {
	out := make([]v1alpha1.ResealedFile, len(spec.Files))
	size := 0
	for _, f := range spec.Files {
		size += len(f.Content)
	}
	var work sync.WaitGroup
	turns := make(chan struct{}, runtime.GOMAXPROCS(0))
	for i, f := range spec.Files {
		if size > v1alpha1.ResealBytes {
			out[i] = v1alpha1.ResealedFile{Name: f.Name, Reason: v1alpha1.ResealTooLarge, Message: saysTooLarge}
			continue
		}
		turns <- struct{}{}
		work.Go(func() {
			defer func() { <-turns }()
			out[i] = terms.reseal(f, spec.KeepDataKey)
		})
	}
	work.Wait()
	return out
}

func (t resealTerms) reseal(f v1alpha1.ResealFile, keepDataKey bool) v1alpha1.ResealedFile {
	out := v1alpha1.ResealedFile{Name: f.Name}
	var err error
	if f.Format == v1alpha1.FormatSealedSecret {
		var file []byte
		file, _, err = crypto.ResealSealedSecrets(crypto.SealedSecretsRequest{
			File: []byte(f.Content), Keys: t.ring.CertificateKeys(), To: t.active.Certificate.Certificate(), Namespace: f.Namespace, Now: t.now,
		})
		out.Content = string(file)
	} else {
		var r crypto.ResealResult
		r, err = crypto.ResealSOPS(crypto.ResealRequest{
			File: []byte(f.Content), Format: crypto.Format(f.Format), Keys: t.ring.Keyring(), KeepDataKey: keepDataKey, Now: t.now,
			Recipients: func(listed []string) ([]crypto.Recipient, error) {
				return t.recipients(listed, f.Recipients, keepDataKey)
			},
			Keep: func(listed string) bool { return !t.own(listed) },
		})
		out.Content, out.Reformatted = string(r.File), r.Reformatted
		if err == nil && len(r.Units) == 0 {
			err = crypto.ErrNotSOPS
		}
	}
	if err != nil {
		out.Content, out.Reformatted = "", false
		out.Reason, out.Message = refusalOf(err)
	}
	return out
}

// recipients are the active key, and those asked for, or else of the file, all of whom
// must be listed. The metadata of a file is not authenticated: whoever names himself
// there gets nothing by it.
func (t resealTerms) recipients(of, asked []string, keepDataKey bool) ([]crypto.Recipient, error) {
	out := []crypto.Recipient{t.active.Identity.Recipient()}
	if keepDataKey {
		return out, nil // the others keep what they have
	}
	if len(asked) > 0 {
		of = asked
	}
	var unlisted []string
	for _, r := range of {
		i := slices.IndexFunc(t.listed, func(l crypto.Recipient) bool { return l.String() == r })
		switch {
		case t.own(r):
		case i >= 0:
			out = append(out, t.listed[i])
		default:
			unlisted = append(unlisted, r)
		}
	}
	if len(unlisted) > 0 {
		return nil, &unlistedError{unlisted}
	}
	return out, nil
}

// own reports whether a recipient is the cluster's, of any generation.
func (t resealTerms) own(recipient string) bool {
	return slices.ContainsFunc(t.ring.Generations, func(g keys.Generation) bool { return g.Identity.Recipient().String() == recipient })
}

// unlistedError names recipients of a file whom no administrator has listed.
type unlistedError struct{ recipients []string }

func (e *unlistedError) Error() string {
	return fmt.Sprintf("it is, or is to be, sealed to %s, whom ConfigMap %s does not list", strings.Join(e.recipients, ", "), keys.RecipientsConfigMap)
}

// refusalOf has one answer for all that depends on what is sealed.
func refusalOf(err error) (reason, message string) {
	var unlisted *unlistedError
	var unsupported *crypto.UnsupportedKeyError
	var format *crypto.FormatError
	var limit *crypto.LimitError
	switch {
	case errors.As(err, &unlisted):
		return v1alpha1.ResealUnlistedRecipient, clip(unlisted.Error())
	case errors.As(err, &unsupported), errors.Is(err, crypto.ErrKeyGroups):
		return v1alpha1.ResealUnsupported, saysUnsupported
	case errors.Is(err, crypto.ErrNotSOPS), errors.Is(err, crypto.ErrNoSealedSecret):
		return v1alpha1.ResealNotSealed, saysNotSealed
	case errors.Is(err, crypto.ErrNamespaceMissing):
		return v1alpha1.ResealMalformed, saysNamespace
	case errors.As(err, &format), errors.As(err, &limit):
		return v1alpha1.ResealMalformed, saysMalformed
	}
	return v1alpha1.ResealCanNotBeOpened, saysCanNotBeOpened
}
