#!/usr/bin/env bash
# A cluster of one node for tests and trials, as root: a control plane and the
# agent, in a network namespace, a cgroup root and directories of their own.
#
#	hack/test-node.sh up DIR [--kubelet] [--config 'maxPods: 20']   # prints what to export
#	hack/test-node.sh in DIR COMMAND...     # runs a command where the API server can be reached
#	hack/test-node.sh down DIR              # takes everything down, also DIR
#
# DIR must be new and short, such as /tmp/na1. --kubelet runs a real kubelet instead
# of the agent, to compare with; give it to down, too. DIR/plane is the control
# plane's directory (see hack/control-plane.sh), DIR/*/agent.log is what the agent
# says.
set -euo pipefail
verb=${1:?up, in or down} dir=$(realpath -m "${2:?a directory}")
shift 2
[ "$verb" = in ] || cd "$(dirname "$0")/.."
ns=$(basename "$dir") ip=10.197.0.1
inside() { nsenter --net="/run/netns/$ns" "$@"; }

case $verb in
up)
	hack/build-peers.sh kubectl etcd kube-apiserver kube-controller-manager kube-scheduler
	go build -buildvcs=false -o bin/test-node ./hack/test-node
	mkdir -p "$dir"
	ip netns add "$ns"
	inside ip link set lo up
	# The node's address, and the control plane's: 127.0.0.1 would be every pod's own.
	inside ip address add $ip/24 dev lo
	inside bin/test-node up "$dir" --ip $ip "$@"
	;;
in) inside "$@" ;;
down)
	inside bin/test-node down "$dir" --ip $ip "$@"
	ip netns delete "$ns"
	rm -rf "$dir"
	;;
*)
	echo "$0: no verb called $verb" >&2
	exit 2
	;;
esac
