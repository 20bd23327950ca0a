#!/usr/bin/env bash
# Runs a Docker Engine of our own in a network namespace of its own, whose addresses
# and firewall rules end with it:
#   test/kind/docker.sh start DIR    its socket is DIR/docker.sock; DIR must be new
#   test/kind/docker.sh stop DIR     with every container, cgroup and mount of it
#   test/kind/docker.sh in DIR CMD   runs CMD where the containers can be reached
set -euo pipefail
cd "$(dirname "$0")/../.."
verb=$1 dir=$2
shift 2
cache=$(mkdir -p .cache && cd .cache && pwd -P)/kind # runc wants no links in paths

start() {
	test/kind/build.sh
	hack/install.sh iproute2 iptables util-linux
	mkdir "$dir"
	local name=na-kind-$$
	echo "$name" >"$dir/name"
	ip netns add "$name"
	ip -n "$name" link set lo up
	# Another mount namespace, for dockerd's mounts not to be this machine's.
	NARROW_RUNC=$cache/engine/runc PATH=$cache/engine:$PATH setsid nsenter --net="/run/netns/$name" unshare --mount --propagation private \
		dockerd --host "unix://$dir/docker.sock" --data-root "$cache/docker" --exec-root "$dir/exec" --pidfile "$dir/dockerd.pid" \
		--cgroup-parent "/$name" --add-runtime "narrow=$cache/engine/narrow" --default-runtime narrow \
		--storage-driver overlay2 --bip 10.222.0.1/24 </dev/null >"$dir/dockerd.log" 2>&1 &
	local pid=$!
	export DOCKER_HOST=unix://$dir/docker.sock
	until "$cache/engine/docker" version >/dev/null 2>&1; do
		kill -0 $pid 2>/dev/null || { tail -n 30 "$dir/dockerd.log" >&2; stop; exit 1; }
		sleep 0.2
	done
	image=nodeagent.dev/kind-node:$(cat "$cache/version")
	if [ -z "$("$cache/engine/docker" images -q "$image")" ]; then
		echo "loading the node image" >&2
		"$cache/engine/docker" load -q -i "$cache/node-image.tar" >/dev/null
	fi
}

stop() {
	local name pid left
	name=$(cat "$dir/name")
	export DOCKER_HOST=unix://$dir/docker.sock
	left=$("$cache/engine/docker" ps -aq 2>/dev/null || true)
	[ -z "$left" ] || "$cache/engine/docker" rm -f -v $left >/dev/null
	"$cache/engine/docker" volume prune -f >/dev/null 2>&1 || true
	if pid=$(cat "$dir/dockerd.pid" 2>/dev/null); then
		kill "$pid" 2>/dev/null || true
		while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
	fi
	for left in /sys/fs/cgroup/{,*/}"$name"; do
		[ ! -d "$left" ] || find "$left" -depth -type d -exec rmdir {} \; || true
	done
	ip netns delete "$name"
	rm -rf --one-file-system "$dir"
}

case $verb in
start | stop) $verb ;;
in)
	export DOCKER_HOST=unix://$dir/docker.sock PATH=$cache/engine:$PWD/.cache/peers:$PATH
	exec nsenter --net="/run/netns/$(cat "$dir/name")" "$@"
	;;
*)
	sed -n '2,6s/^# \?//p' "$0" >&2
	exit 2
	;;
esac
