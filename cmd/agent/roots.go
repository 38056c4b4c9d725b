package main

// Mozilla's CA certificates, for git over https where the file system holds none, as in
// the image. Those of the system win where there are any, also by SSL_CERT_FILE and
// SSL_CERT_DIR.
import _ "golang.org/x/crypto/x509roots/fallback"
