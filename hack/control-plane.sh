#!/usr/bin/env bash
# A control plane (etcd, API server, controller manager, scheduler) for trials:
#
#	hack/control-plane.sh start DIR [--bind-address ADDRESS] [--port N] [--host NAME]
#	    [--signing-duration 10m] [--apiserver-arg --feature-gates=...]
#	hack/control-plane.sh node DIR NAME [LIFE]   # DIR/node-NAME.kubeconfig, prints its path
#	hack/control-plane.sh stop DIR               # the directory stays: start again, or delete it
#
# DIR then holds admin.kubeconfig, bootstrap.kubeconfig (a token that may ask for a
# node's certificate, which is approved), ca.crt, audit.log (what nodes asked for),
# and a .log and .pid of every program. Without flags it listens on loopback, on a
# free port. The node's address has to be one that the API server reaches: start
# both in one network namespace (nsenter --net=/run/netns/NAME hack/control-plane.sh ...),
# or bind to an address that both have a route to. Certificates for a
# node's server have no approver: `kubectl certificate approve`.
set -euo pipefail
dir=$(realpath -m "${2:-.}")
cd "$(dirname "$0")/.."
if [ "${1:-}" = start ]; then
	hack/build-peers.sh kubectl etcd kube-apiserver kube-controller-manager kube-scheduler
fi
go build -buildvcs=false -o bin/control-plane ./hack/control-plane
exec bin/control-plane "${1:-}" "$dir" "${@:3}"
