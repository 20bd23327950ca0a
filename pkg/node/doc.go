// Package node keeps this machine's Node object and its Lease in the API server.
//
// It owns both objects, as far as a node may: the labels it has set itself, and
// the parts of the status that the setters name. What others put there (labels,
// taints, extended resources, conditions of their own, attached volumes) stays as
// it is. It knows nothing of containers, cgroups or files: whoever makes a Node
// hands it functions that say what the machine is like.
//
//	Lease ──► claim: is the name ours? ──► register or adopt ──► status
//	  ▲                                          ▲                 │ Facts ─► setters (pure)
//	  └── renewed on a connection of its own     └── watch ◄───────┘ patch, if changed or due
//
// Promises:
//
//   - No second agent takes a name that another one renews; no clock is compared
//     with that of another machine to find that out.
//   - An idle node costs one lease renewal and one look at the machine in each of
//     their periods; the status is written when it has changed, or is due.
//   - Losing the Node, the Lease or the API server ends nothing: both objects are
//     made again.
//   - No pod is ever touched from here, except that a shutdown of the machine ends
//     them in order of their priority, through a function handed in.
package node
