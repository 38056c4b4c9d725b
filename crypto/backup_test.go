package crypto

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"
)

func TestABackupOpensWithWhatItWasLockedTo(t *testing.T) {
	t.Parallel()
	const text = "BACKUP-CANARY-31"
	mine, err := GenerateIdentity()
	if err != nil {
		t.Fatal(err)
	}
	other, err := GenerateIdentity()
	if err != nil {
		t.Fatal(err)
	}
	word := func(s string) Secret { return NewSecretString(s) }
	toMe := Locks{Recipients: []Recipient{mine.Recipient()}}
	toWord := Locks{Passphrase: word("correct horse"), work: 10}
	cut := func(n int) func([]byte) []byte { return func(b []byte) []byte { return b[:len(b)-n] } }
	for name, c := range map[string]struct {
		to   Locks
		with Keyhole
		edit func([]byte) []byte
		err  error
	}{
		"an identity":                {to: toMe, with: Keyhole{Identities: []Identity{other, mine}}},
		"a passphrase":               {to: toWord, with: Keyhole{Passphrase: word("correct horse")}},
		"another passphrase":         {to: toWord, with: Keyhole{Passphrase: word("correct horsE")}, err: ErrWrongLock},
		"another identity":           {to: toMe, with: Keyhole{Identities: []Identity{other}}, err: ErrWrongLock},
		"nothing":                    {to: toMe, err: ErrWrongLock},
		"an identity, passphrase":    {to: toWord, with: Keyhole{Identities: []Identity{mine}}, err: ErrNeedsPassphrase},
		"a passphrase, recipients":   {to: toMe, with: Keyhole{Passphrase: word("x")}, err: ErrNeedsIdentity},
		"a file without its end":     {to: toMe, with: Keyhole{Identities: []Identity{mine}}, edit: cut(60), err: ErrBackupDamaged},
		"half a file":                {to: toMe, with: Keyhole{Identities: []Identity{mine}}, edit: func(b []byte) []byte { return b[:len(b)/2] }, err: ErrBackupDamaged},
		"a changed letter":           {to: toMe, with: Keyhole{Identities: []Identity{mine}}, edit: func(b []byte) []byte { i := len(b) - 50; b[i] ^= 1; return b }, err: ErrBackupDamaged},
		"plain YAML":                 {to: toMe, with: Keyhole{Identities: []Identity{mine}}, edit: func([]byte) []byte { return []byte("apiVersion: v1\n" + text) }, err: ErrNotABackup},
		"an empty file":              {to: toMe, with: Keyhole{Identities: []Identity{mine}}, edit: func([]byte) []byte { return nil }, err: ErrNotABackup},
		"a block taken from between": {to: toMe, with: Keyhole{Identities: []Identity{mine}}, edit: func(b []byte) []byte { return append(b[:100:100], b[165:]...) }, err: ErrBackupDamaged},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file, err := SealBackup(NewSecretString(text), c.to)
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(file, []byte(text)) {
				t.Fatal("the file holds the text")
			}
			if c.edit != nil {
				file = c.edit(file)
			}
			got, err := OpenBackup(file, c.with)
			if !errors.Is(err, c.err) || err == nil != (string(got.Reveal()) == text) || err != nil && !got.IsZero() {
				t.Errorf("got %d bytes and %v, want %v", len(got.Reveal()), err, c.err)
			}
			if err != nil && (strings.Contains(err.Error(), text) || strings.Contains(err.Error(), "horse")) {
				t.Errorf("the error shows content: %v", err)
			}
		})
	}
	for name, to := range map[string]Locks{"nothing": {}, "an empty passphrase": {Passphrase: word("")}, "both": {Passphrase: word("x"), Recipients: toMe.Recipients}} {
		if b, err := SealBackup(NewSecretString(text), to); err == nil || b != nil {
			t.Errorf("%s: a backup was made", name)
		}
	}
}

// The file of testdata was made by SealBackup of the first version. It opens for ever.
func TestAnOldBackupStillOpens(t *testing.T) {
	t.Parallel()
	file, err := os.ReadFile("testdata/backup.age")
	if err != nil {
		t.Fatal(err)
	}
	got, err := OpenBackup(file, Keyhole{Passphrase: NewSecretString("correct horse")})
	if err != nil || string(got.Reveal()) != "apiVersion: v1\n" {
		t.Errorf("got %d bytes, %v", len(got.Reveal()), err)
	}
}
