#!/usr/bin/env bash
# Makes a Debian root file system for the test machines:
#   hack/debian-root.sh SUITE TARBALL PACKAGE,...
# Packages come from where this machine gets its own, with the same apt options
# (mirror, proxy, clock checks), so that it works wherever apt-get does.
set -euo pipefail
suite=$1 tarball=$2 packages=$3

hack=$(cd "$(dirname "$0")" && pwd)
"$hack/install.sh" mmdebstrap debian-archive-keyring

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

apt-config dump | grep -E '^Acquire::(Check-|http|https|ForceIPv|Retries|Queue-Mode)' >"$tmp/apt.conf" || true
# No documentation and no translations: a third of the files, and of the time.
cat >"$tmp/dpkg.cfg" <<'CFG'
path-exclude=/usr/share/doc/*
path-exclude=/usr/share/man/*
path-exclude=/usr/share/locale/*
path-exclude=/usr/share/i18n/*
CFG

# Empty where the machine is not Debian: mmdebstrap then takes its default.
mirror() {
	apt-get indextargets --format '$(ORIGIN) $(LABEL) $(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
		awk '$1 == "Debian" && $2 == "Debian" { print $3; exit }'
}
mirror=$(mirror)
if [ -z "$mirror" ]; then # before its first update apt does not know whose archive it is
	apt-get -qq update
	mirror=$(mirror)
fi
sources=()
if [ -n "$mirror" ]; then
	sources=("deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main")
fi

mmdebstrap --quiet --variant=minbase --mode=auto --format=tar \
	--aptopt="$tmp/apt.conf" --dpkgopt="$tmp/dpkg.cfg" \
	--include="$packages" "$suite" "$tmp/root.tar" "${sources[@]}"
mv "$tmp/root.tar" "$tarball"
