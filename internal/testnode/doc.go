// Package testnode lays out a machine for tests and trials, and runs the agent on
// it as a node of a cluster; or, to compare with, a kubelet beside a containerd.
//
// It makes directories and a cgroup root of its own, and uses the network namespace
// that it is called in, which should be one of its own too: the agent sets up a
// bridge there. All is found again by the directory, so that one process can start a
// node and another remove it.
package testnode
