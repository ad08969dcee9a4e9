// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// AppsImage is the name of the image that launches applications of every type on top of BaseImage.
func (l *Lab) AppsImage() string { return l.Registry + "/team/apps:v1" }

// BuildApps builds AppsImage on BaseImage, which must be in root's store or in the registry.
func (l *Lab) BuildApps(ctx context.Context, root string) (digest string, err error) {
	dir := filepath.Join(l.Dir, "apps")
	if err := l.writeApps(ctx, dir); err != nil {
		return "", err
	}
	return l.Run(ctx, root, "build", "-t", l.AppsImage(), dir)
}

// appsFiles are the files of its build context: a network, a workload, an
// application of several files with its own variables and commands, one that
// is scripts, and a chart whose image nothing else names.
func appsFiles() map[string]string {
	return map[string]string{
		"Kubefile": `FROM BASE
COPY helm bin/
COPY imageList imageList
CNI podnet local://podnet.yaml
APP hello local://hello.yaml
APP notes local://namespace.yaml local://notes.yaml.tmpl local://apply.sh
APPENV notes AUTHOR=nobody TITLE="of an application"
APPCMDS notes ["kubectl apply -f namespace.yaml", "sh apply.sh \"$TITLE\""]
APP marks local://mark.sh
APP shop local://chart
APPENV shop REPLICAS=1
KUBEVERSION >=1.31
LAUNCH ["podnet", "hello", "notes", "marks", "shop"]
`,
		"imageList": "# no manifest names these: the tests pull them by hand\n" +
			"docker.io/sealer-test/multi:v1\nquay.io/sealer-test/hello:v1\n",
		"namespace.yaml":  "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: notes\n",
		"notes.yaml.tmpl": "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: notes\n  namespace: notes\ndata:\n  author: {{ .AUTHOR }}\n",
		"apply.sh": "set -eu\nkubectl apply -f notes.yaml\n" +
			"kubectl -n notes create configmap title --from-literal=title=\"$1\" --dry-run=client -o yaml | kubectl apply -f -\n",
		"mark.sh":           "set -eu\nkubectl label nodes --all --overwrite example.com/marked=by-a-script\n",
		"chart/Chart.yaml":  "apiVersion: v2\nname: shop\nversion: 1.0.0\n",
		"chart/values.yaml": "image:\n  repository: docker.io/sealer-test/hello\n  tag: v2\nnodePort: 30081\n",
		"chart/templates/shop.yaml": `apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ .Release.Name }}
spec:
  replicas: 1
  selector: {matchLabels: {app: {{ .Release.Name }}}}
  template:
    metadata: {labels: {app: {{ .Release.Name }}}}
    spec:
      terminationGracePeriodSeconds: 5
      tolerations: [{key: node-role.kubernetes.io/control-plane, effect: NoSchedule}]
      containers:
      - name: shop
        image: {{ .Values.image.repository }}:{{ .Values.image.tag }}
        ports: [{containerPort: 8080}]
        readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 2}
---
apiVersion: v1
kind: Service
metadata:
  name: {{ .Release.Name }}
spec:
  type: NodePort
  selector: {app: {{ .Release.Name }}}
  ports: [{port: 80, targetPort: 8080, nodePort: {{ .Values.nodePort }}}]
`,
	}
}

// ChartPort is the node port of what the chart of AppsImage installs.
const ChartPort = "30081"

// writeApps puts a build context for AppsImage into dir.
func (l *Lab) writeApps(ctx context.Context, dir string) error {
	helm, err := Program(ctx, filepath.Join(l.Source, "test", "helm"), "helm.sh/helm/v4/cmd/helm")
	if err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("clearing the applications' folder: %w", err)
	}
	if err := linkTree(filepath.Join(l.Components, "manifests"), dir); err != nil {
		return err
	}
	for name, text := range appsFiles() {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fmt.Errorf("writing the applications: %w", err)
		}
		if err := os.WriteFile(path, []byte(strings.ReplaceAll(text, "FROM BASE", "FROM "+l.BaseImage())), 0o600); err != nil {
			return fmt.Errorf("writing the applications: %w", err)
		}
	}
	return copyProgram(helm, filepath.Join(dir, "helm"))
}
