// Package probe asks running containers how they are, and remembers what they
// said.
//
// It owns one goroutine for each probe of each running container; nothing ticks
// where nothing is probed. It promises that a result is never invented: until a
// probe has answered, what was seeded holds. It never restarts anything; it
// reports a change by pod UID and its owner decides.
//
//	Sync(container) ─► loop: wait, check, count ─► Result ─► OnChange(uid)
package probe
