//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/test/lab"
	"github.com/sealerio/sealer/test/olderimage"
)

// A cluster is made of an image as sealos makes them: programs in an archive, container images in a registry's folder,
// scripts and templates that want sealos. None of its scripts is run.
func TestOlderImages_Run(t *testing.T) {
	const root = "older-run"
	image := shared.Registry + "/older/cluster:v1"
	_, err := olderimage.Push(t.Context(), image, olderimage.Options{
		Tool: olderimage.Sealos, Version: lab.KubernetesVersion, Packed: labImages(t),
		Files: map[string]string{
			"bin/kube":                  component(t, "bin/kube"),
			"cri/cri-containerd.tar.gz": criArchive(t),
			"scripts/init.sh":           "touch /run-by-sealos\n",
			"scripts/containerd.sh":     "touch /run-by-sealos\n",
			"scripts/init-kube.sh":      "touch /run-by-sealos\n",
			"etc/kubeadm.yml.tmpl":      "registry: {{ .registryDomain }}\n",
			"manifests/podnet.yaml":     component(t, "manifests/podnet.yaml"),
			"manifests/hello.yaml":      component(t, "manifests/hello.yaml"),
		},
		Links: map[string]string{"bin/kubeadm": "kube", "bin/kubelet": "kube", "bin/kubectl": "kube"},
		Cmd:   []string{"kubectl apply -f manifests/podnet.yaml", "kubectl apply -f manifests/hello.yaml"},
	})
	require.NoError(t, err)
	file, err := shared.WriteClusterfile("older")
	require.NoError(t, err)
	require.NoError(t, shared.TrustHosts(root))
	before := snapshots(t)

	t.Run("what is missing is said before a host is touched", func(t *testing.T) {
		bare := shared.Registry + "/older/bare:v1"
		_, err := olderimage.Push(t.Context(), bare, olderimage.Options{
			Tool: olderimage.Sealer, Packed: map[string]v1.Image{"registry.k8s.io/kube-apiserver:" + lab.KubernetesVersion: nil},
			Files: map[string]string{"bin/kubeadm": "x", "bin/kubelet": "x", "bin/kubectl": "x", "cri/docker.tar.gz": "no archive"},
		})
		require.NoError(t, err)
		_, err = shared.Run(t.Context(), root, append(shared.RunImageArgs(bare, file), "--progress", "none")...)
		require.ErrorContains(t, err, "neither its bin/ nor its cri/ holds containerd, containerd-shim-runc-v2, ctr, runc, crictl")
		require.ErrorContains(t, err, "build an image FROM it that adds them: COPY containerd containerd-shim-runc-v2 ctr runc crictl bin/")
		require.ErrorContains(t, err, "the image does not pack etcd")
		unchanged(t, before, snapshots(t))
	})

	t.Cleanup(func() { // other tests want the hosts
		if t.Failed() {
			_, _ = shared.Run(t.Context(), root, "delete", "--all", "--yes", "--name", "older", "--pk", shared.Hosts.KeyFile)
		}
	})
	sealer(t, root, shared.RunImageArgs(image, file)...)
	require.NoError(t, shared.WaitForNodes(t.Context(), 2, time.Minute))
	answers, err := shared.GetShop(t.Context(), time.Minute)
	require.NoError(t, err)
	require.Equal(t, []string{"hello from docker.io/sealer-test/hello:v1", "hello from docker.io/sealer-test/hello:v1"}, answers)
	for _, h := range shared.Hosts.Hosts {
		_, err := h.Exec(t.Context(), "test", "!", "-e", "/run-by-sealos")
		require.NoError(t, err, "a script of sealos was run")
	}
	require.Contains(t, sealer(t, root, shared.RunImageArgs(image, file)...), "nothing to change")
	sealer(t, root, "delete", "--all", "--yes", "--name", "older", "--pk", shared.Hosts.KeyFile)
	unchanged(t, before, snapshots(t))
}

// labImages are those of the lab's registry, less the one of two platforms and those of one path in two domains.
func labImages(t *testing.T) map[string]v1.Image {
	t.Helper()
	images := map[string]v1.Image{}
	for ref := range strings.FieldsSeq(component(t, "images.txt")) {
		if strings.Contains(ref, "/multi:") || strings.HasPrefix(ref, "quay.io/") {
			continue
		}
		parsed, err := name.ParseReference(shared.Registry + "/" + ref)
		require.NoError(t, err)
		images[ref], err = remote.Image(parsed)
		require.NoError(t, err)
	}
	return images
}

func component(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(shared.Components, file))
	require.NoError(t, err)
	return string(data)
}

// criArchive holds what containerd's own releases do, in their places.
func criArchive(t *testing.T) string {
	t.Helper()
	var buf bytes.Buffer
	zw, err := gzip.NewWriterLevel(&buf, gzip.BestSpeed)
	require.NoError(t, err)
	tw := tar.NewWriter(zw)
	add := func(dir, file string) {
		data := component(t, file)
		require.NoError(t, tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: dir + filepath.Base(file), Mode: 0o755, Size: int64(len(data))}))
		_, err := tw.Write([]byte(data))
		require.NoError(t, err)
	}
	for _, program := range []string{"containerd", "containerd-shim-runc-v2", "ctr", "crictl"} {
		add("usr/local/bin/", "bin/"+program)
	}
	add("usr/local/sbin/", "bin/runc")
	for _, plugin := range []string{"bridge", "host-local", "loopback", "portmap", "ptp"} {
		add("opt/cni/bin/", "cni/"+plugin)
	}
	require.NoError(t, tw.Close())
	require.NoError(t, zw.Close())
	return buf.String()
}
