#!/usr/bin/env bash
# Lays out DIR as a small copy of the repository that needs no Go: the agent, the
# tools, the images and the compiled integration tests of the packages named,
# and a job which runs them and prints test2json events:
#   test/machine/payload.sh DIR PACKAGE[=TESTS]...
# TESTS is a regular expression of the tests to run; all without it. A package that
# needs more has a payload.sh of its own, which is given DIR.
set -euo pipefail
dir=$1
shift
cd "$(dirname "$0")/../.."

mkdir -p "$dir/bin" "$dir/.cache"
cp bin/nodeagent "$dir/bin/"
cp -a .cache/bin .cache/cni .cache/images "$dir/.cache/"
rm -f "$dir/.cache/bin/golangci-lint"
cp -a manifests "$dir/"
CGO_ENABLED=0 go build -trimpath -o "$dir/bin/test2json" cmd/test2json

cat >"$dir/job" <<'JOB'
#!/bin/sh
# Every package runs, whatever the one before it said.
code=0
JOB
for argument in "$@"; do
	package=${argument%%=*} tests=.
	[ "$package" = "$argument" ] || tests=${argument#*=}
	path=$(go list -tags integration,systemd "./$package")
	mkdir -p "$dir/$package"
	go test -c -trimpath -tags integration,systemd -ldflags '-s -w' -o "$dir/$package/pkg.test" "./$package"
	[ ! -d "$package/testdata" ] || cp -a "$package/testdata" "$dir/$package/"
	[ ! -x "$package/payload.sh" ] || "$package/payload.sh" "$dir"
	cat >>"$dir/job" <<JOB
cd /payload/$package && /payload/bin/test2json -t -p $path ./pkg.test -test.v=test2json -test.timeout=20m -test.run='$tests' ${TEST_FLAGS:-} || code=1
JOB
done
echo 'exit $code' >>"$dir/job"
chmod +x "$dir/job"
