#!/usr/bin/env bash
# Installs the Debian packages named that this machine lacks:
#   hack/install.sh libseccomp-dev pkg-config
set -euo pipefail

missing=()
for package in "$@"; do
	state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
	[ "$state" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
	echo "missing Debian packages: ${missing[*]}; install them, or run this as root on Debian" >&2
	exit 1
fi
echo "installing ${missing[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
# Two make targets may install at once; apt's own lock waits.
apt="apt-get -qq -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3"
install="$apt install -y --no-install-recommends ${missing[*]}"
# The package lists of a fresh machine are empty or old: update, then once more.
$install >/dev/null 2>&1 || { $apt update >&2 && $install >/dev/null; }
