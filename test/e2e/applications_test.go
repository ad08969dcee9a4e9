//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"encoding/json"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/test/lab"
)

// extraFiles is the build context of an application image: objects of its own, and a chart that the cluster's helm installs.
func extraFiles(image, more string) map[string]string {
	const port = `
apiVersion: v1
kind: Service
metadata: {name: extra, namespace: extra}
spec:
  type: NodePort
  selector: {app: extra}
  ports: [{port: 80, targetPort: 8080, nodePort: ` + extraPort + `}]
`
	deployment := func(name, namespace, image string) string {
		return `apiVersion: apps/v1
kind: Deployment
metadata: {name: ` + name + namespace + `}
spec:
  replicas: 1
  selector: {matchLabels: {app: ` + name + `}}
  template:
    metadata: {labels: {app: ` + name + `}}
    spec:
      terminationGracePeriodSeconds: 1
      tolerations: [{key: node-role.kubernetes.io/control-plane, effect: NoSchedule}]
      containers:
      - name: ` + name + `
        image: ` + image + `
        ports: [{containerPort: 8080}]
        readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}
`
	}
	return map[string]string{
		"Kubefile": `FROM scratch
APP extra local://namespace.yaml local://extra.yaml local://settings.yaml.tmpl` + more + `
APPENV extra COLOUR=red
APP tail local://chart
LAUNCH ["extra", "tail"]
`,
		"namespace.yaml":            "apiVersion: v1\nkind: Namespace\nmetadata: {name: extra}\n",
		"settings.yaml.tmpl":        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings, namespace: extra}\ndata: {colour: {{ .COLOUR }}}\n",
		"old.yaml":                  "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: old, namespace: extra}\n",
		"extra.yaml":                deployment("extra", ", namespace: extra", image) + "---" + port,
		"chart/Chart.yaml":          "apiVersion: v2\nname: tail\nversion: 1.0.0\n",
		"chart/values.yaml":         "{}\n",
		"chart/templates/tail.yaml": deployment("tail", "", "docker.io/sealer-test/extra:v1"),
	}
}

const extraPort = "30082"

type listedApplication struct {
	Name, Image, Origin string
	Ready               bool
	Why                 []string
}

// testApplicationImages runs applications on a cluster that is there, changes them and takes them away.
func testApplicationImages(t *testing.T, root string) {
	began := time.Now()
	login := []string{"--pk", shared.Hosts.KeyFile, "--name", "e2e"}
	on := func(args ...string) string { return sealer(t, root, append(args, login...)...) }
	listed := func() map[string]listedApplication {
		var all []listedApplication
		require.NoError(t, json.Unmarshal([]byte(on("app", "list", "-o", "json")), &all))
		named := map[string]listedApplication{}
		for _, a := range all {
			named[a.Name+" of "+a.Origin] = a
		}
		return named
	}
	control := shared.Hosts.Hosts[0]
	for from, to := range map[string]string{"docker.io/sealer-test/hello:v2": "extra:v1", "quay.io/sealer-test/hello:v1": "extra:v2"} {
		sealer(t, root, "copy", from, shared.Registry+"/docker.io/sealer-test/"+to)
	}
	images := map[string]string{}
	for version, files := range map[string]map[string]string{
		"v1": extraFiles("docker.io/sealer-test/extra:v1", " local://old.yaml"),
		"v2": extraFiles("docker.io/sealer-test/extra:v2", ""),
		"v3": extraFiles("docker.io/sealer-test/extra:v2", ""),
	} {
		if version == "v3" { // the image is in a variable, where no build finds it
			files["extra.yaml.tmpl"] = strings.Replace(files["extra.yaml"], "docker.io/sealer-test/extra:v2", "docker.io/sealer-test/{{ .WHAT }}:v9", 1)
			files["Kubefile"] = strings.Replace(files["Kubefile"], "extra.yaml", "extra.yaml.tmpl", 1)
			files["Kubefile"] = strings.Replace(files["Kubefile"], "COLOUR=red", "COLOUR=red WHAT=nowhere", 1)
			delete(files, "extra.yaml")
		}
		images[version] = shared.Registry + "/team/extra:" + version
		sealer(t, root, "build", "-t", images[version], writeContext(t, files))
	}
	t.Logf("built after %s", time.Since(began).Round(time.Second))

	_, stderr, code := runAny(t, root, append([]string{"run", images["v1"], "--apps", "extr"}, login...)...)
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "no application of this name; it has extra, tail")
	require.Contains(t, on("run", images["v1"], "--dry-run"), "LAUNCH extra")

	// Killed in the middle, the same command continues.
	cmd := shared.Command(t.Context(), root, append([]string{"run", images["v1"], "--progress", "none", "--env", "COLOUR=blue"}, login...)...)
	var messages bytes.Buffer
	cmd.Stderr = &messages
	require.NoError(t, cmd.Start())
	kill := time.AfterFunc(3*time.Second, func() { _ = cmd.Process.Signal(syscall.SIGKILL) })
	_ = cmd.Wait() // killed, or on a fast machine at its end
	kill.Stop()
	require.Contains(t, on("run", images["v1"], "--env", "COLOUR=blue"), "e2e")
	answer := func() string {
		text, err := shared.Get(t.Context(), shared.Hosts.Hosts[1], extraPort, time.Minute)
		require.NoError(t, err)
		return text
	}
	require.Equal(t, "hello from docker.io/sealer-test/hello:v2", answer())
	require.Contains(t, on("run", images["v1"], "--env", "COLOUR=blue"), "nothing to change")
	apps := listed()
	require.Equal(t, listedApplication{Name: "extra", Image: images["v1"], Origin: "image", Ready: true}, apps["extra of image"])
	for _, name := range []string{"podnet", "hello", "notes", "marks", "shop"} {
		require.True(t, apps[name+" of cluster"].Ready, "%s: %v", name, apps[name+" of cluster"].Why)
	}
	t.Logf("run after %s", time.Since(began).Round(time.Second))

	// An upgrade that fails tells at once why, and how to go back.
	_, stderr, code = runAny(t, root, append([]string{"app", "upgrade", "extra", images["v3"], "--progress", "none"}, login...)...)
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "wants the image docker.io/sealer-test/nowhere:v9, which nobody packed")
	require.Contains(t, stderr, "to go back: sealer app upgrade extra "+images["v1"])
	require.False(t, listed()["extra of image"].Ready)
	require.Equal(t, "hello from docker.io/sealer-test/hello:v2", answer())

	on("app", "upgrade", "extra", images["v2"])
	require.Equal(t, "hello from quay.io/sealer-test/hello:v1", answer())
	out, err := shared.Kubectl(t.Context(), "get", "configmaps", "--namespace", "extra", "-o", "jsonpath={.items[*].metadata.name} {.items[*].data.colour}")
	require.NoError(t, err)
	require.Equal(t, "kube-root-ca.crt settings blue", out, "what was said stays said, and what only v1 had is gone")
	require.Equal(t, listedApplication{Name: "extra", Image: images["v2"], Origin: "image", Ready: true}, listed()["extra of image"])
	lacks := func() string {
		text, err := control.Exec(t.Context(), "sh", "-c", `echo '["docker.io/sealer-test/extra:v1","docker.io/sealer-test/extra:v2","docker.io/sealer-test/hello:v2"]' | sealer-cluster-node registry lacks`)
		require.NoError(t, err, string(text))
		return strings.TrimSpace(string(text))
	}
	require.Equal(t, "[]", lacks(), "the chart wants v1, too")
	t.Logf("upgraded after %s", time.Since(began).Round(time.Second))

	require.Contains(t, on("app", "delete", "extra", "--dry-run"), "helm release default/tail")
	on("app", "delete", "extra", "--yes")
	require.NotContains(t, listed(), "extra of image")
	require.Equal(t, `["docker.io/sealer-test/extra:v1","docker.io/sealer-test/extra:v2"]`, lacks())
	out, err = shared.Kubectl(t.Context(), "get", "namespace/extra", "deployment/tail", "--ignore-not-found", "-o", "name")
	require.NoError(t, err)
	require.Empty(t, out)
	_, err = shared.Get(t.Context(), shared.Hosts.Hosts[0], lab.ChartPort, time.Minute)
	require.NoError(t, err, "the cluster's own application is as it was")
	_, stderr, code = runAny(t, root, append([]string{"app", "delete", "shop", "--yes"}, login...)...)
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "came with the cluster's own image")
	t.Logf("deleted after %s", time.Since(began).Round(time.Second))
}
