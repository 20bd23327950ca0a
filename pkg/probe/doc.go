// Package probe asks running containers how they are, and remembers what they
// said.
//
// It owns one goroutine for each probe of each running container; nothing ticks
// where nothing is probed. It promises that a result is never invented: until a
// probe has answered, what was seeded holds, and a question that could not be
// put is no answer. It never restarts anything; it reports a change by pod UID
// and its owner decides.
//
//	Sync(container) ─► startup ──succeeded──► liveness, readiness
//	                      │                       │
//	                      └─► wait, ask, count ◄──┘ ─► result ─► OnChange(uid)
//
// A liveness or startup probe that has given up is not asked again: its
// container is about to be stopped. A pod that is ending is asked for its
// readiness only.
package probe
