// Package dist proves that what `make dist` makes is what its users expect: that
// two builds are the same bytes; and, where systemd is init, that the Debian
// package and the archive install, run pods, are upgraded under them, and go
// without a trace.
//
//	hack/dist.sh ─► archive, package, bill of materials ─► build_test.go looks into them
//	payload.sh ─► two versions of the package, an archive ─► package_test.go, archive_test.go
//
// The latter carry the tag systemd and take the machine for their own: they are
// run by `make test-container` and `make test-vm`.
package dist
