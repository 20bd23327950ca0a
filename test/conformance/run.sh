#!/usr/bin/env bash
# Runs Kubernetes' own node tests against this agent, as the one node of a real
# control plane:
#   test/conformance/run.sh [LABELS [FOCUS]]
# LABELS is ginkgo's label filter, FOCUS a regular expression of the tests' names. It
# prints what passed and what did not; .cache/conformance/report has the details.
set -euo pipefail
cd "$(dirname "$0")/../.."
labels=${1:-NodeConformance && !Slow && !Serial} focus=${2:-}

test/conformance/images.sh
hack/build-peers.sh e2e.test ginkgo
hack/install.sh iptables iproute2 util-linux

report=$(mkdir -p .cache/conformance/report && cd .cache/conformance/report && pwd -P)
dir=/tmp/nac$$
down() {
	cp "$dir"/*/agent.log "$report/" || true
	hack/test-node.sh down "$dir" || true
}
trap down EXIT
eval "$(hack/test-node.sh up "$dir" --images "$(cd .cache/conformance/images && pwd -P)")"
hack/test-node.sh in "$dir" timeout 300 bash -c "until .cache/peers/kubectl wait --for=condition=Ready node/$NODE_NAME --timeout=60s; do sleep 1; done" >/dev/null

rm -f "$report/junit.xml"
# Most tests wait most of the time: more of them at once than there are processors.
hack/test-node.sh in "$dir" .cache/peers/ginkgo --procs="${CONFORMANCE_PROCS:-6}" --timeout=12h --no-color --keep-going \
	--label-filter="$labels" ${focus:+--focus="$focus"} --junit-report=junit.xml --output-dir="$report" .cache/peers/e2e.test -- \
	--kubeconfig="$KUBECONFIG" --provider=skeleton --num-nodes=1 --prepull-images=false --minStartupPods=0 --allowed-not-ready-nodes=0 \
	--node-schedulable-timeout=2m --system-pods-startup-timeout=1m --system-daemonsets-startup-timeout=10s \
	--dump-logs-on-failure=false --disable-log-dump=true --max-nodes-to-gather-from=0 >"$report/ginkgo.log" 2>&1 || true
go run ./test/conformance/report "$report/junit.xml"
