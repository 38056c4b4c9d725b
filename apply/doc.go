// Package apply owns everything that is written to or read from the target
// cluster: the plan, its order, server-side apply, the inventory, prune and
// drift. [NewPlan] is pure and printable; [Run] carries a plan out.
//
// Drift is found without asking: the answer to an apply (metadata only, so a
// Secret's values are not echoed) shows which fields are ours, and a watch of
// metadata shows when one of them was taken away. Live values are never read.
package apply
