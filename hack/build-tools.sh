#!/usr/bin/env bash
# Builds the programs that `make run` and the tests stand on, in the versions of
# hack/tools/go.mod: containerd, its shim, ctr and runc into .cache/bin, the CNI
# plugins into .cache/cni. Does nothing while the versions stay the same.
set -euo pipefail
cd "$(dirname "$0")/.."

mkdir -p .cache/bin .cache/cni
exec 9>.cache/tools.lock
flock 9

stamp=$(cat hack/tools/go.mod hack/tools/go.sum hack/build-tools.sh <(go version) | sha256sum | cut -d' ' -f1)
if [ "$(cat .cache/tools.stamp 2>/dev/null)" = "$stamp" ]; then
	exit 0
fi
hack/install.sh gcc libc6-dev libseccomp-dev pkg-config

new=$PWD/.cache/tools.new
rm -rf "$new"
mkdir -p "$new/bin" "$new/cni"
cd hack/tools
version() { go list -m -f '{{.Version}}' "$1"; }
# No symbol tables: they are a third of each binary, and get copied into the test machines.
build() { # DIR LDFLAGS PACKAGE...
	local dir=$1 ldflags=$2
	shift 2
	go build -trimpath -buildvcs=false -ldflags "-s -w $ldflags" -o "$dir" "$@"
}

containerd=github.com/containerd/containerd/v2
echo "building containerd $(version $containerd)" >&2
CGO_ENABLED=0 build "$new/bin/" "-X $containerd/version.Version=$(version $containerd)" \
	$containerd/cmd/containerd $containerd/cmd/containerd-shim-runc-v2 $containerd/cmd/ctr

runc=github.com/opencontainers/runc
echo "building runc $(version $runc)" >&2
# Static, so that the same file runs on machines with another libc or libseccomp.
CGO_ENABLED=1 GOFLAGS="${GOFLAGS:-} -tags=seccomp,netgo,osusergo" build "$new/bin/" \
	"-linkmode external -extldflags -static -X main.version=$(version $runc | tr -d v)" $runc

plugins=github.com/containernetworking/plugins
echo "building CNI plugins $(version $plugins)" >&2
CGO_ENABLED=0 build "$new/cni/" "-X $plugins/pkg/utils/buildversion.BuildVersion=$(version $plugins)" \
	$plugins/plugins/{main/{bridge,loopback,ptp},meta/{bandwidth,firewall,portmap},ipam/host-local}
cd ../..

# Renamed over the old ones: programs which run keep the file they have.
mv -f "$new"/bin/* .cache/bin/
mv -f "$new"/cni/* .cache/cni/
rm -rf "$new"
echo "$stamp" >.cache/tools.stamp
