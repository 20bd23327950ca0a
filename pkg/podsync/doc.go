// Package podsync brings pods to where their sources want them, and keeps them
// there. It owns the decisions about a pod's life: whether it may run here, what
// starts and stops when, what is restarted and how soon, what its status says.
//
// It promises that stopping the agent stops no pod; that a pod's phase only
// moves forward; that nothing is removed before every source has reported once;
// and that whatever it was doing when it was killed, a new agent finishes. It
// never talks to containerd, D-Bus or an API server itself: see deps.go for all
// that it asks of the world.
//
//	sources ─► Desired ─► Pool ─► worker, one per pod UID
//	                       ▲        │ 1 observe   runtime, probes, outcomes of steps
//	   exits, probes,      │ Wake   │ 2 Next      pure: what to do, and when to look again
//	   changed objects ────┘        │ 3 Status    pure: what to tell
//	                                ▼ 4 launch    steps, beside the loop
//
// The phases, and what each guarantees to others:
//
//	Syncing      containers are started and restarted
//	Terminating  nothing is started any more; containers stop in order
//	Terminated   nothing runs; volumes, then the cgroup are given back; what is
//	             left is there to be looked at until no source has the pod
//
// A decision is a function of facts: what the runtime observed, what the sources
// say, and the outcome of earlier steps. A step changes facts and wakes its
// worker; nothing is handed from one pass to the next otherwise. Two steps for
// one container, or two for the sandbox, never run at once, while a slow step
// holds up nobody else. The end of a pod calls off what is still being started.
//
// Who wakes a worker: the source (Desired), the runtime (Wake), probes (Wake), a
// finished step, the time that the last plan named. A wake-up says only which
// pod to look at; losing one that repeats another loses nothing.
package podsync
