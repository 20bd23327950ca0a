#!/usr/bin/env bash
# Builds the programs that `make run` and the tests stand on, and that a release
# contains, in the versions of hack/tools/go.mod: containerd, its shim, ctr and runc
# into .cache/bin, the CNI plugins into .cache/cni. Does nothing while the versions
# stay the same. For another architecture than this machine's:
#
#	hack/build-tools.sh arm64	# into .cache/arm64/bin and .cache/arm64/cni
set -euo pipefail
cd "$(dirname "$0")/.."

native=$(go env GOHOSTARCH)
arch=${1:-$native}
target=$PWD/.cache
[ "$arch" = "$native" ] || target=$PWD/.cache/$arch
mkdir -p "$target"/{bin,cni,clib}
exec 9>".cache/tools-$arch.lock"
flock 9

stamp=$(cat hack/tools/go.mod hack/tools/go.sum hack/build-tools.sh hack/seccomp.sh <(go version) | sha256sum | cut -d' ' -f1)
if [ "$(cat ".cache/tools-$arch.stamp" 2>/dev/null)" = "$stamp" ]; then
	exit 0
fi

new=$PWD/.cache/tools-$arch.new
rm -rf "$new"
mkdir -p "$new"/{bin,cni,clib}
# runc is the one program with C in it. Sets CC and PKG_CONFIG_* where it is built
# for another architecture, and leaves the C libraries' licences in clib.
hack/seccomp.sh "$arch" "$new/clib" "$new/sysroot" >"$new/cgo.env"
cd hack/tools
version() { go list -m -f '{{.Version}}' "$1"; }
# No symbol tables: they are a third of each binary, and get copied into the test machines.
build() { # DIR LDFLAGS PACKAGE...
	local dir=$1 ldflags=$2
	shift 2
	GOARCH=$arch go build -trimpath -buildvcs=false -ldflags "-s -w $ldflags" -o "$dir" "$@"
}

containerd=github.com/containerd/containerd/v2
echo "building containerd $(version $containerd) for $arch" >&2
CGO_ENABLED=0 build "$new/bin/" "-X $containerd/version.Version=$(version $containerd)" \
	$containerd/cmd/containerd $containerd/cmd/containerd-shim-runc-v2 $containerd/cmd/ctr

runc=github.com/opencontainers/runc
echo "building runc $(version $runc) for $arch" >&2
# Static, so that the same file runs on machines with another libc or libseccomp.
(
	set -a
	# shellcheck source=/dev/null
	. "$new/cgo.env"
	CGO_ENABLED=1 GOFLAGS="${GOFLAGS:-} -tags=seccomp,netgo,osusergo" build "$new/bin/" \
		"-linkmode external -extldflags -static -X main.version=$(version $runc | tr -d v)" $runc
)

plugins=github.com/containernetworking/plugins
echo "building CNI plugins $(version $plugins) for $arch" >&2
CGO_ENABLED=0 build "$new/cni/" "-X $plugins/pkg/utils/buildversion.BuildVersion=$(version $plugins)" \
	$plugins/plugins/{main/{bridge,loopback,ptp},meta/{bandwidth,firewall,portmap},ipam/host-local}
cd ../..

# Renamed over the old ones: programs which run keep the file they have.
mv -f "$new"/bin/* "$target/bin/"
mv -f "$new"/cni/* "$target/cni/"
rm -rf "$target/clib"
mv "$new/clib" "$target/clib"
rm -rf "$new"
echo "$stamp" >".cache/tools-$arch.stamp"
