#!/usr/bin/env bash
# Builds the container's root into .cache/container/root. Debian 12, because its
# systemd still manages version 1 of the cgroups; later ones refuse to start.
set -euo pipefail
cd "$(dirname "$0")/../.."

cache=.cache/container
suite=bookworm
packages=systemd,systemd-sysv,dbus,kmod,iproute2,iptables,nftables,procps

mkdir -p $cache
exec 9>$cache/lock
flock 9
stamp=$(cat hack/debian-root.sh test/systemd-container/build.sh test/machine/* | sha256sum | cut -d' ' -f1)
[ "$(cat $cache/stamp 2>/dev/null)" = "$stamp" ] && exit 0
echo "building the $suite container" >&2

rm -rf $cache/root $cache/root.tar
mkdir -p $cache/root
hack/debian-root.sh $suite $cache/root.tar $packages
tar -C $cache/root -xf $cache/root.tar
rm $cache/root.tar
test/machine/prepare.sh $cache/root
echo "$stamp" >$cache/stamp
