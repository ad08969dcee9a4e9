// SPDX-License-Identifier: Apache-2.0

package contexts

import (
	"context"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
)

// asset is a file of a release.
type asset struct {
	URL string
	// sums is the file with its checksum, and Listed its name there; a file with nothing but a checksum is fine, too.
	Sums, Listed string
	// Dest is where it goes: a file, or with Unpack a folder.
	Dest   string
	Unpack bool
	// Checksum is sha256:…, "" where it is not known.
	Checksum string
	// Optional says that an image is fine without it.
	Optional bool
}

// Folder is where its files go.
func (a asset) Folder() string {
	if a.Unpack {
		return a.Dest
	}
	return path.Dir(a.Dest)
}

// Match is the condition, for awk, of its line in the file with its checksum.
func (a asset) Match() string {
	if a.Listed == "" {
		return "NF == 1"
	}
	return fmt.Sprintf(`NF == 1 || $2 == "%s" || $2 == "*%s"`, a.Listed, a.Listed)
}

// k3sAsset is the name of k3s in its releases, https://github.com/k3s-io/k3s/releases.
func k3sAsset(arch string) string {
	switch arch {
	case "amd64":
		return "k3s"
	case "arm":
		return "k3s-armhf"
	default:
		return "k3s-" + arch
	}
}

// components are versions of what is beside Kubernetes. crictl follows Kubernetes' minor.
func components(version string, wanted map[string]string) (map[string]string, error) {
	minor, _, _ := strings.Cut(strings.TrimPrefix(version, "v1."), ".")
	out := map[string]string{"containerd": "2.3.6", "runc": "1.5.2", "cni": "1.9.1", "crictl": "1." + minor + ".0"}
	for name, version := range wanted {
		if _, ok := out[name]; !ok {
			return nil, fmt.Errorf("component %q is none of %s", name, strings.Join(slices.Sorted(maps.Keys(out)), ", "))
		}
		out[name] = strings.TrimPrefix(version, "v")
	}
	return out, nil
}

// assets are the files of a release for an architecture, and where their checksums are.
func (p *plan) assets(arch string) ([]asset, error) {
	tag := strings.ReplaceAll(p.o.Version, "+", "%2B")
	switch p.o.Runtime {
	case "k3s":
		base := "https://github.com/k3s-io/k3s/releases/download/" + tag + "/"
		script := "https://raw.githubusercontent.com/k3s-io/k3s/" + tag + "/install.sh" // no part of the release: it lies beside its sources
		return []asset{
			{URL: base + k3sAsset(arch), Sums: base + "sha256sum-" + arch + ".txt", Listed: k3sAsset(arch), Dest: "bin/k3s"},
			{URL: script, Sums: script + ".sha256sum", Listed: "install.sh", Dest: "scripts/k3s-install.sh", Optional: true},
		}, nil
	case "k0s":
		base := "https://github.com/k0sproject/k0s/releases/download/" + tag + "/"
		name := "k0s-" + p.o.Version + "-" + arch
		return []asset{{URL: base + strings.ReplaceAll(name, "+", "%2B"), Sums: base + "sha256sums.txt", Listed: name, Dest: "bin/k0s"}}, nil
	}
	v, err := components(p.o.Version, p.o.Components)
	if err != nil {
		return nil, err
	}
	var list []asset
	for _, name := range []string{"kubeadm", "kubelet", "kubectl"} {
		url := "https://dl.k8s.io/release/" + p.o.Version + "/bin/linux/" + arch + "/" + name
		list = append(list, asset{URL: url, Sums: url + ".sha256", Dest: "bin/" + name})
	}
	packed := func(url, sums, dest string) asset {
		return asset{URL: url, Sums: url + sums, Listed: path.Base(url), Dest: dest, Unpack: true}
	}
	runc := "https://github.com/opencontainers/runc/releases/download/v" + v["runc"] + "/"
	return append(list,
		packed("https://github.com/containerd/containerd/releases/download/v"+v["containerd"]+"/containerd-"+v["containerd"]+"-linux-"+arch+".tar.gz", ".sha256sum", "."),
		asset{URL: runc + "runc." + arch, Sums: runc + "runc.sha256sum", Listed: "runc." + arch, Dest: "bin/runc"},
		packed("https://github.com/kubernetes-sigs/cri-tools/releases/download/v"+v["crictl"]+"/crictl-v"+v["crictl"]+"-linux-"+arch+".tar.gz", ".sha256", "bin"),
		packed("https://github.com/containernetworking/plugins/releases/download/v"+v["cni"]+"/cni-plugins-linux-"+arch+"-v"+v["cni"]+".tgz", ".sha256", "cni"),
	), nil
}

// downloaded plans a Kubefile that fetches the programs.
func (p *plan) downloaded(ctx context.Context, k *kubefileData) error {
	if p.o.Version == "" {
		return &versionError{Runtime: p.o.Runtime, Why: "the release to download"}
	}
	if err := p.checkVersion(); err != nil {
		return err
	}
	// The list of images is printed by the program while the image is built, by the one for the machine that builds.
	arches := p.arches
	asked := p.o.ImageList == "" && listCommand(p.o.Runtime, p.o.Version) != nil
	if asked {
		for _, arch := range []string{"amd64", "arm64"} {
			if !slices.Contains(arches, arch) {
				arches = append(slices.Clone(arches), arch)
			}
		}
	}
	for _, arch := range arches {
		assets, err := p.assets(arch)
		if err != nil {
			return err
		}
		k.Stages = append(k.Stages, stage{Arch: arch, Assets: assets})
	}
	if err := p.checksums(ctx, k.Stages); err != nil {
		return err
	}
	for _, s := range k.Stages {
		for _, a := range s.Assets {
			d := Download{URL: a.URL, Platform: "linux/" + s.Arch, Checksum: a.Checksum}
			if a.Checksum == "" {
				d.ChecksumURL = a.Sums
			}
			p.result.Downloads = append(p.result.Downloads, d)
		}
	}
	switch {
	case p.o.ImageList != "":
		return p.takeList(k, p.o.ImageList)
	case asked:
		k.ListCommand = "bin/" + strings.Join(listCommand(p.o.Runtime, p.o.Version), " ")
		if p.o.Runtime == "k0s" {
			k.ListCommand += " | grep -Ev '" + k0sExtras + "'"
		}
		p.result.Images = k.ListCommand + ", while the image is built"
		return nil
	}
	return p.releasedList(ctx, k)
}

// releasedList fetches the list of a release of k3s; without a network, the known one.
func (p *plan) releasedList(ctx context.Context, k *kubefileData) error {
	url := p.mirrored("https://github.com/k3s-io/k3s/releases/download/" + strings.ReplaceAll(p.o.Version, "+", "%2B") + "/k3s-images.txt")
	text, err := p.fetch(ctx, url)
	if err == nil {
		return p.list(k, text, url)
	}
	if !isUnreachable(err) {
		return fmt.Errorf("fetching the list of images: %w", err)
	}
	p.note("the release's list of images cannot be fetched from here: %v", err)
	return p.knownImages(k)
}
