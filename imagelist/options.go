// SPDX-License-Identifier: Apache-2.0

package imagelist

import "github.com/sealerio/sealer/imagelist/chart"

// Option changes how images are looked for.
type Option func(*config)

type config struct {
	configMaps  bool
	kubeVersion string
	apiVersions []string
	renderer    chart.Renderer
}

func newConfig(options []Option) config {
	var c config
	for _, option := range options {
		option(&c)
	}
	return c
}

// WithConfigMaps also takes the images that the files in ConfigMaps and in the stringData of Secrets name. By default
// they are only reported.
func WithConfigMaps() Option { return func(c *config) { c.configMaps = true } }

// WithKubeVersion renders charts for a version of Kubernetes, such as v1.36.3. The default is that of the kube-apiserver
// that the lists name, else the one that Helm knows. What is no version is an error of Discover.
func WithKubeVersion(version string) Option { return func(c *config) { c.kubeVersion = version } }

// WithCharts has charts rendered. By default each is a Problem.
func WithCharts(r chart.Renderer) Option { return func(c *config) { c.renderer = r } }

// WithAPIVersions lets charts see further API versions in the cluster, such as monitoring.coreos.com/v1. The default
// are those of Kubernetes itself.
func WithAPIVersions(versions ...string) Option {
	return func(c *config) { c.apiVersions = append(c.apiVersions, versions...) }
}

// CheckKubeVersion says whether WithKubeVersion takes a version.
func CheckKubeVersion(version string) error { return chart.Check(version) }
