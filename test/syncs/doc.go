// Package syncs gives tests what they do with Syncs on a real API server: an
// administrator who makes them, and the service accounts that they act as, and waits for
// what becomes of them; and manifests for their repositories.
//
//	admin := syncs.NewAdmin(t, cluster)
//	admin.Account(namespace, "deployer", "edit")
//	repo.Write("apps/web.yaml", syncs.ConfigMap("", "web", "one"))
//	s := syncs.New(namespace, "app", git.RepoURL("fleet"), "apps")
//	s.Spec.ServiceAccountName = "deployer"
//	admin.Make(s)
//	admin.Applied(s, repo.Commit("first"))
//
// It refuses to run an agent: that is the test's, in its own process or in another.
package syncs
