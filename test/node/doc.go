// Package node tests the agent as its users run it: the real binary, a real
// containerd, real cgroups and a real CNI network, looked at through the local
// client. It needs root and the tools of `make tools`, and runs with
// `make test-integration`.
//
// Everything happens in a network namespace and below a cgroup root and
// directories that the tests make, and is gone afterwards.
package node
