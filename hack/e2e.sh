#!/usr/bin/env bash
# `make e2e`: the cluster tests, on a cluster of one node that is made for them and
# taken down afterwards. Prints test2json events.
#
#	hack/e2e.sh [flags of go test]
#
# E2E_KUBELET=1 puts a real kubelet in the agent's place: what it fails too is a
# defect of the test.
set -euo pipefail
cd "$(dirname "$0")/.."

dir=$(mktemp -u -d /tmp/naXXXXXX)
kubelet=()
[ -z "${E2E_KUBELET:-}" ] || kubelet=(--kubelet)
code=0
down() {
	hack/test-node.sh down "$dir" ${kubelet[@]+"${kubelet[@]}"} >&2 || code=1
	trap - EXIT
}
trap 'down; exit 1' EXIT
# Compiled before, for the tests have no network but the node's.
go vet -tags e2e ./test/e2e >&2
hack/test-node.sh up "$dir" ${kubelet[@]+"${kubelet[@]}"} >"$dir.env"
. "$dir.env"
rm "$dir.env"
go test -json -tags e2e -count=1 -parallel 4 -timeout 20m -exec "nsenter --net=/run/netns/$(basename "$dir")" "$@" ./test/e2e || {
	code=1
	[ -n "${E2E_KUBELET:-}" ] || tail -n 200 "$dir/$(basename "$dir")/agent.log" >&2
}
down
exit $code
