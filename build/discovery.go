// SPDX-License-Identifier: Apache-2.0

package build

import (
	"strings"

	"github.com/sealerio/sealer/build/frontend"
	"github.com/sealerio/sealer/imagelist"
)

// discovery is how images are looked for.
func (o Options) discovery() []imagelist.Option {
	options := []imagelist.Option{imagelist.WithAPIVersions(o.APIVersions...), imagelist.WithCharts(o.Charts)}
	if o.KubeVersion != "" {
		options = append(options, imagelist.WithKubeVersion(o.KubeVersion))
	}
	if o.ConfigMaps {
		options = append(options, imagelist.WithConfigMaps())
	}
	return options
}

// discoveryAttributes tell the frontend the same.
func (o Options) discoveryAttributes() map[string]string {
	attrs := map[string]string{}
	if o.KubeVersion != "" {
		attrs[frontend.KeyKubeVersion] = o.KubeVersion
	}
	if len(o.APIVersions) > 0 {
		attrs[frontend.KeyAPIVersions] = strings.Join(o.APIVersions, ",")
	}
	if o.ConfigMaps {
		attrs[frontend.KeyConfigMaps] = "true"
	}
	return attrs
}
