// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cli_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/contexts"
)

const (
	k3sVersion, k0sVersion, kubeVersion = "v1.36.1+k3s1", "v1.36.3+k0s.2", "v1.36.3"
	k0sImage, kubeImage, shopImage      = "quay.io/k0sproject/pause:3.10.2-0", "registry.k8s.io/kube-apiserver:v1.36.3", "registry.k8s.io/pause:3.10.2"
)

// standIn answers as the programs of all distributions do, by its name.
const standIn = `package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

func main() {
	name, args := filepath.Base(os.Args[0]), strings.Join(os.Args[1:], " ")
	if strings.HasPrefix(name, "k0s") {
		name = "k0s"
	}
	text, ok := map[string]string{
		"k3s --version":            "k3s version v1.36.1+k3s1 (0123abcd)\ngo version go1.26.1",
		"k0s version":              "v1.36.3+k0s.2",
		"k0s airgap list-images --all": "quay.io/k0sproject/pause:3.10.2-0\nquay.io/k0sproject/calico-node:v3.32.1-2", // that is not to be packed
		"kubeadm version -o short": "v1.36.3",
		"kubeadm config images list --kubernetes-version v1.36.3": "registry.k8s.io/kube-apiserver:v1.36.3",
		"kubelet --version":        "Kubernetes v1.36.3",
		"kubectl version --client": "Client Version: v1.36.3\nKustomize Version: v5.8.1",
		"containerd --version":     "containerd github.com/containerd/containerd/v2 v2.3.6 0123abcd",
	}[name+" "+args]
	if !ok {
		fmt.Fprintln(os.Stderr, "no answer to", name, args)
		os.Exit(1)
	}
	fmt.Println(text)
}
`

// newBench is what the written contexts are built with.
type newBench struct {
	t        *testing.T
	dir      string
	programs map[string]string // the stand-in, by architecture
	env      []string
}

func newNewBench(t *testing.T) *newBench {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a build mounts file systems: needs root")
	}
	b := &newBench{t: t, dir: t.TempDir(), programs: map[string]string{}}
	source := filepath.Join(b.dir, "main.go")
	require.NoError(t, os.WriteFile(source, []byte(standIn), 0o600))
	for _, arch := range []string{"amd64", "arm64"} {
		b.programs[arch] = filepath.Join(b.dir, "program-"+arch)
		cmd := exec.CommandContext(t.Context(), "go", "build", "-ldflags=-s -w", "-o", b.programs[arch], source)
		cmd.Env = append(os.Environ(), "GOARCH="+arch, "GOOS=linux", "CGO_ENABLED=0")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	b.serveImages(k0sImage, kubeImage, shopImage,
		"docker.io/rancher/klipper-helm:v0.10.0-build20260513", "docker.io/rancher/klipper-lb:v0.4.17", "docker.io/rancher/local-path-provisioner:v0.0.36",
		"docker.io/rancher/mirrored-coredns-coredns:1.14.3", "docker.io/rancher/mirrored-library-busybox:1.37.0",
		"docker.io/rancher/mirrored-library-traefik:3.6.13", "docker.io/rancher/mirrored-metrics-server:v0.8.1", "docker.io/rancher/mirrored-pause:3.6")
	return b
}

// serveImages answers for registries with images for both platforms.
func (b *newBench) serveImages(names ...string) {
	b.t.Helper()
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	b.t.Cleanup(server.Close)
	host := strings.TrimPrefix(server.URL, "http://")
	var index v1.ImageIndex = empty.Index
	for _, arch := range []string{"amd64", "arm64"} {
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add: b.image(arch), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}},
		})
	}
	config := "registryMirrors:\n"
	seen := map[string]bool{}
	for _, image := range names {
		ref, err := name.ParseReference(host + "/" + image)
		require.NoError(b.t, err)
		require.NoError(b.t, remote.WriteIndex(ref, index))
		if domain, _, _ := strings.Cut(image, "/"); !seen[domain] {
			seen[domain] = true
			config += fmt.Sprintf("  %s: %s/%s\n", domain, server.URL, domain)
		}
	}
	file := filepath.Join(b.dir, "config.yaml")
	require.NoError(b.t, os.WriteFile(file, []byte(config), 0o600))
	b.env = append(os.Environ(), asSealer+"=1", "SEALER_ROOT="+filepath.Join(b.dir, "root"), "SEALER_CONFIG="+file, "HOME="+b.dir)
}

func (b *newBench) image(arch string) v1.Image {
	b.t.Helper()
	img, err := random.Image(64, 1)
	require.NoError(b.t, err)
	config, err := img.ConfigFile()
	require.NoError(b.t, err)
	config.OS, config.Architecture = "linux", arch
	img, err = mutate.ConfigFile(img, config)
	require.NoError(b.t, err)
	return img
}

func (b *newBench) run(args ...string) (stdout, stderr string, err error) {
	b.t.Helper()
	cmd := exec.CommandContext(b.t.Context(), os.Args[0], args...)
	cmd.Env, cmd.Dir = b.env, b.dir
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

func (b *newBench) must(args ...string) string {
	b.t.Helper()
	out, stderr, err := b.run(args...)
	require.NoError(b.t, err, "sealer %s\n%s%s", strings.Join(args, " "), out, stderr)
	return out
}

// write runs sealer new, and checks what it wrote.
func (b *newBench) write(args ...string) contexts.Result {
	b.t.Helper()
	var result contexts.Result
	require.NoError(b.t, json.Unmarshal([]byte(b.must(append([]string{"new", "-o", "json"}, args...)...)), &result))
	for _, file := range result.Files {
		require.FileExists(b.t, filepath.Join(b.dir, result.Dir, file))
	}
	lint := []string{"lint", "--strict", result.Dir}
	if len(result.Platforms) > 0 {
		lint = append(lint, "--platform", strings.Join(result.Platforms, ","))
	}
	require.Empty(b.t, b.must(lint...))
	b.must("fmt", "--check", result.Dir)
	return result
}

// build runs the command that sealer new names.
func (b *newBench) build(result contexts.Result) (inspected string) {
	b.t.Helper()
	args := strings.Fields(result.Build)
	require.Equal(b.t, "sealer", args[0])
	b.must(args[1:]...)
	return b.must("inspect", "-o", "json", args[3])
}

// folder makes one with stand-ins under other names, ARCH for amd64 and arm64.
func (b *newBench) folder(files ...string) string {
	b.t.Helper()
	dir := b.t.TempDir()
	for _, file := range files {
		for arch, program := range b.programs {
			target := filepath.Join(dir, strings.ReplaceAll(file, "ARCH", arch))
			require.NoError(b.t, os.MkdirAll(filepath.Dir(target), 0o755))
			if _, err := os.Stat(target); err == nil {
				continue
			}
			data, err := os.ReadFile(program)
			require.NoError(b.t, err)
			require.NoError(b.t, os.WriteFile(target, data, 0o755))
		}
	}
	return dir
}

const bothPlatforms = "linux/amd64,linux/arm64"

func kubernetesPrograms() []string {
	var files []string
	for _, program := range []string{"kubeadm", "kubelet", "kubectl", "containerd", "containerd-shim-runc-v2", "ctr", "runc", "crictl"} {
		files = append(files, "ARCH/bin/"+program)
	}
	return append(files, "ARCH/cni/loopback", "ARCH/cni/bridge")
}

func TestNew_From(t *testing.T) {
	b := newNewBench(t)
	t.Run("k3s", func(t *testing.T) {
		result := b.write("--runtime", "k3s", "--platform", bothPlatforms, "--from", b.folder("ARCH/k3s"), "k3s")
		require.Equal(t, k3sVersion, result.Version)
		require.Equal(t, "known to this sealer", result.Images)
		got := b.build(result)
		require.Contains(t, got, k3sVersion)
		require.Contains(t, got, "docker.io/rancher/mirrored-pause:3.6")
	})
	t.Run("k3s with its archives", func(t *testing.T) {
		from := b.folder("ARCH/k3s")
		for _, arch := range []string{"amd64", "arm64"} {
			tag, err := name.NewTag("docker.io/rancher/only-in-the-archive:v1")
			require.NoError(t, err)
			require.NoError(t, tarball.WriteToFile(filepath.Join(from, "k3s-airgap-images-"+arch+".tar"), tag, b.image(arch)))
		}
		result := b.write("--runtime", "k3s", "--platform", bothPlatforms, "--from", from, "k3s-archives")
		require.Subset(t, result.Files, []string{"images/k3s-airgap-images-amd64.tar", "arm64/imageList"})
		require.Equal(t, 2, strings.Count(b.build(result), `"docker.io/rancher/only-in-the-archive:v1"`))
	})
	t.Run("k0s", func(t *testing.T) {
		result := b.write("--runtime", "k0s", "--platform", bothPlatforms, "--from", b.folder("k0s-v1.36.3+k0s.2-ARCH"), "k0s")
		require.Equal(t, k0sVersion, result.Version)
		require.Equal(t, "k0s airgap list-images --all", result.Images)
		require.Contains(t, b.build(result), k0sImage)
	})
	t.Run("kubernetes", func(t *testing.T) {
		from := b.folder(kubernetesPrograms()...)
		for _, arch := range []string{"amd64", "arm64"} { // one program with several names
			require.NoError(t, os.Remove(filepath.Join(from, arch, "bin", "ctr")))
			require.NoError(t, os.Symlink("containerd", filepath.Join(from, arch, "bin", "ctr")))
		}
		result := b.write("--runtime", "kubernetes", "--platform", bothPlatforms, "--from", from, "kube")
		require.Equal(t, kubeVersion, result.Version)
		link, err := os.Readlink(filepath.Join(b.dir, "kube", "arm64", "bin", "ctr"))
		require.NoError(t, err)
		require.Equal(t, "containerd", link)
		require.Contains(t, b.build(result), kubeImage)
	})
	t.Run("an application", func(t *testing.T) {
		require.Contains(t, b.build(b.write("--app", "shop")), shopImage)
	})
}

func TestNew_Mistakes(t *testing.T) {
	b := newNewBench(t)
	one := b.folder("ARCH/k3s")
	other := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(other, "k3s"), []byte("#!/bin/sh\n"), 0o755))
	swapped := t.TempDir()
	require.NoError(t, os.Link(b.programs["arm64"], filepath.Join(swapped, "k3s")))
	sums := filepath.Join(b.dir, "sums")
	require.NoError(t, os.WriteFile(sums, []byte(strings.Repeat("0", 64)+"  other\nshort  k3s\n"), 0o600))
	kube := b.folder(kubernetesPrograms()[2:9]...)
	for want, args := range map[string][]string{
		`--runtime "k4s" is none of k0s, k3s, kubernetes`:                          {"--runtime", "k4s", "x"},
		`k0s v1.30.1+k0s.0 cannot be installed: this sealer installs 1.31 to 1.36`: {"--runtime", "k0s", "--version", "v1.30.1+k0s.0", "x"},
		`"1.36.1" is no version of k3s`:                                            {"--runtime", "k3s", "--version", "1.36.1", "x"},
		"a version of k0s is needed":                                               {"--runtime", "k0s", "x"},
		`k3s" is v1.36.1+k3s1, not v1.36.2+k3s1`:                                   {"--runtime", "k3s", "--platform", "linux/amd64", "--version", "v1.36.2+k3s1", "--from", one, "x"},
		`k3s" is no ELF program`:                                                   {"--runtime", "k3s", "--platform", "linux/amd64", "--from", other, "x"},
		`k3s" is a program for arm64, not for amd64`:                               {"--runtime", "k3s", "--platform", "linux/amd64", "--from", swapped, "x"},
		"has no k0s for amd64, no k0s for arm64":                                   {"--runtime", "k0s", "--platform", bothPlatforms, "--from", one, "x"},
		"has no kubeadm for amd64, no kubelet for amd64":                           {"--runtime", "kubernetes", "--platform", "linux/amd64", "--from", kube, "x"},
		"sums:2: no checksum as sha256sum writes them":                             {"--runtime", "k3s", "--version", k3sVersion, "--checksums", sums, "x"},
		`platform "linux/mips64le": a cluster's hosts are linux on `:               {"--runtime", "k3s", "--platform", "linux/mips64le", "--from", one, "x"},
		"if any flags in the group [app runtime] are set":                          {"--app", "--runtime", "k3s", "x"},
		`--component "runc" is not NAME=VERSION`:                                   {"--runtime", "kubernetes", "--component", "runc", "x"},
		"component \"docker\" is none of cni, containerd, crictl":                  {"--runtime", "kubernetes", "--version", kubeVersion, "--component", "docker=1", "x"},
	} {
		_, stderr, err := b.run(append([]string{"new"}, args...)...)
		require.Error(t, err, want)
		require.Contains(t, stderr, want)
		require.NoDirExists(t, filepath.Join(b.dir, "x"), "nothing is written")
	}

	// What is there stays, and nothing is put beside it.
	require.NoError(t, os.MkdirAll(filepath.Join(b.dir, "x", "scripts"), 0o755))
	for _, mine := range []string{"Kubefile", "scripts/lib.sh"} {
		require.NoError(t, os.WriteFile(filepath.Join(b.dir, "x", mine), []byte("mine"), 0o600))
	}
	_, stderr, err := b.run("new", "--runtime", "k3s", "--platform", "linux/amd64", "--from", one, "x")
	require.Error(t, err)
	require.Contains(t, stderr, "there already: x/Kubefile, x/scripts/lib.sh")
	entries, err := os.ReadDir(filepath.Join(b.dir, "x"))
	require.NoError(t, err)
	require.Len(t, entries, 2)
}
