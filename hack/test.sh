#!/usr/bin/env bash
# `make test`: every stage, also after one has failed, then the list of what was
# skipped. Fails if a stage failed, or in CI if a required test was skipped.
set -uo pipefail
cd "$(dirname "$0")/.."

make=(make --no-print-directory)
stage() { "${make[@]}" "test-$1" || echo "make test-$1 failed" >&2; }

rm -rf .cache/report
mkdir -p .cache/report
"${make[@]}" bin/testreport tools build demo-image || exit 1
# The virtual machine runs on one processor and touches nothing of this one:
# beside the other stages it costs no time of its own.
set -m # a process group of its own, which an interrupt has to be passed on to
stage vm >.cache/report/vm.log 2>&1 </dev/null &
vm=$!
set +m
trap 'kill -- -$vm 2>/dev/null; wait' EXIT
for name in unit integration e2e container dist; do stage $name; done
wait $vm
cat .cache/report/vm.log
bin/testreport close unit integration e2e container dist vm
