// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/test/lab"
)

// writeInputs lays out what the script takes: the very programs, images and settings that sealer's image and Clusterfile hold.
func writeInputs(l *lab.Lab, dir string) error {
	files := filepath.Join(dir, "files")
	for from, to := range map[string]string{"bin": "usr/local/bin", "cni": "opt/cni/bin"} {
		if err := os.CopyFS(filepath.Join(files, to), os.DirFS(filepath.Join(l.Components, from))); err != nil {
			return fmt.Errorf("copying programs: %w", err)
		}
	}
	if err := os.CopyFS(filepath.Join(dir, "manifests"), os.DirFS(filepath.Join(l.Components, "manifests"))); err != nil {
		return fmt.Errorf("copying manifests: %w", err)
	}
	list, err := os.ReadFile(filepath.Join(l.Components, "images.txt"))
	if err != nil {
		return fmt.Errorf("reading the list of images: %w", err)
	}
	pause := ""
	worker := []string{"docker.io/sealer-test/hello:v1", "ghcr.io/sealer-test/podnet:v1"}
	control := slices.Clone(worker)
	for name := range strings.Lines(string(list)) {
		name = strings.TrimSpace(name)
		if !strings.HasPrefix(name, "registry.k8s.io/") {
			continue
		}
		control = append(control, name)
		for _, node := range []string{"/pause:", "/kube-proxy:", "/coredns/"} {
			if strings.Contains(name, node) {
				worker = append(worker, name)
			}
		}
		if strings.Contains(name, "/pause:") {
			pause = name
		}
	}
	for name, images := range map[string][]string{"control": control, "worker": worker} {
		if err := writeArchive(filepath.Join(l.Components, "images"), filepath.Join(dir, name+".tar"), images); err != nil {
			return fmt.Errorf("writing the images of the %s: %w", name, err)
		}
	}
	clusterfile, err := l.WriteClusterfile(root)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(clusterfile)
	if err != nil {
		return fmt.Errorf("reading the Clusterfile: %w", err)
	}
	template := filepath.Join(l.Source, "rootfs-templates", "kubernetes", "etc")
	for to, from := range map[string]string{
		"etc/systemd/system/containerd.service":                filepath.Join(template, "containerd", "containerd.service"),
		"etc/systemd/system/kubelet.service":                   filepath.Join(template, "kubelet", "kubelet.service"),
		"etc/systemd/system/kubelet.service.d/10-kubeadm.conf": filepath.Join(template, "kubelet", "10-kubeadm.conf"),
		"etc/crictl.yaml":                                      filepath.Join(template, "crictl.yaml"),
	} {
		data, err := os.ReadFile(from)
		if err != nil {
			return fmt.Errorf("copying settings: %w", err)
		}
		if err := write(filepath.Join(files, to), string(data)); err != nil {
			return err
		}
	}
	return errors.Join(
		write(filepath.Join(files, "etc/containerd/config.toml"), fmt.Sprintf(containerdConfig, pause)),
		write(filepath.Join(dir, "kubeadm.yaml"), kubeadmConfig(string(text))),
		write(filepath.Join(dir, "Clusterfile"), string(text)),
	)
}

func write(path, text string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("writing settings: %w", err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return fmt.Errorf("writing settings: %w", err)
	}
	return nil
}

const containerdConfig = `version = 3
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = %q
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
      SystemdCgroup = true
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ["/opt/cni/bin"]
    conf_dir = "/etc/cni/net.d"
`

// kubeadmConfig are kubeadm's documents of a Clusterfile, and what sealer sets besides: networks and the version.
func kubeadmConfig(clusterfile string) string {
	docs := []string{"apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nkubernetesVersion: " + lab.KubernetesVersion +
		"\nnetworking: {podSubnet: 10.244.0.0/16, serviceSubnet: 10.96.0.0/12}\n"}
	for doc := range strings.SplitSeq(clusterfile, "\n---\n") {
		if strings.Contains(doc, "k8s.io/") && !strings.Contains(doc, "JoinConfiguration") {
			docs = append(docs, doc)
		}
	}
	return strings.Join(docs, "\n---\n")
}

// writeArchive packs images of an OCI layout, as ctr imports them.
func writeArchive(layout, path string, images []string) (err error) {
	data, err := os.ReadFile(filepath.Join(layout, "index.json"))
	if err != nil {
		return err
	}
	var index ocispec.Index
	if err := json.Unmarshal(data, &index); err != nil {
		return err
	}
	index.Manifests = slices.DeleteFunc(index.Manifests, func(d ocispec.Descriptor) bool {
		return !slices.Contains(images, d.Annotations[ocispec.AnnotationRefName])
	})
	if len(index.Manifests) != len(images) {
		return fmt.Errorf("the layout has %d of the images %v", len(index.Manifests), images)
	}
	blobs := map[digest.Digest]bool{}
	for i, d := range index.Manifests {
		index.Manifests[i].Annotations = map[string]string{"io.containerd.image.name": d.Annotations[ocispec.AnnotationRefName]}
		blobs[d.Digest] = true
		text, err := os.ReadFile(blobPath(layout, d.Digest))
		if err != nil {
			return err
		}
		var m ocispec.Manifest
		if err := json.Unmarshal(text, &m); err != nil {
			return err
		}
		for _, b := range append(m.Layers, m.Config) {
			blobs[b.Digest] = true
		}
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	w := tar.NewWriter(f)
	defer func() { err = errors.Join(err, w.Close(), f.Close()) }()
	add := func(name string, data []byte) error {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(data))}); err != nil {
			return err
		}
		_, err := w.Write(data)
		return err
	}
	text, err := json.Marshal(index)
	if err != nil {
		return err
	}
	if err := errors.Join(add("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)), add("index.json", text)); err != nil {
		return err
	}
	for d := range blobs {
		data, err := os.ReadFile(blobPath(layout, d))
		if err != nil {
			return err
		}
		if err := add("blobs/"+d.Algorithm().String()+"/"+d.Encoded(), data); err != nil {
			return err
		}
	}
	return nil
}

func blobPath(layout string, d digest.Digest) string {
	return filepath.Join(layout, "blobs", d.Algorithm().String(), d.Encoded())
}
