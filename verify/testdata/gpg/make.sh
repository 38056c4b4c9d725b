#!/usr/bin/env bash
# How the files beside this one were made, once; the keys are gone. gpg 2.2.40, git 2.39.
set -eu
out=$1
d=$(mktemp -d /tmp/vXXXX); export GNUPGHOME=$d/gpg HOME=$d GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1
export GIT_AUTHOR_NAME=Ada GIT_AUTHOR_EMAIL=ada@example.com GIT_COMMITTER_NAME=Bob GIT_COMMITTER_EMAIL=bob@example.com
mkdir -m 700 $GNUPGHOME; cd $d; git init -q -b main .
gpg() { command gpg --batch --quiet --passphrase '' "$@"; }
T=20260101T000000; T2=20260201T000000
gpg --faked-system-time $T --quick-gen-key 'Ada Vector <ada@example.com>' rsa2048 cert,sign never
A=$(command gpg --with-colons --fingerprint ada@example.com | awk -F: '/^fpr/{print $10; exit}')
gpg --faked-system-time $T --quick-add-key $A ed25519 sign never
S=$(command gpg --with-colons --fingerprint --fingerprint ada@example.com | awk -F: '/^fpr/{f=$10} END{print f}')
gpg --faked-system-time $T --quick-gen-key 'Old <old@example.com>' ed25519 sign 3m
gpg --faked-system-time $T --quick-gen-key 'Lost <lost@example.com>' ed25519 sign never
gpg --faked-system-time $T --quick-gen-key 'Eve <eve@example.com>' ed25519 sign never
L=$(command gpg --with-colons --fingerprint lost@example.com | awk -F: '/^fpr/{print $10; exit}')
prog() { printf '#!/bin/sh\nexec gpg --faked-system-time %s %s "$@"\n' $T2 "$1" > $d/prog; chmod 700 $d/prog; git config gpg.program $d/prog; }
c() { GIT_COMMITTER_DATE=2026-02-01T00:00:00Z git commit -q --allow-empty -S"$1" -m "$2

a body"; git cat-file commit HEAD > $out/$3; }
prog ""; c "$A!" "by the primary key" good.commit
c "$S!" "by a subkey" subkey.commit
GIT_COMMITTER_DATE=2026-02-01T00:00:00Z git tag -u "$A!" -m 'a tag' v1; git cat-file tag v1 > $out/good.tag
c old@example.com "before it expired" expired.commit
c lost@example.com "before it was revoked" revoked.commit
c eve@example.com "by a stranger" stranger.commit
prog "--digest-algo SHA1"; c "$A!" "with SHA-1" sha1.commit
prog "-u $S! "; c "$A!" "by two keys" two-signers.commit
echo $A > $out/ada.fingerprint; echo $S > $out/subkey.fingerprint
gpg --armor --export $A > $out/ada.asc; gpg --armor --export old@example.com > $out/expired.asc
sed 's/^:---/---/' $GNUPGHOME/openpgp-revocs.d/$L.rev > $d/rev; gpg --faked-system-time $T2 --import $d/rev
gpg --armor --export $L > $out/revoked.asc
gpgconf --kill all; rm -rf $d
