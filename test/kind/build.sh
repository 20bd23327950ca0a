#!/usr/bin/env bash
# Builds what a kind cluster needs where no registry can be reached, into .cache/kind:
# a Docker Engine of Debian's packages (unpacked, not installed: no service is
# started), and a node image with kubelet, kubeadm, containerd and the control plane's
# images inside, all built from the Go modules that hack/peers and hack/tools pin.
set -euo pipefail
cd "$(dirname "$0")/../.."

cache=$PWD/.cache/kind
mkdir -p "$cache"
exec 8>"$cache/lock"
flock 8
stamp=$(cat test/kind/build.sh test/kind/narrow/*.go hack/debian-root.sh hack/image-archive.sh hack/peers/go.mod hack/tools/go.mod <(go version) | sha256sum | cut -d' ' -f1)
[ "$(cat "$cache/stamp" 2>/dev/null)" = "$stamp" ] && exit 0

hack/build-tools.sh
hack/build-peers.sh etcd kind kube-apiserver kube-controller-manager kube-proxy kube-scheduler kubeadm kubectl kubelet
hack/install.sh gcc libc6-dev
peers=$PWD/.cache/peers tools=$PWD/.cache/bin

work=$(mktemp -d -p "$cache")
containerd=
cleanup() {
	[ -z "$containerd" ] || { kill "$containerd" && wait "$containerd" || true; }
	rm -rf --one-file-system "$work"
}
trap cleanup EXIT

engine() {
	echo "unpacking a Docker Engine" >&2
	mkdir "$work/debs"
	(cd "$work/debs" && { apt-get -qq download docker.io containerd runc 2>/dev/null || { apt-get -qq update && apt-get -qq download docker.io containerd runc; }; }) >&2
	rm -rf "$cache/engine"
	mkdir "$cache/engine"
	for deb in "$work"/debs/*.deb; do dpkg -x "$deb" "$work/engine"; done
	cp "$work"/engine/usr/bin/{docker,containerd,containerd-shim-runc-v2} \
		"$work"/engine/usr/sbin/{dockerd,docker-proxy,runc} "$cache/engine/"
	CGO_ENABLED=0 go build -trimpath -o "$cache/engine/narrow" ./test/kind/narrow
}

# component NAME PROGRAM: the image of one static program.
component() {
	mkdir -p "$work/rootfs/usr/local/bin" "$work/rootfs/tmp" "$work/rootfs/etc"
	cp "$peers/$2" "$work/rootfs/usr/local/bin/"
	hack/image-archive.sh "$work/images/$2.tar" "$1" '{"Env":["PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]}' "$work/rootfs"
	rm -rf "$work/rootfs"
}

images() {
	echo "building the control plane's images" >&2
	mkdir "$work/images"
	local name program list
	list=$("$peers/kubeadm" config images list --kubernetes-version "$("$peers/kubelet" --version | cut -d' ' -f2)" 2>/dev/null)
	for name in $list; do
		program=${name##*/}
		program=${program%:*}
		case $program in
		coredns) ;;
		pause)
			mkdir -p "$work/rootfs"
			gcc -Os -static -o "$work/rootfs/pause" "$(cd hack/peers && go list -m -f '{{.Dir}}' k8s.io/kubernetes)/build/pause/linux/pause.c"
			hack/image-archive.sh "$work/images/pause.tar" "$name" '{"Entrypoint":["/pause"],"User":"65535:65535"}' "$work/rootfs"
			rm -rf "$work/rootfs"
			pause=$name
			;;
		kube-proxy) # calls iptables
			mkdir "$work/rootfs"
			hack/debian-root.sh bookworm "$work/proxy.tar" iptables,conntrack,kmod
			tar -C "$work/rootfs" -xf "$work/proxy.tar"
			rm "$work/proxy.tar"
			component "$name" kube-proxy
			;;
		*) component "$name" "$program" ;;
		esac
	done
}

# preload unpacks the images into the node's containerd, as the nodes find them.
preload() {
	local socket=$work/containerd.sock archive
	"$tools/containerd" --config /dev/null --root "$1/var/lib/containerd" --state "$work/state" --address "$socket" >"$work/containerd.log" 2>&1 &
	containerd=$!
	until "$tools/ctr" -a "$socket" version >/dev/null 2>&1; do
		kill -0 $containerd || { cat "$work/containerd.log" >&2; exit 1; }
		sleep 0.1
	done
	for archive in "$work"/images/*.tar; do
		"$tools/ctr" -a "$socket" -n k8s.io images import --local --discard-unpacked-layers "$archive" >/dev/null
	done
	kill $containerd
	wait $containerd || true
	containerd=
}

node() {
	local root=$work/node kind
	echo "building the node image" >&2
	kind=$(cd hack/peers && go list -m -f '{{.Dir}}' sigs.k8s.io/kind)
	mkdir "$root"
	hack/debian-root.sh bookworm "$work/node.tar" systemd,systemd-sysv,dbus,conntrack,iptables,nftables,iproute2,ethtool,util-linux,mount,kmod,libseccomp2,bash,ca-certificates,curl,jq,procps,hostname
	tar -C "$root" -xf "$work/node.tar"
	rm "$work/node.tar"
	# As images/base/Dockerfile of kind lays it out.
	cp -r --no-preserve=mode,ownership "$kind"/images/base/files/. "$root/"
	chmod 755 "$root"/usr/local/bin/* "$root"/kind/bin/*
	rm -f "$root"/lib/systemd/system/sysinit.target.wants/systemd-tmpfiles-setup.service "$root"/lib/systemd/system/multi-user.target.wants/* \
		"$root"/etc/systemd/system/*.wants/* "$root"/lib/systemd/system/local-fs.target.wants/* "$root"/lib/systemd/system/sockets.target.wants/*{udev,initctl}*
	echo ReadKMsg=no >>"$root/etc/systemd/journald.conf"
	# kind takes these words, where they appear, for the end of the boot, which on a busy
	# machine is then not there yet; without them it waits for systemd's own.
	sed -i "s/'detected cgroup v1'/'version 1 of the cgroups'/" "$root/usr/local/bin/entrypoint"
	mkdir -p "$root"/{etc/systemd/system/multi-user.target.wants,etc/kubernetes/manifests,opt/cni/bin,etc/cni/net.d,kind/manifests}
	local unit
	for unit in kubelet containerd undo-mount-hacks; do
		ln -s "../$unit.service" "$root/etc/systemd/system/multi-user.target.wants/"
	done
	ln -sf /dev/null "$root/etc/systemd/system/systemd-binfmt.service"
	: >"$root/etc/machine-id"

	cp "$tools"/{containerd,containerd-shim-runc-v2,ctr} "$root/usr/local/bin/"
	cp "$tools/runc" "$root/usr/local/sbin/"
	cp .cache/cni/* "$root/opt/cni/bin/"
	cp "$peers"/{kubelet,kubeadm,kubectl} "$root/usr/bin/"
	"$peers/kubelet" --version | cut -d' ' -f2 | tr -d '\n' >"$root/kind/version"
	# kind applies this file; there is no image of a provisioner.
	cat >"$root/kind/manifests/default-storage.yaml" <<-'YAML'
		apiVersion: storage.k8s.io/v1
		kind: StorageClass
		metadata: {name: standard}
		provisioner: kubernetes.io/no-provisioner
		volumeBindingMode: WaitForFirstConsumer
	YAML
	cat >"$root/etc/cni/net.d/10-bridge.conflist" <<-'JSON'
		{"cniVersion": "1.0.0", "name": "bridge", "plugins": [
		  {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
		   "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.244.0.0/16"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
		  {"type": "portmap", "capabilities": {"portMappings": true}}]}
	JSON
	"$tools/ctr" oci spec | jq '.hooks.createContainer[.hooks.createContainer| length] |= . + {"path": "/kind/bin/mount-product-files.sh"} | del(.process.rlimits)' >"$root/etc/containerd/cri-base.json"
	# Nodes may lack CAP_SYS_RESOURCE, and so the right to lower an OOM score.
	sed -i "s|restrict_oom_score_adj = false|restrict_oom_score_adj = true|; s|sandbox_image = .*|sandbox_image = \"$pause\"|" "$root/etc/containerd/config.toml"
	sed -i '/^OOMScoreAdjust=/d; /^LimitNPROC=/d; /^LimitCORE=/d; /^LimitNOFILE=/d' "$root/etc/systemd/system/containerd.service"
	preload "$root"
	hack/image-archive.sh "$work/node-image.tar" "nodeagent.dev/kind-node:$(cat "$root/kind/version")" \
		'{"Env":["container=docker","PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],"Entrypoint":["/usr/local/bin/entrypoint","/sbin/init"],"StopSignal":"SIGRTMIN+3"}' "$root"
	mv "$work/node-image.tar" "$cache/node-image.tar"
	cp "$root/kind/version" "$cache/version"
}

pause=
hack/install.sh jq
engine
images
node
rm -rf --one-file-system "$cache/docker" # holds the old node image
echo "$stamp" >"$cache/stamp"
