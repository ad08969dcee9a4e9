#!/bin/sh
# Takes the programs that a host needs out of the rootfs of an older tool's image (sealer 0.9-0.11, sealos): out of its
# cri/, and the archives there, into bin/ and cni/. Nothing of these archives is run here, nor is any of its scripts.
# Running it again changes nothing. $1: the rootfs.
set -eu
ROOTFS=$1
work=$ROOTFS/.adopt
rm -rf "$work"
trap 'rm -rf "$work"' EXIT
mkdir -p "$ROOTFS/bin" "$ROOTFS/cni"
programs="containerd containerd-shim-runc-v2 ctr runc crictl"

# take NAME FILE: a program that bin/ lacks.
take() {
	[ -e "$ROOTFS/bin/$1" ] && return 0
	cp "$2" "$ROOTFS/bin/$1.new"
	chmod 0755 "$ROOTFS/bin/$1.new"
	mv -f "$ROOTFS/bin/$1.new" "$ROOTFS/bin/$1"
}

for name in $programs; do
	if [ -f "$ROOTFS/cri/$name" ]; then
		take "$name" "$ROOTFS/cri/$name"
	fi
done
for archive in "$ROOTFS"/cri/*.tar.gz "$ROOTFS"/cri/*.tgz "$ROOTFS"/tgz/*.tar.gz "$ROOTFS"/tgz/*.tgz; do
	[ -f "$archive" ] || continue
	rm -rf "$work"
	mkdir "$work"
	tar -xzf "$archive" -C "$work" --no-same-owner
	for name in $programs; do
		found=$(find "$work" -type f -name "$name" | sort | head -n 1)
		[ -z "$found" ] || take "$name" "$found"
	done
	find "$work" -type f -path '*/cni/bin/*' | while IFS= read -r plugin; do
		[ -e "$ROOTFS/cni/$(basename "$plugin")" ] || cp "$plugin" "$ROOTFS/cni/"
	done
done
chmod 0755 "$ROOTFS"/bin/*
