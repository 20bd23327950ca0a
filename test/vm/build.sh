#!/usr/bin/env bash
# Builds the test machine into .cache/vm: a Debian disk with systemd, its kernel,
# and a two-file initrd. Does nothing while the recipe stays the same.
set -euo pipefail
cd "$(dirname "$0")/../.."

cache=.cache/vm
suite=trixie
packages=systemd,systemd-sysv,dbus,udev,kmod,iproute2,iptables,nftables,procps,linux-image-cloud-amd64

mkdir -p $cache
exec 9>$cache/lock
flock 9
stamp=$(cat hack/debian-root.sh test/vm/build.sh test/vm/init test/machine/* | sha256sum | cut -d' ' -f1)
[ "$(cat $cache/stamp 2>/dev/null)" = "$stamp" ] && exit 0
hack/install.sh qemu-system-x86 e2fsprogs cpio xz-utils busybox-static
echo "building the $suite test machine" >&2

work=$PWD/$cache/work
rm -rf "$work"
mkdir -p "$work"/root "$work"/initrd/{bin,dev,root}
trap 'rm -rf "$work"' EXIT
hack/debian-root.sh $suite "$work/root.tar" $packages
tar -C "$work/root" -xf "$work/root.tar"

root=$work/root
cp "$root"/boot/vmlinuz-* $cache/vmlinuz
# Debian's initrd is 18 MB of drivers for other machines and takes longer to
# unpack in an emulator than everything else until systemd starts. This kernel
# lacks one module to mount the disk.
xz -dc "$root"/usr/lib/modules/*/kernel/drivers/block/virtio_blk.ko.xz >"$work/initrd/virtio_blk.ko"
cp /bin/busybox "$work/initrd/bin/sh"
for applet in mount insmod switch_root; do ln -s sh "$work/initrd/bin/$applet"; done
cp test/vm/init "$work/initrd/init"
chmod +x "$work/initrd/init"
(cd "$work/initrd" && find . | cpio --quiet -o -H newc) | gzip -1 >$cache/initrd
rm -rf "$root"/boot/*

test/machine/prepare.sh "$root"
cat >"$root/etc/fstab" <<'FSTAB'
/dev/vda /        ext4 rw,noatime 0 0
/dev/vdb /payload ext4 rw,noatime 0 0
FSTAB

rm -f $cache/root.img
truncate -s 6G $cache/root.img
# No journal: the disk is thrown away after each run.
mkfs.ext4 -q -F -O ^has_journal -E lazy_itable_init=1 -d "$root" $cache/root.img
echo "$stamp" >$cache/stamp
