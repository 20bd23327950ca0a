// Package cri runs pods on containerd, through its native client.
//
// It owns one containerd namespace: every container, lease, snapshot, pinned
// namespace and log in it. It promises that every verb can be repeated, that a
// process which is killed at any instruction can be replaced by a new one that
// goes on, and that nothing is stopped because a context or a connection ended.
// It must never decide whether a pod should run, and never learns what a QoS
// class is: its cgroup parent is a string.
//
// A sandbox is a set of pinned namespaces and a record, no process:
//
//	StateDir/sandboxes/<uid>/sandbox.json   written before and after CNI ADD
//	StateDir/sandboxes/<uid>/ns/{net,ipc,uts,user}
//	StateDir/sandboxes/<uid>/{hostname,hosts,resolv.conf,shm}
//
// A container is a record in containerd whose labels carry what the agent has no
// other home for: see labels.go. Its shim is shared by the containers of its pod.
//
//	StartSandbox ─► StartContainer ─► Running ─► exit facts as labels ─► Exited
//	                                     └─ StopContainer ─┘              │
//	                                                       RemoveContainer ┘
package cri
