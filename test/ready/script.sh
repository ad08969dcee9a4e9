#!/bin/sh
# A cluster of kubeadm by hand: what a person would write who has the programs, the images as archives, and ssh. It is what
# sealer's time to Ready is held against. IN holds files/, control.tar, worker.tar, manifests/ and kubeadm.yaml; CONTROL and
# WORKER are addresses, KEY and KNOWN ssh's files.
set -eu
on() {
	address=$1
	shift
	ssh -i "$KEY" -o UserKnownHostsFile="$KNOWN" -o BatchMode=yes -o ControlMaster=auto -o ControlPersist=60 \
		-o ControlPath="$IN/ssh-%h" "root@$address" "$@"
}

# prepare ADDRESS IMAGES: programs, settings, containerd, images.
prepare() {
	tar -C "$IN/files" -cf - . | on "$1" 'tar -C / --no-same-owner -xf -
		modprobe overlay 2>/dev/null; modprobe br_netfilter 2>/dev/null
		sysctl -q -w net.ipv4.ip_forward=1
		sysctl -q -w net.bridge.bridge-nf-call-iptables=1 2>/dev/null
		swapoff -a
		mkdir -p /etc/kubernetes/manifests /etc/cni/net.d
		systemctl daemon-reload
		systemctl enable --quiet kubelet
		systemctl enable --quiet --now containerd'
	on "$1" 'ctr --namespace k8s.io images import --digests=false - >/dev/null' <"$2"
}

prepare "$WORKER" "$IN/worker.tar" &
preparing=$!
prepare "$CONTROL" "$IN/control.tar"
on "$CONTROL" 'cat >/root/kubeadm.yaml' <"$IN/kubeadm.yaml"
on "$CONTROL" 'kubeadm init --config /root/kubeadm.yaml >&2'
for manifest in podnet hello; do
	on "$CONTROL" 'kubectl --kubeconfig /etc/kubernetes/admin.conf apply -f - >&2' <"$IN/manifests/$manifest.yaml"
done
join=$(on "$CONTROL" 'kubeadm token create --print-join-command' 2>/dev/null)
wait "$preparing"
on "$WORKER" "$join --ignore-preflight-errors SystemVerification >&2"
# shellcheck disable=SC2016 # it is the host that looks
on "$CONTROL" 'until [ "$(kubectl --kubeconfig /etc/kubernetes/admin.conf get nodes --no-headers | grep -cw Ready)" = 2 ]; do sleep 0.5; done'
on "$CONTROL" -O exit 2>/dev/null || :
on "$WORKER" -O exit 2>/dev/null || :
