// Package podstatus keeps the newest status of each pod, and what happened to
// it, for those who want to look: the local client now, an API server later.
//
// Status is a latest value, not a queue: a reader that is slow sees fewer steps
// and the same end. Events are kept per pod, the same one counted instead of
// repeated, and only so many. Nothing here is truth; all of it is computed again
// after a restart of the agent.
//
//	podsync ── Set, Remove, Event ──► Board ── List, Watch, Events ──► server
package podstatus
