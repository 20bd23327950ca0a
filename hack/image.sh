#!/usr/bin/env bash
# Builds the agent's OCI image, for the processors in ARCHS, without a daemon:
#	hack/image.sh VERSION
# It is an archive, bin/nodeagent-image.tar, for `ctr images import`, `kind load
# image-archive`, `skopeo copy oci-archive:` and the agent's own image directory.
set -euo pipefail
cd "$(dirname "$0")/.."
version=$1
hack/install.sh ca-certificates

binaries=()
for arch in ${ARCHS:-amd64 arm64}; do
	CGO_ENABLED=0 GOARCH=$arch nice go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$version" \
		-o "bin/linux-$arch/nodeagent" ./cmd/nodeagent
	binaries+=("$arch=bin/linux-$arch/nodeagent")
done
go run ./hack/agentimage -o bin/nodeagent-image.tar -version "$version" \
	-name "${IMAGE:-nodeagent.dev/nodeagent:$version}" "${binaries[@]}"
