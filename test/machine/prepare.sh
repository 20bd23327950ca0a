#!/usr/bin/env bash
# Turns a Debian root into a test machine, which runs /payload/job once systemd
# has started, and nothing else:
#   test/machine/prepare.sh ROOT
set -euo pipefail
root=$1
here=$(cd "$(dirname "$0")" && pwd)

install -m 755 "$here/test-job" "$root/usr/local/sbin/"
install -m 644 "$here/test-job.service" "$root/etc/systemd/system/"
mkdir -p "$root/payload" "$root/job" "$root/etc/systemd/system/multi-user.target.wants"
ln -sf ../test-job.service "$root/etc/systemd/system/multi-user.target.wants/"

echo testmachine >"$root/etc/hostname"
echo '127.0.0.1 localhost testmachine' >"$root/etc/hosts"
: >"$root/etc/resolv.conf"
: >"$root/etc/fstab"
: >"$root/etc/machine-id" # made anew at boot, without the questions of a first one
# tmp.mount: test data belongs on the disk, where a machine has it.
for unit in tmp.mount getty.target apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer \
	fstrim.timer e2scrub_all.timer e2scrub_reap.service systemd-hwdb-update.service \
	systemd-timesyncd.service systemd-networkd.service systemd-resolved.service ldconfig.service; do
	ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
