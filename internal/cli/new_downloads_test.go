// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cli_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/contexts"
)

// releases serves files by their URL without the scheme, below /.
type releases struct {
	files map[string][]byte
	// off drops connections, as where nothing can be reached.
	off bool
}

func (r *releases) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	data, ok := r.files[strings.TrimPrefix(req.URL.Path, "/")]
	switch {
	case r.off:
		panic(http.ErrAbortHandler)
	case !ok:
		http.NotFound(w, req)
	default:
		_, _ = w.Write(data)
	}
}

// put serves a file; its checksum goes to the file sums as a line, or alone where listed is "".
func (r *releases) put(url string, data []byte, sums, listed string) {
	r.files[url] = data
	line := fmt.Sprintf("%x", sha256.Sum256(data))
	if listed != "" {
		line += " *" + listed
	}
	r.files[sums] = append(r.files[sums], line+"\n"...)
}

func pack(t *testing.T, files map[string][]byte) []byte {
	t.Helper()
	var out bytes.Buffer
	zipped := gzip.NewWriter(&out)
	w := tar.NewWriter(zipped)
	for file, data := range files {
		require.NoError(t, w.WriteHeader(&tar.Header{Name: file, Mode: 0o755, Size: int64(len(data))}))
		_, err := w.Write(data)
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	require.NoError(t, zipped.Close())
	return out.Bytes()
}

// fill puts in what releases of all distributions have.
func (r *releases) fill(b *newBench) {
	for arch, file := range b.programs {
		program, err := os.ReadFile(file)
		require.NoError(b.t, err)
		k3s := "github.com/k3s-io/k3s/releases/download/" + k3sVersion + "/"
		asset := map[string]string{"amd64": "k3s", "arm64": "k3s-arm64"}[arch]
		r.put(k3s+asset, program, k3s+"sha256sum-"+arch+".txt", asset)
		if script := "raw.githubusercontent.com/k3s-io/k3s/" + k3sVersion + "/install.sh"; r.files[script] == nil {
			r.put(script, []byte("#!/bin/sh\n"), script+".sha256sum", "install.sh")
		}
		r.files[k3s+"k3s-images.txt"] = []byte("docker.io/rancher/mirrored-pause:3.6\n")
		k0s := "github.com/k0sproject/k0s/releases/download/" + k0sVersion + "/"
		r.put(k0s+"k0s-"+k0sVersion+"-"+arch, program, k0s+"sha256sums.txt", "k0s-"+k0sVersion+"-"+arch)
		for _, name := range []string{"kubeadm", "kubelet", "kubectl"} {
			url := "dl.k8s.io/release/" + kubeVersion + "/bin/linux/" + arch + "/" + name
			r.put(url, program, url+".sha256", "")
		}
		packed := func(url, sums string, files map[string][]byte) {
			r.put(url, pack(b.t, files), url+sums, path.Base(url))
		}
		packed("github.com/containerd/containerd/releases/download/v2.3.6/containerd-2.3.6-linux-"+arch+".tar.gz", ".sha256sum",
			map[string][]byte{"bin/containerd": program, "bin/ctr": program, "bin/containerd-shim-runc-v2": program})
		runc := "github.com/opencontainers/runc/releases/download/v1.5.2/runc."
		r.put(runc+arch, program, runc+"sha256sum", "runc."+arch)
		packed("github.com/kubernetes-sigs/cri-tools/releases/download/v1.36.0/crictl-v1.36.0-linux-"+arch+".tar.gz", ".sha256", map[string][]byte{"crictl": program})
		packed("github.com/containernetworking/plugins/releases/download/v1.9.1/cni-plugins-linux-"+arch+"-v1.9.1.tgz", ".sha256", map[string][]byte{"./loopback": program})
	}
}

func TestNew_Downloads(t *testing.T) {
	b := newNewBench(t)
	r := &releases{files: map[string][]byte{}}
	r.fill(b)
	server := httptest.NewUnstartedServer(r)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.Start()
	t.Cleanup(server.Close)
	for runtime, version := range map[string]string{"k3s": k3sVersion, "k0s": k0sVersion, "kubernetes": kubeVersion} {
		args := []string{"--runtime", runtime, "--version", version, "--platform", bothPlatforms, "--mirror", server.URL}
		image := map[string]string{"k3s": "docker.io/rancher/mirrored-pause:3.6", "k0s": k0sImage, "kubernetes": kubeImage}[runtime]
		t.Run(runtime+" pinned", func(t *testing.T) {
			result := b.write(append(args, runtime)...)
			require.NotEmpty(t, result.Downloads)
			for _, d := range result.Downloads {
				require.Regexp(t, "^sha256:[0-9a-f]{64}$", d.Checksum)
			}
			require.Contains(t, b.build(result), image)
			files := b.files(result, runtime)
			if runtime == "k3s" {
				require.Contains(t, files, "scripts/k3s-install.sh")
				require.Contains(t, files, "scripts/init-k3s.sh")
			}
			require.Contains(t, files, "bin/"+map[string]string{"k3s": "k3s", "k0s": "k0s", "kubernetes": "containerd-shim-runc-v2"}[runtime])
		})
		t.Run(runtime+" compared while it is built", func(t *testing.T) {
			r.off = true
			result := b.write(append(args, runtime+"-later")...)
			r.off = false
			require.NotEmpty(t, result.Notes)
			for _, d := range result.Downloads {
				require.Empty(t, d.Checksum)
				require.NotEmpty(t, d.ChecksumURL)
			}
			require.Contains(t, b.build(result), image)
			require.NotContains(t, b.files(result, runtime+"-2"), "download")
		})
	}

	t.Run("a file that is not what the release says", func(t *testing.T) {
		r.off = true
		result := b.write("--runtime", "k0s", "--version", k0sVersion, "--platform", "linux/amd64", "--mirror", server.URL, "wrong")
		r.off = false
		url := strings.TrimPrefix(strings.ReplaceAll(result.Downloads[0].URL, "%2B", "+"), server.URL+"/")
		kept := r.files[url]
		r.files[url] = append(bytes.Clone(kept), 'x')
		t.Cleanup(func() { r.files[url] = kept })
		_, stderr, err := b.run("build", "-t", "wrong:v1", "--no-cache", "wrong")
		require.Error(t, err)
		require.Contains(t, stderr, "download: FAILED")
	})
	t.Run("checksums of one's own", func(t *testing.T) {
		sums := filepath.Join(b.dir, "sums")
		require.NoError(t, os.WriteFile(sums, r.files["github.com/k0sproject/k0s/releases/download/"+k0sVersion+"/sha256sums.txt"], 0o600))
		r.off = true // nobody is asked
		result := b.write("--runtime", "k0s", "--version", k0sVersion, "--mirror", server.URL, "--checksums", sums, "own")
		r.off = false
		require.Contains(t, b.build(result), k0sImage)
	})
	t.Run("without the install script", func(t *testing.T) {
		sums := filepath.Join(b.dir, "k3s-sums")
		require.NoError(t, os.WriteFile(sums, r.files["github.com/k3s-io/k3s/releases/download/"+k3sVersion+"/sha256sum-amd64.txt"], 0o600))
		args := []string{"--runtime", "k3s", "--version", k3sVersion, "--platform", "linux/amd64", "--mirror", server.URL}
		for name, more := range map[string][]string{"own": {"--checksums", sums}, "mirror": nil} {
			if name == "mirror" { // it has the release alone
				delete(r.files, "raw.githubusercontent.com/k3s-io/k3s/"+k3sVersion+"/install.sh.sha256sum")
			}
			result := b.write(append(append(slices.Clone(args), more...), "k3s-"+name)...)
			require.Len(t, result.Notes, 1)
			require.Contains(t, result.Notes[0], "k3s-install.sh is left out, and sealer does without: ")
			for _, d := range result.Downloads {
				require.NotContains(t, d.URL, "install.sh")
				require.NotEmpty(t, d.Checksum)
			}
		}
	})
	t.Run("a version that was not released", func(t *testing.T) {
		_, stderr, err := b.run("new", "--runtime", "k3s", "--version", "v1.36.9+k3s1", "--mirror", server.URL, "none")
		require.Error(t, err)
		require.Contains(t, stderr, "404 Not Found")
		require.Contains(t, stderr, "is this a version that was released")
		require.NoDirExists(t, filepath.Join(b.dir, "none"))
	})
}

// files are those of the rootfs, for one platform.
func (b *newBench) files(result contexts.Result, name string) []string {
	b.t.Helper()
	out := filepath.Join(b.dir, name+".tar")
	b.must("build", "-t", name+":files", "--platform", result.Platforms[0], "-o", "type=tar,dest="+out, result.Dir)
	f, err := os.Open(out)
	require.NoError(b.t, err)
	defer func() { require.NoError(b.t, f.Close()) }()
	var names []string
	for r := tar.NewReader(f); ; {
		header, err := r.Next()
		if err == io.EOF {
			return names
		}
		require.NoError(b.t, err)
		names = append(names, strings.TrimPrefix(header.Name, "./"))
		if strings.HasPrefix(strings.TrimPrefix(header.Name, "./"), "bin/") && header.Typeflag == tar.TypeReg {
			require.EqualValues(b.t, 0o755, header.Mode&0o777, header.Name)
		}
	}
}
