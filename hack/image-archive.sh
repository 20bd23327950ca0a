#!/usr/bin/env bash
# Packs an image as `docker load`, `ctr images import` and an image directory read it:
#   hack/image-archive.sh OUT NAME[,NAME...] CONFIG LAYER...
# CONFIG is the "config" object of an OCI image configuration; a LAYER is a directory
# or a tar file, lowest first.
set -euo pipefail
out=$1 names=$2 config=$3
shift 3

dir=$(mktemp -d -p "$(dirname "$out")")
trap 'rm -rf "$dir"' EXIT
ids= layers= i=0
for layer in "$@"; do
	if [ -d "$layer" ]; then
		tar -C "$layer" --numeric-owner --sort=name --mtime=@0 -cf "$dir/$i.tar" .
	else
		cp "$layer" "$dir/$i.tar"
	fi
	ids+=,\"sha256:$(sha256sum "$dir/$i.tar" | cut -d' ' -f1)\"
	layers+=,\"$i.tar\"
	i=$((i + 1))
done
printf '{"architecture":"%s","os":"linux","config":%s,"rootfs":{"type":"layers","diff_ids":[%s]}}' \
	"$(dpkg --print-architecture)" "$config" "${ids#,}" >"$dir/config.json"
printf '[{"Config":"config.json","RepoTags":["%s"],"Layers":[%s]}]' "${names//,/\",\"}" "${layers#,}" >"$dir/manifest.json"
tar -C "$dir" -cf "$out.new" manifest.json config.json $(cd "$dir" && ls -- *.tar)
mv "$out.new" "$out"
