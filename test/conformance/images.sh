#!/usr/bin/env bash
# Builds the images that Kubernetes' node tests use, under the names that those tests
# ask for, from Debian's packages and the programs of hack/peers: .cache/conformance/images.
set -euo pipefail
cd "$(dirname "$0")/../.."

cache=$(mkdir -p .cache/conformance && cd .cache/conformance && pwd -P)
exec 8>"$cache/lock"
flock 8
stamp=$(cat test/conformance/images.sh hack/image-archive.sh hack/debian-root.sh hack/mkimage/*.go internal/testimage/*.go hack/peers/go.mod <(go version) | sha256sum | cut -d' ' -f1)
[ "$(cat "$cache/stamp" 2>/dev/null)" = "$stamp" ] && exit 0
echo "building the images of the conformance tests" >&2

hack/build-peers.sh agnhost nonewprivs
hack/install.sh busybox-static gcc libc6-dev
peers=$PWD/.cache/peers
kubernetes=$(cd hack/peers && go list -m -f '{{.Dir}}' k8s.io/kubernetes)
tests=registry.k8s.io/e2e-test-images

work=$(mktemp -d -p "$cache")
trap 'rm -rf "$work"' EXIT
images=$work/images
mkdir "$images"
path='"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]'

# One Debian below agnhost, nginx and the tests of glibc's resolver.
hack/debian-root.sh bookworm "$work/debian.tar" bash,bind9-dnsutils,curl,hostname,iperf,iproute2,netcat-openbsd,nginx-light,socat,util-linux

agnhost=$kubernetes/test/images/agnhost
mkdir -p "$work"/agnhost/{uploads,etc}
cp "$peers/agnhost" "$work/agnhost/"
cp --no-preserve=mode "$agnhost"/porter/localhost.{crt,key} "$work/agnhost/"
ln -s agnhost "$work/agnhost/agnhost-2"
for file in passwd group; do tar -xOf "$work/debian.tar" ./etc/$file >"$work/agnhost/etc/$file"; done
echo 'user-defined-in-image:x:1000:1000::/home:/bin/sh' >>"$work/agnhost/etc/passwd"
printf '%s\n' 'user-defined-in-image:x:1000:' 'group-defined-in-image:x:50000:user-defined-in-image' >>"$work/agnhost/etc/group"
hack/image-archive.sh "$images/agnhost.tar" "$tests/agnhost:2.66.1,$tests/agnhost:2.55" \
	"{$path,\"Entrypoint\":[\"/agnhost\"],\"Cmd\":[\"pause\"]}" "$work/debian.tar" "$work/agnhost"

hack/image-archive.sh "$images/glibc-dns-testing.tar" "$tests/glibc-dns-testing:2.1.1" "{$path,\"Cmd\":[\"bash\"]}" "$work/debian.tar"

hack/image-archive.sh "$images/nginx.tar" "$tests/nginx:1.27.0-2" "{$path,\"Cmd\":[\"nginx\",\"-g\",\"daemon off;\"]}" "$work/debian.tar"

mkdir "$work/pause"
gcc -Os -static -o "$work/pause/pause" "$kubernetes/build/pause/linux/pause.c"
hack/image-archive.sh "$images/pause.tar" registry.k8s.io/pause:3.10.2 '{"Entrypoint":["/pause"],"User":"65535:65535"}' "$work/pause"

mkdir -p "$work/nonewprivs/usr/local/bin"
install -m 6755 "$peers/nonewprivs" "$work/nonewprivs/usr/local/bin/nnp"
hack/image-archive.sh "$images/nonewprivs.tar" "$tests/nonewprivs:1.4" "{$path,\"Cmd\":[\"nnp\"]}" "$work/nonewprivs"

# busybox with every applet; the second one only differs in its user.
mkdir -p "$work"/busybox/{bin,etc,root,tmp,usr/bin,usr/sbin,var}
chmod 1777 "$work/busybox/tmp"
cp /bin/busybox "$work/busybox/bin/"
for applet in $(/bin/busybox --list); do
	[ "$applet" = busybox ] || ln -s busybox "$work/busybox/bin/$applet"
done
echo 'root:x:0:0:root:/root:/bin/sh' >"$work/busybox/etc/passwd"
echo 'root:x:0:' >"$work/busybox/etc/group"
hack/image-archive.sh "$images/busybox.tar" "$tests/busybox:1.37.0-2" "{$path,\"Cmd\":[\"sh\"]}" "$work/busybox"
hack/image-archive.sh "$images/nonroot.tar" "$tests/nonroot:1.5" "{$path,\"User\":\"1234\",\"Cmd\":[\"id\"]}" "$work/busybox"

rm -rf "$cache/images"
mv "$images" "$cache/images"
echo "$stamp" >"$cache/stamp"
