// Package reconcile runs one Sync: fetch, mask, build, gate, plan, apply, report
// — and again, when git changes, when something drifts, or after a failure.
// It decides only when to do what; each stage's rules are in its own package.
package reconcile
