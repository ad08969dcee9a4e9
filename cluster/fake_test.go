// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/cluster"
	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/host/hosttest"
	"github.com/sealerio/sealer/internal/blobstream"
	"github.com/sealerio/sealer/internal/goldenfile"
	"github.com/sealerio/sealer/internal/peers"
	"github.com/sealerio/sealer/runtime"
	"github.com/sealerio/sealer/store"
)

func golden(t *testing.T, path, got string) {
	t.Helper()
	goldenfile.Equal(t, path, got)
}

// distribution plans steps that run "dist VERB", and asks "kubectl".
type distribution struct{}

func (distribution) Name() string                             { return "fake" }
func (distribution) Marks() runtime.Marks                     { return runtime.Marks{Name: "fake", Title: "fake"} }
func (distribution) Check(*runtime.Cluster) []runtime.Problem { return nil }
func (distribution) Kubectl() runtime.Kubectl {
	return runtime.Kubectl{Argv: []string{"kubectl"}, Kubeconfig: "/admin.conf"}
}
func (distribution) Certificates(ctx context.Context, _ *runtime.Cluster, h *runtime.Host) ([]runtime.Certificate, error) {
	out, err := host.Output(ctx, h.Runner, host.Command{Argv: []string{"dist", "certificates"}})
	c := runtime.Certificate{Name: strings.TrimSpace(string(out)), NotAfter: time.Date(2126, 1, 1, 0, 0, 0, 0, time.UTC)}
	switch c.Name {
	case "ending.crt":
		c.NotAfter = time.Now().Add(3 * 24 * time.Hour)
	case "ended.crt":
		c.NotAfter = time.Unix(0, 0)
	}
	return []runtime.Certificate{c}, err
}
func (distribution) Renew(_ *runtime.Cluster, h *runtime.Host) []runtime.Step {
	s := verb(h, "renew")
	s[0].Key = ""
	return s
}
func (distribution) ServiceIPs(*runtime.Cluster) (api, dns string) { return "10.96.0.1", "10.96.0.10" }
func (distribution) ServerNames(c *runtime.Cluster, h *runtime.Host) []runtime.Step {
	if h.Spec.Role != clusterfile.ControlPlane {
		return nil
	}
	return verb(h, "names "+strings.Join(c.AltNames, ","))
}
func verb(h *runtime.Host, name string) []runtime.Step {
	return []runtime.Step{{Name: name, Key: name, Do: func(ctx context.Context, log io.Writer) error {
		return h.Runner.Run(ctx, host.Command{Argv: []string{"dist", name}, Stdout: log, Stderr: log, Mutates: true})
	}}}
}
func (distribution) Install(_ *runtime.Cluster, h *runtime.Host) []runtime.Step {
	return verb(h, "install")
}
func (distribution) Init(_ *runtime.Cluster, h *runtime.Host) []runtime.Step { return verb(h, "init") }
func (distribution) Prefetch(_ *runtime.Cluster, h *runtime.Host) []runtime.Step {
	return verb(h, "prefetch")
}
func (distribution) Join(_ *runtime.Cluster, h *runtime.Host) []runtime.Step { return verb(h, "join") }
func (distribution) Minors() runtime.Minors                                  { return runtime.Minors{Newest: 99} }
func (distribution) Service(h *runtime.Host) runtime.Service {
	return runtime.Service{Host: h, Name: "fake-node"}
}
func (distribution) KubeletVersion(c *runtime.Cluster) string { return c.KubeVersion() }
func (distribution) Upgrade(_ *runtime.Cluster, h *runtime.Host) (running, drained []runtime.Step) {
	return verb(h, "upgrade-running"), verb(h, "upgrade-drained")
}
func (distribution) Snapshot(_ *runtime.Cluster, h *runtime.Host, file string) []runtime.Step {
	return verb(h, "snapshot "+file)
}
func (distribution) Restore(_ *runtime.Cluster, h *runtime.Host, file string) []runtime.Step {
	return verb(h, "restore "+file)
}
func (distribution) Reset(_ *runtime.Cluster, h *runtime.Host) []runtime.Step {
	s := verb(h, "reset")
	s[0].Key = ""
	return s
}

func (distribution) Leave(c *runtime.Cluster, h *runtime.Host) []runtime.Step {
	return onServer(c, "leave "+h.Facts.NodeName())
}
func (distribution) Forget(c *runtime.Cluster, h *runtime.Host) []runtime.Step {
	return onServer(c, "forget "+h.Facts.NodeName())
}
func onServer(c *runtime.Cluster, name string) []runtime.Step {
	return []runtime.Step{{Name: name, Do: func(ctx context.Context, log io.Writer) error {
		return c.Server().Runner.Run(ctx, host.Command{Argv: append([]string{"dist"}, strings.Fields(name)...), Stdout: log, Stderr: log, Mutates: true})
	}}}
}
func (distribution) Images(*runtime.Cluster) []string { return []string{"kube-apiserver"} }
func (distribution) Health(_ *runtime.Cluster, h *runtime.Host) []runtime.Probe {
	return []runtime.Probe{{Name: runtime.ProbeDatastore, Ask: func(ctx context.Context) error {
		return h.Runner.Run(ctx, host.Command{Argv: []string{"dist", "healthy"}})
	}}}
}

func put(t *testing.T, cs content.Store, mediaType string, data []byte) ocispec.Descriptor {
	t.Helper()
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	require.NoError(t, content.WriteBlob(t.Context(), cs, d.Digest.String(), bytes.NewReader(data), d))
	return d
}

func putJSON(t *testing.T, cs content.Store, mediaType string, v any) ocispec.Descriptor {
	t.Helper()
	data, err := json.Marshal(v)
	require.NoError(t, err)
	return put(t, cs, mediaType, data)
}

func putImage(t *testing.T, cs content.Store, config ocispec.Image, layer string) ocispec.Descriptor {
	t.Helper()
	return putJSON(t, cs, ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: putJSON(t, cs, ocispec.MediaTypeImageConfig, config),
		Layers: []ocispec.Descriptor{put(t, cs, ocispec.MediaTypeImageLayerZstd, []byte(layer))},
	})
}

// bed is an image, its store and some hosts.
type bed struct {
	opts  cluster.RunOptions
	hosts map[string]*fakeHost
	api   *fakeAPI
	out   bytes.Buffer
}

func newBed(t *testing.T, clusterfileText string) *bed {
	t.Helper()
	return newBedOf(t, clusterfileText, clusterimage.Extension{
		Launch: clusterimage.Launch{Cmds: []string{"kubectl apply -f manifests", "echo done"}},
	}, nil)
}

// newBedOf is a bed whose image has this extension, and these labels beside it.
func newBedOf(t *testing.T, clusterfileText string, ext clusterimage.Extension, labels map[string]string) *bed {
	t.Helper()
	return newBedWith(t, clusterfileText, ext, labels, "rootfs")
}

// newBedWith is one whose rootfs has this layer, and which packs more images.
func newBedWith(t *testing.T, clusterfileText string, ext clusterimage.Extension, labels map[string]string, layer string, more ...string) *bed {
	t.Helper()
	st, err := store.Open(filepath.Join(t.TempDir(), "store"))
	require.NoError(t, err)
	cs := st.Content()
	amd64 := ocispec.Platform{OS: "linux", Architecture: "amd64"}
	config := ocispec.Image{Platform: amd64}
	config.Config.Env = []string{"PATH=/bin", "GREETING=hello"}
	ext.Type = clusterimage.KubeInstaller
	config.Config.Labels = map[string]string{clusterimage.LabelClusterRuntime: "fake", clusterimage.LabelExtension: string(ext.Marshal())}
	maps.Copy(config.Config.Labels, labels)
	rootfs := putImage(t, cs, config, layer)
	rootfs.Platform = &amd64
	var packed []clusterimage.PackedImage
	for _, name := range append([]string{"registry.k8s.io/kube-apiserver:v1.36.3", "registry.k8s.io/pause:3.10.2", "docker.io/library/nginx:1.27"}, more...) {
		packed = append(packed, clusterimage.PackedImage{
			Name: name, Platform: "linux/amd64", Manifest: putImage(t, cs, ocispec.Image{Platform: amd64}, "layer of "+name), Size: 1000,
		})
	}
	desc, err := clusterimage.Compose(t.Context(), cs, clusterimage.Composition{Rootfs: []ocispec.Descriptor{rootfs}, Images: packed})
	require.NoError(t, err)
	img, err := clusterimage.Read(t.Context(), cs, desc)
	require.NoError(t, err)

	f, err := clusterfile.Parse("Clusterfile", []byte("apiVersion: sealer.io/v2\nkind: Cluster\nmetadata: {name: prod}\n"+clusterfileText))
	require.NoError(t, err)
	binary := filepath.Join(t.TempDir(), "sealer-node")
	require.NoError(t, os.WriteFile(binary, []byte("the node program"), 0o755))

	b := &bed{hosts: map[string]*fakeHost{}, api: newFakeAPI()}
	for i, m := range f.Machines() {
		b.hosts[m.String()] = newFakeHost(m, fmt.Sprintf("h%d", i+1))
		b.api.answer(b.hosts[m.String()])
	}
	b.opts = cluster.RunOptions{
		Image: img, ImageName: "registry.example.com/app:v1", Content: cs, Clusterfile: f,
		Operator: cluster.Operator{
			Dial: func(_ context.Context, h clusterfile.Host) (host.Runner, error) {
				fake := b.hosts[h.String()]
				if fake.unreachable != nil {
					return nil, fake.unreachable
				}
				return fake, nil
			},
			NodeBinary:    func(string) (string, error) { return binary, nil },
			Distributions: runtime.Distributions{"fake": distribution{}},
			StateDir:      filepath.Join(t.TempDir(), "clusters"),
			LogFile:       "/var/log/run.log",
			Out:           &b.out,
		},
		ReadyTimeout: time.Minute,
		PollInterval: time.Millisecond,
	}
	return b
}

func (b *bed) run(t *testing.T) error {
	t.Helper()
	b.out.Reset()
	return cluster.Run(t.Context(), b.opts)
}

func (b *bed) deleteOptions() cluster.DeleteOptions {
	return cluster.DeleteOptions{
		Operator: b.opts.Operator, Clusterfile: b.opts.Clusterfile,
	}
}

// fakeHost is a host with a sealer-node that keeps blobs, and a cluster whose nodes are Ready.
type fakeHost struct {
	*hosttest.Runner
	unreachable error

	mu    sync.Mutex
	blobs map[digest.Digest]bool
	ready bool
	pods  string
}

const nodeJSON = `{"metadata":{"name":%q,"labels":{}},"spec":{"taints":[{"key":"node-role.kubernetes.io/control-plane","effect":"NoSchedule"}]},
"status":{"conditions":[{"type":"Ready","status":%q,"message":"cni plugin not initialized"}]}}`

func newFakeHost(m clusterfile.Host, name string) *fakeHost {
	f := &fakeHost{Runner: hosttest.New(m.String()), blobs: map[digest.Digest]bool{}, ready: true, pods: `{"items":[]}`}
	address := m.Address
	if m.Local() {
		address = "192.168.0.5"
	}
	f.On("^sh -s -- ", hosttest.Answer{Do: func(context.Context, hosttest.Call) hosttest.Answer {
		out := fmt.Sprintf("time=%d\nuid=0\narch=x86_64\nhostname=%s\nmachine-id=id-%s\ninit=systemd\ncgroup=2\ncpus=4\nmemory=8e9\ndisk-free=8e10\naddress=%s/24 eth0\n",
			time.Now().Unix(), name, name, address)
		if s, ok := f.Files()[runtime.StateFile]; ok && len(s.Data) > 0 {
			out += "state=" + strings.ReplaceAll(string(s.Data), "\n", "") + "\n"
		}
		return hosttest.Answer{Stdout: out + "ipvs=on\nend=1\n"}
	}})
	f.On("^test -s", hosttest.Answer{Code: 1})
	f.Put("/etc/hosts", "127.0.0.1 localhost\n", 0o644)
	f.On(`(?s)sealer-new.* sh /etc/hosts$`, hosttest.Answer{Do: func(_ context.Context, c hosttest.Call) hosttest.Answer {
		f.Put("/etc/hosts", string(c.Stdin), 0o644)
		return hosttest.Answer{}
	}})
	f.On(`sh /usr/local/bin/sealer-cluster-node `+runtime.StateFile, hosttest.Answer{Do: func(context.Context, hosttest.Call) hosttest.Answer {
		f.Put(runtime.StateFile, "", 0o644)
		return hosttest.Answer{}
	}})
	f.On("content missing", hosttest.Answer{Do: f.missing})
	f.On("content receive", hosttest.Answer{Do: f.receive})
	f.On("rootfs mount", hosttest.Answer{Stdout: `{"path":"/var/lib/sealer/node/rootfs/x"}`})
	f.On("registry init", hosttest.Answer{Stdout: `{"ca":"PEM","username":"sealer","password":"very-secret"}`})
	f.On("registry lacks", hosttest.Answer{Stdout: "[]"})
	f.On("^kubectl get nodes", hosttest.Answer{Do: func(context.Context, hosttest.Call) hosttest.Answer {
		var items []string
		for i := range 9 {
			items = append(items, f.node(fmt.Sprintf("h%d", i+1)))
		}
		return hosttest.Answer{Stdout: `{"items":[` + strings.Join(items, ",") + `]}`}
	}})
	f.On("^kubectl get node h", hosttest.Answer{Do: func(_ context.Context, c hosttest.Call) hosttest.Answer {
		return hosttest.Answer{Stdout: f.node(c.Argv[3])}
	}})
	f.On("^kubectl get pods", hosttest.Answer{Do: func(context.Context, hosttest.Call) hosttest.Answer {
		f.mu.Lock()
		defer f.mu.Unlock()
		return hosttest.Answer{Stdout: f.pods}
	}})
	return f
}

func (f *fakeHost) node(name string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return fmt.Sprintf(nodeJSON, name, map[bool]string{true: "True", false: "False"}[f.ready])
}

func (f *fakeHost) missing(_ context.Context, c hosttest.Call) hosttest.Answer {
	var want []struct{ Digest digest.Digest }
	if err := json.Unmarshal(c.Stdin, &want); err != nil {
		return hosttest.Answer{Err: err}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	type lack struct {
		Digest digest.Digest `json:"digest"`
		Offset int64         `json:"offset"`
	}
	lacks := []lack{}
	for _, w := range want {
		if !f.blobs[w.Digest] {
			lacks = append(lacks, lack{Digest: w.Digest})
		}
	}
	out, err := json.Marshal(lacks)
	return hosttest.Answer{Stdout: string(out), Err: err}
}

// Run is the runner's, but for a command that goes on beside others.
func (f *fakeHost) Run(ctx context.Context, c host.Command) error {
	if slices.Equal(c.Argv[1:], []string{"content", "share"}) {
		return f.share(ctx, c)
	}
	return f.Runner.Run(ctx, c)
}

// share takes what the operator sends, and serves nobody.
func (f *fakeHost) share(ctx context.Context, c host.Command) error {
	r := bufio.NewReader(c.Stdin)
	var blobs []peers.Blob
	got := false
	for {
		var o peers.Order
		if err := peers.Read(r, &o); err != nil {
			return &host.LostError{Host: f.String(), Command: "content share", Err: err}
		}
		var report peers.Report
		switch {
		case o.End:
			return nil
		case o.Hello != nil:
			blobs = o.Hello.Blobs
			report.Serving = &peers.Serving{}
			f.mu.Lock()
			for i, b := range blobs {
				if f.blobs[b.Digest] {
					report.Serving.Have = append(report.Serving.Have, i)
				}
			}
			f.mu.Unlock()
		case o.Get != nil:
			if !got { // it changes the host from now on
				got = true
				if err := f.Runner.Run(ctx, host.Command{Argv: c.Argv, Mutates: c.Mutates}); err != nil {
					return err
				}
			}
			for _, p := range o.Get.Parts {
				if _, err := io.CopyN(io.Discard, r, p.Length); err != nil {
					return &host.LostError{Host: f.String(), Command: "content share", Err: err}
				}
				f.mu.Lock()
				f.blobs[blobs[p.Blob].Digest] = true
				f.mu.Unlock()
				report.Have = append(report.Have, peers.At{Blob: p.Blob, Offset: p.Offset + p.Length})
			}
			report.Done = []int{o.Get.ID}
		default:
			continue
		}
		if err := peers.Write(c.Stdout, report); err != nil {
			return err
		}
	}
}

func (f *fakeHost) receive(_ context.Context, c hosttest.Call) hosttest.Answer {
	r := blobstream.NewReader(bytes.NewReader(c.Stdin))
	n, total := 0, 0
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return hosttest.Answer{Stdout: fmt.Sprintf(`{"blobs":%d,"bytes":%d}`, n, total)}
		}
		if err != nil {
			return hosttest.Answer{Stderr: err.Error(), Code: 1}
		}
		body, err := io.ReadAll(r)
		if err != nil || digest.FromBytes(body) != h.Digest {
			return hosttest.Answer{Stderr: "wrong content", Code: 1}
		}
		f.mu.Lock()
		f.blobs[h.Digest] = true
		f.mu.Unlock()
		n, total = n+1, total+len(body)
	}
}

// did is what changed the host, one line each; that it was held and let go is left out.
func (f *fakeHost) did() []string {
	var lines []string
	for _, c := range f.Calls() {
		if c.Mutates && !slices.Contains(c.Argv, "/run/lock/sealer-operator") {
			line, _, _ := strings.Cut(strings.ReplaceAll(c.String(), "'", ""), "\n")
			lines = append(lines, line)
		}
	}
	// Nodes are labelled at once: in any order.
	var at []int
	var labels []string
	for i, line := range lines {
		if strings.HasPrefix(line, "kubectl label") || strings.HasPrefix(line, "kubectl taint") {
			at, labels = append(at, i), append(labels, line)
		}
	}
	slices.Sort(labels)
	for i, line := range labels {
		lines[at[i]] = line
	}
	return lines
}
