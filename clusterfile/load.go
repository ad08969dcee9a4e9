// SPDX-License-Identifier: Apache-2.0

package clusterfile

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// kind is what is known of one kind of document.
type kind struct {
	apiVersions []string
	many        bool // may stand more than once
}

const kubeadmAPI = "kubeadm.k8s.io/v1beta4"

func allKinds() map[string]kind {
	return map[string]kind{
		"Cluster":                {apiVersions: []string{"sealer.io/v2"}},
		"Config":                 {apiVersions: []string{"sealer.io/v2", "sealer.io/v1"}, many: true},
		"Application":            {apiVersions: []string{"sealer.io/v2"}},
		"Plugin":                 {apiVersions: []string{"sealer.io/v2", "sealer.io/v1"}, many: true},
		"InitConfiguration":      {apiVersions: []string{kubeadmAPI}},
		"JoinConfiguration":      {apiVersions: []string{kubeadmAPI}},
		"ClusterConfiguration":   {apiVersions: []string{kubeadmAPI}},
		"KubeletConfiguration":   {apiVersions: []string{"kubelet.config.k8s.io/v1beta1"}},
		"K3s":                    {apiVersions: []string{"sealer.io/v2"}},
		"KubeProxyConfiguration": {apiVersions: []string{"kubeproxy.config.k8s.io/v1alpha1"}},
		"ClusterConfig":          {apiVersions: []string{"k0s.k0sproject.io/v1beta1"}},
	}
}

// Parse reads a Clusterfile; name stands in messages. It reads nothing else.
// The error is Errors, with every mistake of the file.
func Parse(name string, src []byte) (*File, error) { return parse(name, src, false) }

func parse(name string, src []byte, base bool) (*File, error) {
	shapes, err := loadSchema()
	if err != nil {
		return nil, err
	}
	s := &source{name: name, lines: strings.Split(string(src), "\n")}
	f := &File{Name: DefaultName, Registry: defaultRegistry(), Kubeadm: map[string]map[string]any{}}
	seen := map[string]*node{}
	for _, doc := range s.documents(src) {
		s.document(f, doc, seen, shapes)
	}
	if seen["Cluster"] == nil && !base && !s.unknown {
		s.failAt(0, 0, fmt.Errorf("there is no document of kind Cluster"))
	}
	s.together(f)
	if len(s.errs) > 0 {
		slices.SortStableFunc(s.errs, func(a, b *PositionError) int {
			return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
		})
		return nil, s.errs
	}
	f.ClearText = s.clear
	return f, nil
}

func (s *source) document(f *File, doc *node, seen map[string]*node, shapes schema) {
	if !s.kindIs(doc, mappingNode) {
		s.unknown = true
		return
	}
	name, _ := doc.at("kind").scalar.(string)
	kinds := allKinds()
	k, known := kinds[name]
	switch {
	case doc.child("kind") == nil:
		s.fail(doc, "the document has no kind")
		s.unknown = true
		return
	case !known:
		s.fail(doc.at("kind"), "unknown kind %q%s", name, near(name, slices.Collect(maps.Keys(kinds))))
		s.unknown = true
		return
	}
	version, _ := doc.at("apiVersion").scalar.(string)
	if doc.child("apiVersion") == nil || !slices.Contains(k.apiVersions, version) {
		s.fail(doc.at("apiVersion"), "the apiVersion of %s must be %s", name, strings.Join(k.apiVersions, " or "))
	}
	// One Application may be the image's own; others have images of their own.
	if !k.many && (name != "Application" || doc.at("spec").text("image") == "") {
		if first := seen[name]; first != nil {
			s.fail(doc, "there is a second document of kind %s; the first is on line %d%s", name, first.line, secondHint(name))
			return
		}
		seen[name] = doc
	}
	s.check(doc, name, shapes)
	switch name {
	case "Cluster":
		s.cluster(f, doc)
	case "Config":
		s.config(f, doc)
	case "ClusterConfig":
		f.K0s, _ = doc.plain().(map[string]any)
		s.k0sClear(doc)
	case "Application":
		s.application(f, doc)
	case "Plugin":
		s.plugin(f, doc)
	case "K3s":
		f.K3s = s.k3s(doc, shapes)
	default:
		f.Kubeadm[name], _ = doc.plain().(map[string]any)
	}
}

func secondHint(kind string) string {
	if kind == "Application" {
		return ": only one may be without spec.image"
	}
	return ""
}
