#!/usr/bin/env bash
# Runs the integration tests which want systemd as init, in a machine:
#   hack/machine-tests.sh test/vm/run.sh PACKAGE[=TESTS]...
set -euo pipefail
run=$1
shift
cd "$(dirname "$0")/.."
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
test/machine/payload.sh "$dir" "$@" >&2
"$run" "$dir"
