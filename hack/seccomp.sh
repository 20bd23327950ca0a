#!/usr/bin/env bash
# Finds the C compiler and libseccomp that runc is built with for an architecture,
# installs Debian's packages where they are missing, and prints what the compiler
# has to be told as variable assignments:
#
#	hack/seccomp.sh ARCH LICENCES SYSROOT
#
# LICENCES gets a file for each library that becomes part of runc, NAME_VERSION.
# Another architecture's libseccomp is unpacked into SYSROOT, with package lists of
# its own: this machine's packages and their architectures stay as they are.
set -euo pipefail
arch=$1 licences=$2 sysroot=$3
hack=$(cd "$(dirname "$0")" && pwd)

version() { dpkg-query -W -f '${Version}' "$1"; }
if [ "$arch" = "$(go env GOHOSTARCH)" ]; then
	"$hack/install.sh" gcc libc6-dev libseccomp-dev pkg-config >&2
	cp /usr/share/doc/libseccomp-dev/copyright "$licences/libseccomp_$(version libseccomp-dev)"
	cp /usr/share/doc/libc6-dev/copyright "$licences/glibc_$(version libc6-dev)"
	exit 0
fi

case $arch in
amd64) triple=x86_64-linux-gnu cross=gcc-x86-64-linux-gnu ;;
arm64) triple=aarch64-linux-gnu cross=gcc-aarch64-linux-gnu ;;
*)
	echo "$0: no compiler known for $arch" >&2
	exit 2
	;;
esac
"$hack/install.sh" "$cross" "libc6-dev-$arch-cross" pkg-config >&2

mkdir -p "$sysroot"/apt/{lists,archives}/partial
apt=(apt-get -qq -o APT::Architecture="$arch" -o APT::Architectures::="$arch" -o Dir::State::status=/dev/null
	-o Dir::State::lists="$sysroot/apt/lists" -o Dir::Cache="$sysroot/apt" -o APT::Sandbox::User=root -o Acquire::Retries=3)
"${apt[@]}" update >&2
(cd "$sysroot/apt" && "${apt[@]}" download libseccomp-dev >&2)
package=$(echo "$sysroot"/apt/libseccomp-dev_*.deb)
dpkg-deb -x "$package" "$sysroot"

cp "$sysroot/usr/share/doc/libseccomp-dev/copyright" "$licences/libseccomp_$(dpkg-deb -f "$package" Version)"
cp "/usr/share/doc/libc6-dev-$arch-cross/copyright" "$licences/glibc_$(version "libc6-dev-$arch-cross")"
echo "CC=$triple-gcc"
echo "PKG_CONFIG_LIBDIR=$sysroot/usr/lib/$triple/pkgconfig"
echo "PKG_CONFIG_SYSROOT_DIR=$sysroot"
