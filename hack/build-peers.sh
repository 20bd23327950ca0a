#!/usr/bin/env bash
# Builds programs of Kubernetes and etcd, in the versions of hack/peers/go.mod, into
# .cache/peers: what the bench measures beside the agent, and the control plane and
# the clients that the cluster tests run against. Minutes of work for all cores the
# first time, nothing while the versions stay the same.
#
#	hack/build-peers.sh kube-apiserver etcd ...
set -euo pipefail
cd "$(dirname "$0")/.."

mkdir -p .cache/peers
exec 9>.cache/peers.lock
flock 9

cache=$PWD/.cache/peers
stamp=$(cat hack/peers/go.mod hack/peers/go.sum hack/build-peers.sh <(go version) | sha256sum | cut -d' ' -f1)
cd hack/peers
kubernetes=$(go list -m -f '{{.Version}}' k8s.io/kubernetes)
minor=${kubernetes#v1.}
# Unstamped they would call themselves v0.0.0-master.
stamped=k8s.io/component-base/version
kubernetes_flags="-X $stamped.gitVersion=$kubernetes -X $stamped.gitMajor=1 -X $stamped.gitMinor=${minor%%.*} -X $stamped.gitTreeState=clean"

for program in "$@"; do
	if [ "$(cat "$cache/$program.stamp" 2>/dev/null)" = "$stamp" ]; then
		continue
	fi
	verb=(go build)
	case $program in
	etcd) package=go.etcd.io/etcd/server/v3 ;;
	kind) package=sigs.k8s.io/kind ;;
	ginkgo) package=github.com/onsi/ginkgo/v2/ginkgo ;;
	agnhost | nonewprivs) package=k8s.io/kubernetes/test/images/$program ;;
	e2e.test) verb=(go test -c) package=k8s.io/kubernetes/test/e2e ;;
	kube* | kubectl) package=k8s.io/kubernetes/cmd/$program ;;
	*)
		echo "$0: no program called $program" >&2
		exit 2
		;;
	esac
	echo "building $program" >&2
	CGO_ENABLED=0 nice "${verb[@]}" -trimpath -buildvcs=false -o "$cache/$program.new" -ldflags "-s -w $kubernetes_flags" $package
	mv -f "$cache/$program.new" "$cache/$program"
	echo "$stamp" >"$cache/$program.stamp"
done
