#!/usr/bin/env bash
# Boots systemd in a privileged container of this machine's kernel and cgroups,
# with DIR at /payload, runs /payload/job there as a service, and exits with its
# exit code:
#   test/systemd-container/run.sh DIR
# The container has its own cgroup subtree, network, mounts and process IDs; all
# of them are gone when this script ends.
set -euo pipefail
payload=$(cd "$1" && pwd)
cd "$(dirname "$0")/../.."
test/systemd-container/build.sh
runc=$PWD/.cache/bin/runc
limit=${CONTAINER_TIMEOUT:-900}

name=natest-systemd-$$
dir=$(mktemp -d -p "${TMPDIR:-/var/tmp}" na-systemd-XXXXXX)
job=
cleanup() {
	[ -z "$job" ] || kill "$job" 2>/dev/null || true
	# Kills every process of the container and removes its cgroups, the slices that
	# systemd made below them included.
	"$runc" --root "$dir/runc" delete --force "$name" 2>/dev/null || true
	for leftover in /sys/fs/cgroup/{,*/}"$name"; do
		[ ! -d "$leftover" ] || find "$leftover" -depth -type d -exec rmdir {} \; || true
	done
	rm -rf --one-file-system "$dir"
}
trap cleanup EXIT

# A copy: overlayfs, which containerd wants in there, does not stack on overlayfs.
cp -a .cache/container/root "$dir/rootfs"
mkdir "$dir/job"
mkfifo "$dir/job/out"

# What "privileged" means on this machine: all that its bounding set has.
capabilities() {
	local all=(CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
		NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT
		SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE
		AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ
		PERFMON BPF CHECKPOINT_RESTORE)
	local bounding=$((16#$(awk '/^CapBnd/ { print $2 }' /proc/self/status)))
	local i names=()
	for i in "${!all[@]}"; do
		(((bounding >> i) & 1)) && names+=("\"CAP_${all[i]}\"")
	done
	(IFS=, && echo "[${names[*]}]")
}
caps=$(capabilities)
cat >"$dir/config.json" <<JSON
{
  "ociVersion": "1.2.0",
  "hostname": "testmachine",
  "root": {"path": "rootfs"},
  "process": {
    "cwd": "/", "user": {"uid": 0, "gid": 0}, "args": ["/sbin/init"],
    "env": ["container=nodeagent-test", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
    "capabilities": {"bounding": $caps, "effective": $caps, "permitted": $caps}
  },
  "mounts": [
    {"destination": "/proc", "type": "proc", "source": "proc"},
    {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
    {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666", "gid=5"]},
    {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "nodev"]},
    {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue"},
    {"destination": "/sys", "type": "sysfs", "source": "sysfs"},
    {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["rw"]},
    {"destination": "/run", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
    {"destination": "/payload", "type": "bind", "source": "$payload", "options": ["rbind", "rw"]},
    {"destination": "/job", "type": "bind", "source": "$dir/job", "options": ["bind", "rw"]},
    {"destination": "/lib/modules", "type": "bind", "source": "/lib/modules", "options": ["rbind", "ro"]}
  ],
  "linux": {
    "cgroupsPath": "/$name",
    "rootfsPropagation": "rshared",
    "resources": {"devices": [{"allow": true, "access": "rwm"}]},
    "devices": [
      {"path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11, "fileMode": 420},
      {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 438},
      {"path": "/dev/net/tun", "type": "c", "major": 10, "minor": 200, "fileMode": 438}
    ],
    "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "cgroup"}]
  }
}
JSON
[ -d /lib/modules ] || sed -i '/"\/lib\/modules"/d; s|\("/job".*\),$|\1|' "$dir/config.json"

echo "booting systemd in a container" >&2
# Its own session, so that Ctrl-C reaches this script, which then cleans up.
setsid timeout -k 5 "$limit" "$runc" --root "$dir/runc" run --bundle "$dir" "$name" </dev/null >"$dir/console.log" 2>&1 &
job=$!
# Opening for reading and writing keeps the pipe from ending before the job has
# started; a container that dies early is noticed by its process.
exec 8<>"$dir/job/out"
(
	while kill -0 $job 2>/dev/null; do sleep 0.2; done
	echo "exit 255" >&8
) &
code=0
test/machine/relay.sh <&8 || code=$?
if [ $code -eq 255 ]; then
	echo "the container died or took longer than $limit s; its last words:" >&2
	tail -n 40 "$dir/console.log" >&2
fi
exit $code
