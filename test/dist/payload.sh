#!/usr/bin/env bash
# What the tests of this package install in a machine, into DIR/dist: two versions.
#	test/dist/payload.sh DIR
set -euo pipefail
dir=$(cd "$1" && pwd)
cd "$(dirname "$0")/../.."
for version in v1.0.0 v1.0.1; do
	SOURCE_DATE_EPOCH=0 VERSION=$version hack/dist.sh "$dir/dist/$version" "$(go env GOHOSTARCH)"
done
