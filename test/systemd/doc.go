// Package systemd proves that a test machine is what the tests take it for:
// systemd runs it, and the containerd and runc built here put a container under a
// slice over D-Bus. Where this fails, the failures of the other packages in that
// machine are not theirs.
//
// Its tests carry the tag systemd and are run by `make test-container` and
// `make test-vm` only.
package systemd
