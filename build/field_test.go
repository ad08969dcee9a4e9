// SPDX-License-Identifier: Apache-2.0

//go:build linux

package build_test

import (
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/build"
	"github.com/sealerio/sealer/clusterimage"
)

// field is a Kubefile as people have written it, with what it needs around it. SITE, REGISTRY and ARCH stand for the
// addresses of the test's own servers and the architecture.
type field struct {
	name     string
	kubefile string
	context  map[string]string
	archive  string // a file of the context that docker save has written
	runs     bool   // has RUN lines
	files    []string
	launch   clusterimage.Launch
	kind     string // of the image; empty: app-installer
	runtime  string
	images   []string
}

const pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {containers: [{name: x, image: 'REGISTRY/a:1'}]}\n"

const k3sInstaller = `#!/bin/sh
set -e
mkdir -p bin
curl -sfL -o bin/k3s "SITE/k3s/${INSTALL_K3S_VERSION}/k3s"
chmod 755 bin/k3s
`

func fields() []field {
	return []field{
		{
			name:     "dashboard",
			kubefile: "FROM REGISTRY/kubernetes:v1.19.8\nRUN wget SITE/recommended.yaml\nCMD kubectl apply -f recommended.yaml",
			runs:     true, kind: clusterimage.KubeInstaller, runtime: "kubernetes",
			files:  []string{"Metadata", "bin/kubeadm", "recommended.yaml"},
			launch: clusterimage.Launch{Cmds: []string{"kubectl apply -f recommended.yaml"}},
		},
		{
			name:     "kubernetes",
			kubefile: "FROM scratch\nCOPY . .\nCOPY imageList manifests\n",
			context:  map[string]string{"bin/kubeadm": "x", "imageList": "REGISTRY/a:1\n", "etc/kubeadm.yml": "x", "scripts/init-kube.sh": "x", ".sealerignore": "Kubefile\n"},
			kind:     clusterimage.KubeInstaller, runtime: "kubernetes",
			files:  []string{".sealerignore", "Metadata", "bin/kubeadm", "etc/kubeadm.yml", "imageList", "manifests/imageList", "scripts/init-kube.sh"},
			images: []string{"a:1"},
		},
		{
			name:     "k0s",
			kubefile: "FROM scratch\nCOPY rootfs/* .\nCOPY ${ARCH} .\nCOPY imageList manifests\n",
			context: map[string]string{
				"rootfs/etc/registry.yml": "x", "rootfs/scripts/init.sh": "x", "rootfs/README.md": "x", "ARCH/bin/k0s": "x", "imageList": "REGISTRY/a:1\n",
			},
			archive: "ARCH/images/registry.tar.gz",
			kind:    clusterimage.KubeInstaller, runtime: "k0s",
			files:  []string{"Metadata", "README.md", "bin/k0s", "etc/registry.yml", "images/registry.tar.gz", "manifests/imageList", "scripts/init.sh"},
			images: []string{"a:1"},
		},
		{
			name:     "k3s online",
			kubefile: "FROM scratch\nRUN curl -sfL SITE/k3s-install.sh | INSTALL_K3S_VERSION=v1.24.4+k3s1 sh -\n",
			runs:     true, kind: clusterimage.KubeInstaller, runtime: "k3s",
			files: []string{"Metadata", "bin/k3s"},
		},
		{
			name:     "k3s offline",
			kubefile: "FROM scratch\nCOPY . .\n",
			context:  map[string]string{"k3s": "x", "k3s-install.sh": "#!/bin/sh\n", ".dockerignore": "Kubefile\n.dockerignore\n"},
			archive:  "k3s-airgap-images-ARCH.tar",
			kind:     clusterimage.KubeInstaller, runtime: "k3s",
			files: []string{"Metadata", "k3s", "k3s-airgap-images-ARCH.tar", "k3s-install.sh"},
		},
		{
			name:     "sealer build_with_appcmds",
			kubefile: "FROM scratch\nAPP yamlapp local://yamlcontext\nAPP shellapp local://shellcontext\nAPP mixedapp local://install.sh local://mixedcontext\nAPPCMDS mixedapp [\"kubectl apply -f app.yaml\"]\nLAUNCH [\"mixedapp\",\"shellapp\"]\n",
			context: map[string]string{
				"install.sh": "x", "mixedcontext/install.sh": "y", "mixedcontext/app.yaml": deployment, "shellcontext/a.sh": "x", "shellcontext/b.sh": "x", "shellcontext/c.sh": "x",
				"yamlcontext/a.yaml": deployment, "yamlcontext/b.yaml": deployment, "yamlcontext/c.yaml": deployment,
			},
			files: []string{
				"Metadata", "application/apps/mixedapp/app.yaml", "application/apps/mixedapp/install.sh", "application/apps/shellapp/a.sh", "application/apps/shellapp/b.sh", "application/apps/shellapp/c.sh",
				"application/apps/yamlapp/a.yaml", "application/apps/yamlapp/b.yaml", "application/apps/yamlapp/c.yaml",
			},
			launch: clusterimage.Launch{AppNames: []string{"mixedapp", "shellapp"}},
		},
		{
			name:     "sealer build_with_cmds",
			kubefile: "FROM scratch\nCOPY app.yaml manifests/\nCOPY imageList manifests/\nCMDS [\"kubectl apply -f manifests/app.yaml\"]",
			context:  map[string]string{"app.yaml": pod, "imageList": "REGISTRY/a:1"},
			files:    []string{"Metadata", "manifests/app.yaml", "manifests/imageList"},
			launch:   clusterimage.Launch{Cmds: []string{"kubectl apply -f manifests/app.yaml"}}, images: []string{"a:1"},
		},
		{
			name:     "sealer build_with_launch",
			kubefile: "FROM scratch\nCOPY imageList manifests/\nAPP myapp local://app.yaml\nLAUNCH myapp",
			context:  map[string]string{"app.yaml": deployment, "imageList": "REGISTRY/a:1"},
			files:    []string{"Metadata", "application/apps/myapp/app.yaml", "manifests/imageList"},
			launch:   clusterimage.Launch{AppNames: []string{"myapp"}}, images: []string{"a:1"},
		},
		{
			name:     "sealer build_with_multi_arch",
			kubefile: "FROM scratch\nCOPY ${ARCH}/bin bin\nAPP myapp local://app.yaml\nLAUNCH myapp",
			context:  map[string]string{"ARCH/bin/kubectl": "x", "app.yaml": deployment},
			files:    []string{"Metadata", "application/apps/myapp/app.yaml", "bin/kubectl"},
			launch:   clusterimage.Launch{AppNames: []string{"myapp"}},
		},
		{
			name:     "sealer build_test",
			kubefile: "FROM REGISTRY/kubernetes:v1.19.8\nCOPY test1 .\nCOPY recommended.yaml .\nCMD kubectl apply -f recommended.yaml\nCOPY test2 .\nRUN wget SITE/helm\nRUN wget -O redis.tar.gz SITE/redis-5.0.3.tar.gz\nRUN tar zxvf redis.tar.gz\nCMD yum install tree -y",
			context:  map[string]string{"test1": "1", "test2": "2", "recommended.yaml": deployment},
			runs:     true, kind: clusterimage.KubeInstaller, runtime: "kubernetes",
			files:  []string{"Metadata", "bin/kubeadm", "helm", "recommended.yaml", "redis.tar.gz", "redis/README", "test1", "test2"},
			launch: clusterimage.Launch{Cmds: []string{"kubectl apply -f recommended.yaml", "yum install tree -y"}},
		},
		{
			name:     "sealer lite_build",
			kubefile: "FROM REGISTRY/kubernetes:v1.19.8\nCOPY test1 .\nCOPY recommended.yaml manifests\nCOPY test2 .\n#CMD ls -l\nCOPY imageList manifests\nCOPY test-plugins.yaml plugins",
			context:  map[string]string{"test1": "1", "test2": "2", "recommended.yaml": deployment, "imageList": "REGISTRY/a:1\n# none\n", "test-plugins.yaml": "apiVersion: sealer.io/v1\nkind: Plugin\nmetadata: {name: x}\nspec: {type: SHELL, action: pre-init-host, scope: master, data: ls}\n"},
			kind:     clusterimage.KubeInstaller, runtime: "kubernetes",
			files:  []string{"Metadata", "bin/kubeadm", "manifests/imageList", "manifests/recommended.yaml", "plugins/test-plugins.yaml", "test1", "test2"},
			images: []string{"a:1"},
		},
		{
			name: "sealos chart",
			kubefile: "FROM scratch\nENV SERVICE_TYPE \"NodePort\"\nCOPY charts charts\nCOPY registry registry\n" +
				"CMD [\"helm upgrade --install nginx charts/nginx --namespace=nginx --create-namespace --set service.type=$(SERVICE_TYPE)\"]\n",
			context: map[string]string{"charts/README": "x"},
			files:   []string{"Metadata", "charts/README"},
			launch:  clusterimage.Launch{Cmds: []string{"helm upgrade --install nginx charts/nginx --namespace=nginx --create-namespace --set service.type=${SERVICE_TYPE}"}},
		},
		{
			name: "sealos single image",
			kubefile: "FROM REGISTRY/kubernetes:v1.19.8\nENV version v1.1.0\nCOPY cni ./cni\nCOPY images ./images\nCOPY registry ./registry\n" +
				"ENTRYPOINT [\"kubectl apply -f cni/tigera-operator.yaml\"]\nCMD [\"kubectl apply -f cni/custom-resources.yaml\",\"kubectl get pods\"]\n",
			context: map[string]string{"cni/tigera-operator.yaml": deployment, "cni/custom-resources.yaml": deployment, "images/shim/CalicoImageList": "REGISTRY/a:1\n"},
			kind:    clusterimage.KubeInstaller, runtime: "kubernetes",
			files:  []string{"Metadata", "bin/kubeadm", "cni/custom-resources.yaml", "cni/tigera-operator.yaml", "images/shim/CalicoImageList"},
			launch: clusterimage.Launch{Cmds: []string{"kubectl apply -f cni/tigera-operator.yaml", "kubectl apply -f cni/custom-resources.yaml", "kubectl get pods"}},
		},
		{
			name: "sealos service",
			kubefile: "FROM scratch\n\nUSER 65532:65532\n\nCOPY registry registry\nCOPY manifests manifests\n\nENV DEFAULT_NAMESPACE account-system\nENV cloudPort=\"\"\n\n" +
				"CMD [\"( kubectl create ns $DEFAULT_NAMESPACE || true ) && kubectl apply -f manifests/deploy.yaml -n $DEFAULT_NAMESPACE\"]\n",
			context: map[string]string{"manifests/deploy.yaml": pod},
			files:   []string{"Metadata", "manifests/deploy.yaml"}, images: []string{"a:1"},
			launch: clusterimage.Launch{Cmds: []string{"( kubectl create ns $DEFAULT_NAMESPACE || true ) && kubectl apply -f manifests/deploy.yaml -n $DEFAULT_NAMESPACE"}},
		},
	}
}

// TestField builds Kubefiles of the field as they stand.
func TestField(t *testing.T) {
	t.Parallel()
	u := newUpstream(t)
	u.push("a:1")
	fill := strings.NewReplacer("REGISTRY", u.host, "ARCH}", "ARCH}", "ARCH", runtime.GOARCH)
	installer := new(string)
	site := map[string]string{
		"/recommended.yaml": deployment, "/helm": "helm", "/redis-5.0.3.tar.gz": gzipped(t, "redis/README", "redis"), "/k3s/v1.24.4+k3s1/k3s": "k3s",
	}
	address, _ := newSiteOf(t, func(path string) (string, bool) {
		if path == "/k3s-install.sh" {
			return *installer, true
		}
		text, ok := site[path]
		return text, ok
	})
	*installer = strings.ReplaceAll(k3sInstaller, "SITE", address)

	base := newBench(t, map[string]string{"Kubefile": "FROM scratch\nCOPY kubeadm bin/\nLABEL cluster.alpha.sealer.io/cluster-runtime-version=v1.19.8\n", "kubeadm": "x"})
	_, err := base.client.Push(t.Context(), base.store, base.mustBuild().Descriptor, u.host+"/kubernetes:v1.19.8")
	require.NoError(t, err)

	for _, f := range fields() {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			if f.runs {
				needToolbox(t)
			}
			context := map[string]string{"Kubefile": strings.ReplaceAll(fill.Replace(f.kubefile), "SITE", address)}
			for path, text := range f.context {
				context[fill.Replace(path)] = fill.Replace(text)
			}
			b := newBench(t, context)
			if f.archive != "" {
				writeArchive(t, filepath.Join(b.context, fill.Replace(f.archive)))
			}
			img := b.mustBuild(func(o *build.Options) { o.Tag = "test/field:v1" })
			r := img.Rootfs[0]
			files := b.files(img, 0)
			want := make([]string, len(f.files))
			for i, path := range f.files {
				want[i] = fill.Replace(path)
			}
			require.Equal(t, want, names(files))
			require.Equal(t, f.launch, r.Extension.Launch)
			kind := f.kind
			if kind == "" {
				kind = clusterimage.AppInstaller
			}
			require.Equal(t, kind, r.Extension.Type)
			require.Equal(t, f.runtime, r.Config.Config.Labels[clusterimage.LabelClusterRuntime])
			for _, image := range f.images {
				require.Contains(t, imageNames(img), u.host+"/"+image+" linux/"+runtime.GOARCH)
			}
		})
	}
}

// TestDocsOfKubefile builds the samples of the documents on a small base.
func TestDocsOfKubefile(t *testing.T) {
	t.Parallel()
	needToolbox(t)
	u := newUpstream(t)
	b := newBench(t, map[string]string{
		"Kubefile": "FROM scratch\nCOPY kubeadm bin/\nLABEL cluster.alpha.sealer.io/cluster-runtime-version=v1.36.3\n", "kubeadm": "x",
		"manifests/podnet.yaml": deployment, "manifests/hello.yaml": deployment, "imageList": "# none\n",
	})
	_, err := b.client.Push(t.Context(), b.store, b.mustBuild().Descriptor, u.host+"/kubernetes:v1.36.3")
	require.NoError(t, err)
	src, err := os.ReadFile("../docs/kubefile.md")
	require.NoError(t, err)
	samples := strings.Split(string(src), "```dockerfile\n")[1:]
	require.NotEmpty(t, samples)
	for _, sample := range samples {
		text, _, _ := strings.Cut(sample, "```")
		b.write(map[string]string{"Kubefile": strings.ReplaceAll(text, "registry.example.com", u.host)})
		_, err := b.build()
		require.NoError(t, err, text)
	}
	require.Empty(t, b.warned)
}

// writeArchive writes an image as `docker save` does.
func writeArchive(t *testing.T, path string) {
	t.Helper()
	img, err := random.Image(64, 1)
	require.NoError(t, err)
	tag, err := name.NewTag("docker.io/rancher/mirrored-pause:3.6")
	require.NoError(t, err)
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	f, err := os.Create(path)
	require.NoError(t, err)
	var w io.WriteCloser = f
	if strings.HasSuffix(path, ".gz") {
		w = gzip.NewWriter(f)
	}
	require.NoError(t, tarball.Write(tag, img, w))
	require.NoError(t, w.Close())
	if w != f {
		require.NoError(t, f.Close())
	}
}
