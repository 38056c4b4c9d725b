package crypto

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"filippo.io/age"
	"filippo.io/age/armor"
)

// MaxBackup is the most that a backup of keys may be, in bytes: a thousand generations.
const MaxBackup = 8 << 20

// Locks are what a backup of keys is encrypted to: a passphrase, or recipients.
type Locks struct {
	Passphrase Secret
	Recipients []Recipient

	work int // of scrypt, as a power of two; 0 for age's own
}

// Errors of OpenBackup that callers tell apart.
var (
	ErrNotABackup      = errors.New("not an armored age file")
	ErrWrongLock       = errors.New("the passphrase or identity does not open it")
	ErrBackupDamaged   = errors.New("it is cut off, or was changed")
	ErrNeedsPassphrase = errors.New("it was encrypted with a passphrase")
	ErrNeedsIdentity   = errors.New("it was encrypted to age recipients")
)

// SealBackup encrypts a backup of keys as one armored age file, which `age -d` opens, too.
func SealBackup(plain Secret, to Locks) ([]byte, error) {
	var recipients []age.Recipient
	for _, r := range to.Recipients {
		recipients = append(recipients, r.age)
	}
	if !to.Passphrase.IsZero() {
		if len(recipients) > 0 {
			return nil, errors.New("a backup is encrypted to a passphrase or to recipients, not both")
		}
		r, err := age.NewScryptRecipient(string(to.Passphrase.Reveal()))
		if err != nil {
			return nil, errors.New("the passphrase is empty")
		}
		if to.work > 0 {
			r.SetWorkFactor(to.work)
		}
		recipients = append(recipients, r)
	}
	if len(recipients) == 0 {
		return nil, errors.New("a backup needs a passphrase or a recipient")
	}
	var out bytes.Buffer
	armored := armor.NewWriter(&out)
	w, err := age.Encrypt(armored, recipients...)
	if err != nil {
		return nil, fmt.Errorf("encrypt the backup: %w", err)
	}
	if _, err := w.Write(plain.Reveal()); err != nil {
		return nil, fmt.Errorf("encrypt the backup: %w", err)
	}
	if err := errors.Join(w.Close(), armored.Close()); err != nil {
		return nil, fmt.Errorf("encrypt the backup: %w", err)
	}
	return out.Bytes(), nil
}

// Keyhole is what opens a backup: a passphrase, or identities.
type Keyhole struct {
	Passphrase Secret
	Identities []Identity
}

// OpenBackup opens what SealBackup made. It returns all of it or nothing. Its errors are
// ErrNotABackup, ErrWrongLock, ErrBackupDamaged, ErrNeedsPassphrase and ErrNeedsIdentity.
func OpenBackup(file []byte, with Keyhole) (Secret, error) {
	if len(file) > 2*MaxBackup || !bytes.HasPrefix(bytes.TrimLeft(file, " \t\r\n"), []byte(armor.Header)) {
		return Secret{}, ErrNotABackup
	}
	if !bytes.Contains(file, []byte(armor.Footer)) {
		return Secret{}, ErrBackupDamaged
	}
	var ids []age.Identity
	for _, id := range with.Identities {
		ids = append(ids, id.age())
	}
	if !with.Passphrase.IsZero() {
		id, err := age.NewScryptIdentity(string(with.Passphrase.Reveal()))
		if err != nil {
			return Secret{}, ErrWrongLock
		}
		ids = append(ids, id)
	}
	if len(ids) == 0 {
		return Secret{}, ErrWrongLock
	}
	r, err := age.Decrypt(armor.NewReader(bytes.NewReader(file)), ids...)
	var noMatch *age.NoIdentityMatchError
	switch {
	case errors.As(err, &noMatch):
		passphrase := len(noMatch.StanzaTypes) == 1 && noMatch.StanzaTypes[0] == "scrypt"
		switch {
		case passphrase && with.Passphrase.IsZero():
			return Secret{}, ErrNeedsPassphrase
		case !passphrase && len(with.Identities) == 0:
			return Secret{}, ErrNeedsIdentity
		}
		return Secret{}, ErrWrongLock
	case err != nil:
		return Secret{}, ErrBackupDamaged
	}
	b, err := io.ReadAll(io.LimitReader(r, MaxBackup+1))
	if err != nil {
		return Secret{}, ErrBackupDamaged
	}
	if len(b) > MaxBackup {
		return Secret{}, fmt.Errorf("the backup holds more than %d bytes", MaxBackup)
	}
	return NewSecret(b), nil
}
