package source_test

import (
	"fmt"

	"github.com/gitseal/gitseal/source"
)

func ExampleConfig_Validate() {
	fmt.Println(source.Config{URL: "https://me:hunter2@git.example.com/team/cluster.git"}.Validate())
	// Output: url holds a user name or password: put it in a Secret
}

func ExampleCredentialsFromSecret() {
	credentials, err := source.CredentialsFromSecret(map[string][]byte{
		"username": []byte("deploy"),
		"password": []byte("hunter2"),
	})
	fmt.Println(credentials.Username, credentials.Password, err)

	_, err = source.CredentialsFromSecret(map[string][]byte{"ca.crt": []byte("oops")})
	fmt.Println(err)
	// Output:
	// deploy [redacted] <nil>
	// ca.crt: not PEM certificates
}
