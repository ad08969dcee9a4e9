// SPDX-License-Identifier: Apache-2.0

package k3s

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/sealerio/sealer/test/components/programs/doubles/facts"
	"github.com/sealerio/sealer/test/components/programs/doubles/pki"
)

// component is one of those that k3s brings along, as a deployment of one image.
const component = `apiVersion: apps/v1
kind: Deployment
metadata:
  name: %[1]s
  namespace: kube-system
spec:
  replicas: 1
  selector:
    matchLabels: {k8s-app: %[1]s}
  template:
    metadata:
      labels: {k8s-app: %[1]s}
    spec:
      tolerations:
      - {key: CriticalAddonsOnly, operator: Exists}
      - {key: node-role.kubernetes.io/control-plane, operator: Exists, effect: NoSchedule}
      containers:
      - name: %[1]s
        image: %[2]s
        imagePullPolicy: IfNotPresent
`

// writeComponents puts the manifests of what is not disabled into the folder that is applied.
func (s *server) writeComponents() error {
	images, err := facts.Images(s.stamp)
	if err != nil {
		return err
	}
	for _, c := range []struct{ item, file, name, image string }{
		{"coredns", "coredns.yaml", "coredns", "coredns"},
		{"local-storage", "local-storage.yaml", "local-path-provisioner", "local-storage"},
		{"metrics-server", "metrics-server/metrics-server-deployment.yaml", "metrics-server", "metrics-server"},
		{"traefik", "traefik.yaml", "traefik", "traefik"},
	} {
		path := s.folders.server("manifests", c.file)
		if slices.Contains(s.list("disable"), c.item) {
			if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
			continue
		}
		text := fmt.Sprintf(component, c.name, prefixed(s.text("system-default-registry"), images[c.image]))
		if err := pki.WriteFile(path, []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}
