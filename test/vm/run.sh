#!/usr/bin/env bash
# Boots the test machine with a copy of DIR at /payload, runs /payload/job in it
# as a systemd service, and exits with its exit code:
#   test/vm/run.sh DIR
# What the job prints is this script's standard output; the console goes to
# .cache/vm/console.log. Every boot starts from the same disk.
set -euo pipefail
payload=$(cd "$1" && pwd)
cd "$(dirname "$0")/../.."
test/vm/build.sh
cache=$PWD/.cache/vm
limit=${VM_TIMEOUT:-3000}

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# The device may exist and hang, where this is a virtual machine itself: see the
# kernel's first line before trusting it. Asked once per boot of this machine.
accel() {
	local answer=$cache/accel.$(cat /proc/sys/kernel/random/boot_id)
	if [ ! -e "$answer" ]; then
		rm -f "$cache"/accel.*
		# One thread: with several, a processor can run into a breakpoint that another
		# one has already patched out of the kernel (jump labels), and panics.
		echo tcg,thread=single >"$answer"
		if [ -w /dev/kvm ] && timeout -k 1 10 qemu-system-x86_64 -accel kvm -cpu host -m 256 -nographic -no-reboot \
			-kernel "$cache/vmlinuz" -append "console=ttyS0 panic=-1" </dev/null 2>&1 | grep -qa "Linux version"; then
			echo kvm >"$answer"
		fi
	fi
	cat "$answer"
}

size=$(($(du -sm "$payload" | cut -f1) * 5 / 4 + 256))
truncate -s "${size}M" "$tmp/payload.img"
mkfs.ext4 -q -F -O ^has_journal -d "$payload" "$tmp/payload.img"

mkfifo "$tmp/job"
accel=$(accel)
echo "booting the test machine ($accel)" >&2
timeout -k 5 "$limit" qemu-system-x86_64 -accel "$accel" -cpu max -smp 2 -m 3072 -nodefaults -no-reboot -display none \
	-kernel "$cache/vmlinuz" -initrd "$cache/initrd" \
	-append "console=ttyS0 root=/dev/vda rw quiet mitigations=off psi=1 panic=-1 systemd.show_status=0" \
	-serial "file:$cache/console.log" \
	-drive "file=$cache/root.img,if=virtio,format=raw,snapshot=on,cache=unsafe" \
	-drive "file=$tmp/payload.img,if=virtio,format=raw,cache=unsafe" \
	-device virtio-rng-pci -device virtio-serial-pci \
	-chardev "file,id=job,path=$tmp/job" -device virtserialport,chardev=job,name=job \
	</dev/null >"$tmp/qemu.log" 2>&1 &
qemu=$!
trap 'kill $qemu 2>/dev/null || true; wait $qemu 2>/dev/null || true; rm -rf "$tmp"' EXIT

code=0
test/machine/relay.sh <"$tmp/job" || code=$?
if [ $code -eq 255 ]; then
	echo "the test machine died or took longer than $limit s; its last words:" >&2
	cat "$tmp/qemu.log" >&2
	tail -n 40 "$cache/console.log" >&2
else
	wait $qemu || true # it is powering off
fi
exit $code
