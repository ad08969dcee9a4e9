#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# toolbox.sh [ARCH] makes build/toolbox/files/toolbox-linux-ARCH.tar.zst: the root file system of RUN instructions, as
# an OCI layout. It holds busybox of Debian's package busybox, the libraries that it needs, and sealer-fetch as wget and
# curl. The same packages and the same sources give the same bytes. It needs apt-get, dpkg-deb, go, GNU tar and zstd, and
# runs on ARCH itself.
#
# Not busybox-static: that shell, its timeout, its xargs and others prefer busybox's own wget, which checks no
# certificate, to whatever stands in PATH.
set -eu
umask 022

cd "$(dirname "$0")/.."
arch=${1:-$(go env GOARCH)}
if [ "$arch" != "$(dpkg --print-architecture)" ]; then
	echo "toolbox.sh: the toolbox for $arch is made on a machine of that architecture" >&2
	exit 1
fi
out=build/toolbox/files/toolbox-linux-$arch.tar.zst
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' INT TERM

root=$tmp/root
mkdir -p "$tmp/deb" "$root/bin" "$root/sbin" "$root/usr/bin" "$root/usr/sbin" "$root/etc" "$root/root" "$root/tmp" \
	"$root/usr/share/doc/sealer-toolbox"
# apt's own user may not write here, which it would say at length.
(cd "$tmp/deb" && apt-get -q -o APT::Sandbox::User=root download busybox libc6 >&2)
for package in busybox libc6; do
	mkdir -p "$tmp/$package" "$root/usr/share/doc/$package"
	dpkg-deb -x "$tmp"/deb/"$package"_*.deb "$tmp/$package"
	cp "$tmp/$package/usr/share/doc/$package/copyright" "$root/usr/share/doc/$package/copyright"
done
version=$(dpkg-deb -f "$tmp"/deb/busybox_*.deb Version)
cversion=$(dpkg-deb -f "$tmp"/deb/libc6_*.deb Version)

cp "$tmp/busybox/bin/busybox" "$root/bin/busybox"
chmod 755 "$root/bin/busybox"
# name => path (address), or path (address) for the loader
ldd "$root/bin/busybox" | sed -n 's/^[[:space:]]*\([^ ]* => \)\{0,1\}\(\/[^ ]*\) (.*/\2/p' | while read -r library; do
	file=$(find "$tmp/libc6/lib" -type f -name "$(basename "$library")")
	if [ -z "$file" ]; then
		echo "toolbox.sh: busybox needs $library, which libc6 does not have" >&2
		exit 1
	fi
	mkdir -p "$root$(dirname "$library")"
	cp "$file" "$root$library"
	chmod 755 "$root$library"
done
"$root/bin/busybox" --list-full | while read -r applet; do
	case $applet in
	bin/busybox | */wget | */dpkg | */dpkg-deb | */rpm) continue ;;
	esac
	mkdir -p "$root/$(dirname "$applet")"
	ln -s /bin/busybox "$root/$applet"
done
CGO_ENABLED=0 GOOS=linux GOARCH=$arch go build -trimpath -buildvcs=false -ldflags '-s -w -buildid=' \
	-o "$root/usr/bin/sealer-fetch" ./cmd/sealer-fetch
ln -s sealer-fetch "$root/usr/bin/wget"
ln -s sealer-fetch "$root/usr/bin/curl"
for applet in bin/sh bin/tar usr/bin/env; do
	[ -L "$root/$applet" ] || {
		echo "toolbox.sh: this busybox has no $applet" >&2
		exit 1
	}
done
printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' >"$root/etc/passwd"
printf 'root:x:0:\nnogroup:x:65534:\n' >"$root/etc/group"
chmod 1777 "$root/tmp"
cat >"$root/usr/share/doc/sealer-toolbox/README" <<DOC
These files are from Debian, unchanged:
- /bin/busybox, of the package busybox, version $version: GNU General Public License, version 2. Its complete source is
  https://snapshot.debian.org/package/busybox/
- the libraries below /lib, of the package libc6, version $cversion: GNU Lesser General Public License, version 2.1. Their
  complete source is https://snapshot.debian.org/package/glibc/
The packages' copyright files are in /usr/share/doc. Whoever gives this archive away offers that source with it, for at
least three years, to anyone who asks, for no more than the cost of copying it.
/usr/bin/sealer-fetch (wget, curl) is part of sealer, licensed under the Apache License, version 2.0.
DOC

# A shell that prefers its own programs to those in PATH would run a wget that trusts everyone.
found=$(PATH="$root/usr/bin" "$root/bin/busybox" sh -c 'command -v wget')
[ "$found" = "$root/usr/bin/wget" ] || {
	echo "toolbox.sh: this busybox runs '$found' for wget" >&2
	exit 1
}

pack() { # pack FOLDER: a tar that depends on its contents alone
	tar -C "$1" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --format=ustar -cf - .
}
layout=$tmp/layout
blobs=$layout/blobs/sha256
mkdir -p "$blobs"
add() { # add FILE: moves it among the blobs, sets digest and size
	digest=$(sha256sum "$1" | cut -d ' ' -f 1)
	size=$(wc -c <"$1" | tr -d ' ')
	mv "$1" "$blobs/$digest"
}
platform="\"architecture\":\"$arch\",\"os\":\"linux\""
pack "$root" >"$tmp/layer"
add "$tmp/layer"
layer=$digest
layersize=$size
printf '{%s,"config":{"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
	"$platform" "$layer" >"$tmp/config"
add "$tmp/config"
printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:%s","size":%s},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"sha256:%s","size":%s}]}' \
	"$digest" "$size" "$layer" "$layersize" >"$tmp/manifest"
add "$tmp/manifest"
printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:%s","size":%s,"platform":{%s}}]}' \
	"$digest" "$size" "$platform" >"$layout/index.json"
printf '{"imageLayoutVersion":"1.0.0"}' >"$layout/oci-layout"

pack "$layout" | zstd -q -19 -T1 -f -o "$tmp/toolbox.tar.zst"
mkdir -p "$(dirname "$out")"
mv "$tmp/toolbox.tar.zst" "$out"
chmod 644 "$out"
echo "$out: $(wc -c <"$out") bytes, busybox $version" >&2
