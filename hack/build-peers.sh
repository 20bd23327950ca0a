#!/usr/bin/env bash
# Builds what `make bench` measures beside the agent, in the version of
# hack/peers/go.mod: a kubelet, into .cache/peers. Minutes of work for all
# cores the first time, nothing while the version stays the same.
set -euo pipefail
cd "$(dirname "$0")/.."

mkdir -p .cache/peers
exec 9>.cache/peers.lock
flock 9

stamp=$(cat hack/peers/go.mod hack/peers/go.sum hack/build-peers.sh <(go version) | sha256sum | cut -d' ' -f1)
if [ "$(cat .cache/peers/stamp 2>/dev/null)" = "$stamp" ]; then
	exit 0
fi
cache=$PWD/.cache/peers
cd hack/peers
version=$(go list -m -f '{{.Version}}' k8s.io/kubernetes)
minor=${version#v1.}
echo "building kubelet $version" >&2
# Unstamped it would call itself v0.0.0-master.
stamped=k8s.io/component-base/version
CGO_ENABLED=0 nice go build -trimpath -buildvcs=false -o "$cache/kubelet.new" -ldflags "-s -w \
	-X $stamped.gitVersion=$version -X $stamped.gitMajor=1 -X $stamped.gitMinor=${minor%%.*}" k8s.io/kubernetes/cmd/kubelet
mv -f "$cache/kubelet.new" "$cache/kubelet"
echo "$stamp" >"$cache/stamp"
