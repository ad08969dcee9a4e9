// SPDX-License-Identifier: Apache-2.0

package node_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/internal/node"
	"github.com/sealerio/sealer/store"
)

// engine is a real docker daemon, whose /etc/docker and /etc/hosts are the test's.
type engine struct {
	t                  *testing.T
	socket, etc, hosts string
	client             *http.Client
}

func startDocker(t *testing.T) *engine {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a docker daemon needs root")
	}
	dir, err := os.MkdirTemp("/run", "sealer-docker-") //nolint:usetesting // the paths of sockets may not be long
	require.NoError(t, err)
	e := &engine{t: t, socket: filepath.Join(dir, "docker.sock"), etc: filepath.Join(dir, "etc")}
	require.NoError(t, os.Mkdir(e.etc, 0o755))
	e.hosts = filepath.Join(dir, "hosts")
	require.NoError(t, os.WriteFile(e.hosts, []byte("127.0.0.1 localhost\n"), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "resolv.conf"), []byte("nameserver 127.0.0.1\n"), 0o644)) // where nobody answers
	require.NoError(t, os.WriteFile(filepath.Join(dir, "daemon.json"), []byte("{}\n"), 0o600))
	log, err := os.Create(filepath.Join(dir, "log"))
	require.NoError(t, err)
	cmd := exec.Command("unshare", "--mount", "sh", "-euc", `mkdir -p /etc/docker
mount --bind "$1/etc" /etc/docker
for f in hosts resolv.conf; do mount --bind "$1/$f" "$(readlink -f "/etc/$f")"; done
shift
exec dockerd "$@"`, "sh", dir,
		"--data-root", filepath.Join(dir, "data"), "--exec-root", filepath.Join(dir, "exec"), "--pidfile", filepath.Join(dir, "pid"),
		"--config-file", filepath.Join(dir, "daemon.json"), "--host", "unix://"+e.socket, "--storage-driver", "vfs",
		"--bridge", "none", "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false")
	cmd.Stdout, cmd.Stderr = log, log
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
		_ = cmd.Wait() // how it ends is its own affair
		require.NoError(t, log.Close())
		require.NoError(t, os.RemoveAll(dir))
	})
	e.client = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", e.socket)
	}}}
	t.Cleanup(e.client.CloseIdleConnections)
	require.Eventually(t, func() bool {
		resp, err := e.client.Get("http://docker/_ping")
		return err == nil && resp.Body.Close() == nil && resp.StatusCode == http.StatusOK
	}, 2*time.Minute, 100*time.Millisecond, "%s", func() string { text, _ := os.ReadFile(log.Name()); return string(text) })
	return e
}

// tags are all names that docker has, each with what it stands for.
func (e *engine) tags() map[string]string {
	e.t.Helper()
	resp, err := e.client.Get("http://docker/images/json?all=1")
	require.NoError(e.t, err)
	defer func() { require.NoError(e.t, resp.Body.Close()) }()
	var list []struct {
		ID                    string
		RepoTags, RepoDigests []string
	}
	require.NoError(e.t, json.NewDecoder(resp.Body).Decode(&list))
	all := map[string]string{}
	for _, image := range list {
		all[image.ID] = ""
		for _, name := range append(image.RepoTags, image.RepoDigests...) {
			all[name] = image.ID
		}
	}
	return all
}

func (e *engine) post(path string, body io.Reader) {
	e.t.Helper()
	resp, err := e.client.Post("http://docker"+path, "application/x-tar", body)
	require.NoError(e.t, err)
	text := must(io.ReadAll(resp.Body))
	require.NoError(e.t, resp.Body.Close())
	require.Less(e.t, resp.StatusCode, 300, "%s", text)
}

// packed writes an image that docker of all ages can pull.
func packed(t *testing.T, st *store.Store, text string) (manifest ocispec.Descriptor, id digest.Digest) {
	t.Helper()
	var layer bytes.Buffer
	diff := digest.Canonical.Digester()
	z := gzip.NewWriter(&layer)
	w := tar.NewWriter(io.MultiWriter(z, diff.Hash()))
	require.NoError(t, w.WriteHeader(&tar.Header{Name: "file", Mode: 0o644, Size: int64(len(text))}))
	_, err := io.WriteString(w, text)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	require.NoError(t, z.Close())
	config := ocispec.Image{Platform: platforms.DefaultSpec(), RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{diff.Digest()}}}
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: put(t, st, ocispec.MediaTypeImageConfig, must(json.Marshal(config))),
		Layers: []ocispec.Descriptor{put(t, st, ocispec.MediaTypeImageLayerGzip, layer.Bytes())},
	}
	return put(t, st, m.MediaType, must(json.Marshal(m))), m.Config.Digest
}

// The host's own docker gets the packed images under their names from the registry, which wants TLS and a login, and is left as it was.
func TestDocker(t *testing.T) {
	e := startDocker(t)
	m := newMachine(t)
	useFakeSystemd(t, m)
	st := must(store.Open(filepath.Join(t.TempDir(), "operator")))
	platform := platforms.Format(platforms.DefaultSpec())
	names := []string{"docker.io/library/nginx:1.27", "registry.k8s.io/pause:3.10", "docker.io/team/shop:v1"}
	var composed clusterimage.Composition
	composed.Rootfs = []ocispec.Descriptor{putImage(t, st, map[string]string{"a": "b"})}
	access := node.DockerAccess{}
	for _, name := range names {
		manifest, id := packed(t, st, name)
		composed.Images = append(composed.Images, clusterimage.PackedImage{Name: name, Platform: platform, Manifest: manifest, Size: manifest.Size})
		repository, _, _ := bytes.Cut([]byte(name), []byte(":"))
		access.Images = append(access.Images, node.DockerImage{Name: name, Repository: string(repository), Manifest: manifest.Digest, ID: id})
	}
	desc, err := clusterimage.Compose(t.Context(), st.Content(), composed)
	require.NoError(t, err)
	for i := range access.Images {
		access.Images[i].For = []digest.Digest{desc.Digest}
	}
	m.load(st, desc, must(must(clusterimage.Read(t.Context(), st.Content(), desc)).Descriptors(t.Context(), st.Content(), nil)))
	port := strconv.Itoa(freePort(t))
	login := m.initRegistry("--address", "127.0.0.1", "--port", port)
	m.run(nil, "registry", "publish", "--image", desc.Digest.String())
	m.run(nil, "registry", "install", "--timeout", "5m")
	access.Registry, access.CA, access.Username, access.Password = "127.0.0.1:"+port, login.CA, login.Username, login.Password

	// What the host's people have: an image of their own, which is called nginx:1.27, and one that is also packed.
	var root bytes.Buffer
	w := tar.NewWriter(&root)
	require.NoError(t, w.WriteHeader(&tar.Header{Name: "own", Mode: 0o644}))
	require.NoError(t, w.Close())
	e.post("/images/create?fromSrc=-&repo=nginx&tag=1.27", bytes.NewReader(root.Bytes()))
	before := e.tags()

	docker := func(in any, args ...string) string {
		t.Helper()
		return m.run(toJSON(in), append([]string{"--docker-socket", e.socket, "--docker-certs", e.etc + "/certs.d", "docker"}, args...)...)
	}
	lack := func(a node.DockerAccess) (l node.DockerLack) {
		t.Helper()
		require.NoError(t, json.Unmarshal([]byte(docker(a, "lacks")), &l))
		return l
	}
	require.Equal(t, node.DockerLack{Images: names, CA: true}, lack(access))
	wrong := access
	wrong.Password = "of nobody"
	r := m.try(toJSON(wrong), "--docker-socket", e.socket, "--docker-certs", e.etc+"/certs.d", "docker", "bring")
	require.Equal(t, 1, r.code)
	require.Contains(t, r.err, "bringing docker.io/library/nginx:1.27 to docker: docker: ")
	require.NotContains(t, r.err, "of nobody")
	require.Equal(t, before, e.tags())

	// The registry's name is written where docker looks for it, just after it has looked.
	named := access
	named.Registry, named.Images = "sea.hub:"+port, access.Images[1:2]
	r = m.try(toJSON(named), "--docker-socket", e.socket, "--docker-certs", e.etc+"/certs.d", "docker", "bring")
	require.Equal(t, 1, r.code)
	require.Contains(t, r.err, "bringing registry.k8s.io/pause:3.10 to docker: docker: ")
	require.Contains(t, r.err, "lookup sea.hub")
	require.NoError(t, os.WriteFile(e.hosts, []byte("127.0.0.1 localhost sea.hub\n"), 0o644))
	docker(named, "bring")

	docker(access, "bring")
	after := e.tags()
	for i, name := range []string{"nginx:1.27", "registry.k8s.io/pause:3.10", "team/shop:v1"} {
		require.Equal(t, access.Images[i].ID.String(), after[name])
	}
	for name := range after {
		require.NotContains(t, name, "127.0.0.1", "the registry's own names are gone")
	}
	require.Equal(t, node.DockerLack{Images: []string{}}, lack(access))
	require.NotContains(t, string(must(os.ReadFile(filepath.Join(m.root, "docker.json")))), access.Password)
	var list []node.DockerImage
	require.NoError(t, json.Unmarshal([]byte(docker(nil, "list")), &list))
	require.Len(t, list, 3)

	// What somebody removes comes back, and another ClusterImage with one of the images keeps that when the first goes.
	req := must(http.NewRequestWithContext(t.Context(), http.MethodDelete, "http://docker/images/registry.k8s.io/pause:3.10", http.NoBody))
	resp, err := e.client.Do(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, []string{"registry.k8s.io/pause:3.10"}, lack(access).Images)
	require.JSONEq(t, `["registry.k8s.io/pause:3.10"]`, docker(nil, "lost"))
	docker(access, "bring")
	other := access
	other.Images = []node.DockerImage{access.Images[2]}
	other.Images[0].For = []digest.Digest{digest.FromString("another")}
	docker(other, "bring")
	docker(nil, "drop", "--image", desc.Digest.String())
	require.Equal(t, names[:2], lack(access).Images)
	require.Equal(t, before["nginx:1.27"], e.tags()["nginx:1.27"], "the name is theirs again")

	// Who was killed in the middle has left the name that an image was pulled by: the next one takes it away, as does whoever cleans.
	cut := func() {
		t.Helper()
		e.post("/images/team/shop:v1/tag?repo="+access.Registry+"/team/shop&tag=cut", nil)
		file := filepath.Join(m.root, "docker.json")
		var notes map[string]any
		require.NoError(t, json.Unmarshal(must(os.ReadFile(file)), &notes))
		notes["images"].(map[string]any)[names[2]].(map[string]any)["pulled"] = access.Registry + "/team/shop:cut"
		require.NoError(t, os.WriteFile(file, must(json.Marshal(notes)), 0o600))
	}
	docker(access, "bring")
	cut()
	docker(access, "bring")
	require.NotContains(t, e.tags(), access.Registry+"/team/shop:cut")
	cut()
	docker(nil, "list")
	m.run(nil, "--docker-socket", e.socket, "--docker-certs", e.etc+"/certs.d", "clean")
	require.Equal(t, before, e.tags())
	require.NoDirExists(t, e.etc+"/certs.d")

	pinned := access
	pinned.Images = []node.DockerImage{{Name: "docker.io/library/nginx@" + access.Images[0].Manifest.String(), ID: access.Images[0].ID, Manifest: access.Images[0].Manifest}}
	require.Contains(t, m.try(toJSON(pinned), "--docker-socket", e.socket, "docker", "bring").err, "docker takes names with a tag, and no digest")
	require.Contains(t, m.try(toJSON(access), "--docker-socket", "/nowhere.sock", "docker", "lacks").err, "asking docker at /nowhere.sock: ")
}
