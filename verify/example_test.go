package verify_test

import (
	"fmt"

	"github.com/gitseal/gitseal/verify"
)

func ExampleParseKeys() {
	const key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJYnxYm54svK8r/6MsnD5hP3q2nWhjgCqhSz1phvSdnh"
	keys, err := verify.ParseKeys(map[string][]byte{
		"allowed_signers": []byte("# who may\nada@example.com namespaces=\"git\" " + key + "\n"),
	})
	fmt.Println(keys.Len(), err)

	_, err = verify.ParseKeys(map[string][]byte{
		"allowed_signers": []byte("# who may\n*@example.com cert-authority " + key + "\n"),
	})
	fmt.Println(err)

	_, err = verify.ParseKeys(map[string][]byte{"id_ed25519": []byte("-----BEGIN OPENSSH PRIVATE KEY-----\n")})
	fmt.Println(err)
	// Output:
	// 1 <nil>
	// allowed_signers: line 2: cert-authority is not supported: list the keys of the signers themselves
	// id_ed25519: line 1: this is a private key; only public keys belong here
}

func ExamplePolicy_Validate() {
	fmt.Println(verify.Policy{Mode: verify.Head}.Validate())
	// Output: no keys of trusted signers
}
