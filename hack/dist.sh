#!/usr/bin/env bash
# Builds a release into DIR: for each architecture an archive, a Debian package of
# the same files and a list of what is in them, and the checksums of all of these.
#
#	VERSION=v1.2.3 hack/dist.sh DIR ARCH...
#
# The same sources, Go version and C libraries give the same bytes, wherever they
# are: files are as old as SOURCE_DATE_EPOCH, which is the time of the last commit.
set -euo pipefail
mkdir -p "$1"
out=$(cd "$1" && pwd)
shift
cd "$(dirname "$0")/.."
version=${VERSION:-$(git describe --tags --always --dirty)}
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
rm -f "$out"/nodeagent[-_]* "$out/SHA256SUMS"
# The licences are in the module cache, which may be younger than the tools.
(cd hack/tools && go list -e -deps -tags tools . >/dev/null)
for arch in "$@"; do
	hack/build-tools.sh "$arch"
	tools=.cache/$arch
	[ "$arch" != "$(go env GOHOSTARCH)" ] || tools=.cache
	CGO_ENABLED=0 GOARCH=$arch go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$version" -o "$tmp/nodeagent" ./cmd/nodeagent
	go run ./hack/dist -arch "$arch" -version "$version" -agent "$tmp/nodeagent" -tools $tools -out "$out"
done
(cd "$out" && sha256sum nodeagent[-_]* >SHA256SUMS)
