// Package inspect answers, from /proc alone, what a process lives in: which
// cgroup limits it, which namespaces it sees, and with whom it shares them.
//
// It only reads. A process that ends while it is being looked at is left out of
// the answer; it is never an error.
//
//	pod ─► container ─► cgroup ─► processes ─► namespaces ─► who else is inside
package inspect
