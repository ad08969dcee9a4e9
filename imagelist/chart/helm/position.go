// SPDX-License-Identifier: Apache-2.0

package helm

import (
	"regexp"
	"strconv"
	"strings"

	v2 "helm.sh/helm/v4/pkg/chart/v2"

	"github.com/sealerio/sealer/imagelist/chart"
)

// place is how text/template and Helm name a position; there is no other form
// of it than in the message.
var place = regexp.MustCompile(`([A-Za-z0-9_.-]+(?:/[^\s:()"]+)+):(\d+)`)

// position finds the template that an error speaks of first: the one that was
// being rendered.
func position(c *v2.Chart, err error) chart.Problem {
	for _, found := range place.FindAllStringSubmatch(err.Error(), -1) {
		inside, ok := strings.CutPrefix(found[1], c.Name()+"/")
		if !ok || !has(c, inside) {
			continue
		}
		line, _ := strconv.Atoi(found[2]) // no number: 0
		return chart.Problem{File: inside, Line: line}
	}
	return chart.Problem{File: "Chart.yaml"}
}

func has(c *v2.Chart, name string) bool {
	for _, f := range c.Templates {
		if f.Name == name {
			return true
		}
	}
	for _, one := range c.Dependencies() {
		if rest, ok := strings.CutPrefix(name, "charts/"+one.Name()+"/"); ok && has(one, rest) {
			return true
		}
	}
	return false
}

// clean makes one line of Helm's messages.
func clean(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }
