// SPDX-License-Identifier: Apache-2.0

package kustomization

import (
	"bytes"
	"path"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// remote is what kustomize would fetch: a URL, or a repository as git has them,
// https://github.com/kubernetes-sigs/kustomize/blob/master/examples/remoteBuild.md.
var remote = regexp.MustCompile(`(?i)(://|^git@|^[a-z0-9.-]+@[a-z0-9.-]+:|^github\.com[/:]|^(www\.)?gitlab\.com/|\.git([/?]|$)|_git/|[?&](ref|version|timeout|submodules)=)`)

// local returns a kustomization without what kustomize would fetch or start,
// each of which is reported, and with the origin of every object.
func (f *files) local(name string, data []byte) ([]byte, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(bytes.TrimPrefix(data, []byte("\ufeff")), &doc); err != nil || len(doc.Content) != 1 || doc.Content[0].Kind != yaml.MappingNode {
		return data, nil // kustomize says what is wrong with it
	}
	root := doc.Content[0]
	var kept []*yaml.Node
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, value := root.Content[i], root.Content[i+1]
		switch key.Value {
		case "helmCharts", "helmChartInflationGenerator", "helmGlobals":
			f.problem(name, key.Line, key.Value+" is not rendered: put the chart into charts/, or write its images into imageList")
			continue
		case "resources", "bases", "components", "generators", "transformers", "validators", "crds", "configurations":
			f.entries(name, key.Value, value)
		case "buildMetadata":
			continue
		default:
			f.paths(name, key.Value, value)
		}
		kept = append(kept, key, value)
	}
	origins := &yaml.Node{Kind: yaml.SequenceNode, Content: []*yaml.Node{{Kind: yaml.ScalarNode, Value: "originAnnotations"}}}
	root.Content = append(kept, &yaml.Node{Kind: yaml.ScalarNode, Value: "buildMetadata"}, origins)
	return yaml.Marshal(&doc)
}

// entries takes out of a list what is not a file or folder here.
func (f *files) entries(name, key string, list *yaml.Node) {
	if list.Kind != yaml.SequenceNode {
		return
	}
	list.Content = slices.DeleteFunc(list.Content, func(entry *yaml.Node) bool {
		if entry.Kind != yaml.ScalarNode || strings.Contains(entry.Value, "\n") { // a transformer can be written here
			return false
		}
		switch {
		case remote.MatchString(entry.Value):
			f.problem(name, entry.Line, key+" names "+entry.Value+", which lies in a network and is not fetched: copy it into the context, or write its images into imageList")
		case !f.Exists(path.Join(path.Dir(name), entry.Value)):
			f.problem(name, entry.Line, key+" names "+entry.Value+", which is not there")
		default:
			return false
		}
		return true
	})
}

// paths takes remote paths out of patches, generators and all the rest.
func (f *files) paths(name, key string, node *yaml.Node) {
	switch node.Kind {
	case yaml.SequenceNode:
		if key == "files" || key == "envs" || key == "patchesStrategicMerge" {
			node.Content = slices.DeleteFunc(node.Content, func(one *yaml.Node) bool { return f.isRemote(name, one) })
		}
		for _, one := range node.Content {
			f.paths(name, key, one)
		}
	case yaml.MappingNode:
		var kept []*yaml.Node
		for i := 0; i+1 < len(node.Content); i += 2 {
			inner, value := node.Content[i], node.Content[i+1]
			if (inner.Value == "path" || inner.Value == "env") && f.isRemote(name, value) {
				continue
			}
			f.paths(name, inner.Value, value)
			kept = append(kept, inner, value)
		}
		node.Content = kept
	case yaml.DocumentNode, yaml.ScalarNode, yaml.AliasNode:
	}
}

// isRemote reports a path that kustomize's loader would fetch: those begin with
// http, also behind the key= of a generator.
func (f *files) isRemote(name string, node *yaml.Node) bool {
	if node.Kind != yaml.ScalarNode {
		return false
	}
	value := node.Value
	if _, file, ok := strings.Cut(value, "="); ok && !strings.HasPrefix(value, "http") {
		value = file
	}
	if !strings.HasPrefix(value, "http://") && !strings.HasPrefix(value, "https://") {
		return false
	}
	f.problem(name, node.Line, value+" lies in a network and is not fetched")
	return true
}
