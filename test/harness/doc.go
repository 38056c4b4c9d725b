// Package harness gives tests, benchmarks and the demo the real things that
// gitseal talks to: a Kubernetes control plane (etcd, kube-apiserver and
// kube-controller-manager; no nodes), git servers over HTTP and SSH, git
// repositories, the programs seal and agent of this tree, and the tools whose
// results ours are compared with. All of it is built from source by this machine's
// Go and listens on loopback only; what a fresh machine needs is Go and git. Only buildah is Debian's.
//
// Functions whose first parameter is a context return errors and serve any
// program. Those that take a [testing.TB] wrap them: they fail the test at once,
// and clean up when it ends. A package of tests that shares one control plane:
//
//	func TestMain(m *testing.M) { harness.Main(m) }
//
//	func TestApply(t *testing.T) {
//		t.Parallel()
//		cluster := harness.Shared(t)
//		namespace := cluster.Namespace(t, "apply")
//		...
//	}
//
// The first build of the binaries takes many minutes, longer than the default
// limit of go test; run it once by
//
//	go run ./test/harness/prepare
//
// It refuses to serve production code: nothing outside tests may import it.
package harness
