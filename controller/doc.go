// Package controller keeps every Sync of a cluster applied: one loop of package
// reconcile for each, started, stopped and set up as its Sync says, and their
// reports as status, events, metrics and audit lines.
//
// It owns what only several Syncs have: tenants and what they may not do,
// repositories that are fetched once for all who follow them, Syncs that wait for
// others, turns. How one Sync is applied it leaves to package reconcile.
//
// A Sync is written only when something about it changed. While no commit comes and
// nothing drifts, a hundred Syncs cost a look at each repository and no request to
// the API server.
package controller
