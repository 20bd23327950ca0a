// Package critest holds what the users of a pod runtime rely on as one suite of
// tests, and a small runtime in memory for tests that are about something else.
//
// It promises that both run the same suite: what a test learns from the runtime
// in memory is true of containerd. It never decides anything that pkg/cri does
// not decide in the same way.
//
//	Test ──► Runtime in memory
//	    └──► cri.Runtime on a real containerd
package critest
