#!/usr/bin/env bash
# `make test`: every stage, also after one has failed, then the list of what was
# skipped. Fails if a stage failed, or in CI if a required test was skipped.
set -uo pipefail
cd "$(dirname "$0")/.."

stages=(unit integration container vm)
rm -rf .cache/report
for stage in "${stages[@]}"; do
	make --no-print-directory "test-$stage" || echo "make test-$stage failed" >&2
done
bin/testreport close "${stages[@]}"
