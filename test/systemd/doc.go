// Package systemd proves what only a machine can show that systemd runs: that the
// containerd and runc built here put a container under a slice over D-Bus, and
// that the agent, installed as a service as its users install it, keeps the QoS
// hierarchy as slices, with the worked examples' values, over restarts of systemd
// and D-Bus, and under load. Where TestSystemdIsInit or TestContainerInSlice fails,
// the failures of the other packages in that machine are not theirs.
//
// Its tests carry the tag systemd and are run by `make test-container` (cgroup v1)
// and `make test-vm` (v2) only. They take the machine for their own.
package systemd
