#!/usr/bin/env bash
# `make lint`: formatting, vet, golangci-lint as pinned in hack/lint, and a tidy
# module.
set -euo pipefail
cd "$(dirname "$0")/.."

lint=.cache/bin/golangci-lint
stamp=$(cat hack/lint/go.mod hack/lint/go.sum <(go version) | sha256sum | cut -d' ' -f1)
if [ ! -x $lint ] || [ "$(cat .cache/lint.stamp 2>/dev/null)" != "$stamp" ]; then
	echo "building golangci-lint" >&2
	(cd hack/lint && go build -trimpath -o "../../$lint" github.com/golangci/golangci-lint/v2/cmd/golangci-lint)
	echo "$stamp" >.cache/lint.stamp
fi
bad=0
unformatted=$(git ls-files '*.go' | xargs -r gofmt -l)
if [ -n "$unformatted" ]; then
	echo "gofmt would change:" "$unformatted" >&2
	bad=1
fi
go mod tidy -diff || bad=1
go vet ./... || bad=1
$lint run --timeout 10m ./... || bad=1
exit $bad
