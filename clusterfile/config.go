// SPDX-License-Identifier: Apache-2.0

package clusterfile

import (
	"path"
	"slices"
	"strings"
)

// Config is a file put into the rootfs before it is used.
type Config struct {
	Name     string
	Path     string // relative to the rootfs, slash-separated, within it
	App      string // the application in whose folder the path begins; it is a part of Path already
	Data     string
	Strategy Strategy
	// Process are changes to Data, done in order before it is placed.
	Process []Process
}

// Strategy is what becomes of a file that the image has already.
type Strategy string

// The strategies. Overwrite is meant where none is given.
const (
	Overwrite Strategy = "overwrite"
	Merge     Strategy = "merge" // YAML and JSON: mappings field by field
)

func strategies() []string { return []string{string(Overwrite), string(Merge)} }

// Process is a change to a Config's data, which must be a YAML mapping for it.
type Process string

// The changes, by sealer's names.
const (
	Value    Process = "value"    // none
	ToJSON   Process = "toJson"   // values that are mappings or lists become JSON texts
	ToBase64 Process = "toBase64" // values become base64
	ToSecret Process = "toSecret" // the mapping becomes the data of a Secret; values that are not base64 yet are encoded
)

func processes() []string {
	return []string{string(Value), string(ToJSON), string(ToBase64), string(ToSecret)}
}

func (s *source) config(f *File, doc *node) {
	spec := doc.at("spec")
	c := Config{
		Name: doc.text("metadata", "name"), App: spec.text("appName"),
		Data: spec.text("data"), Strategy: Strategy(spec.text("strategy")),
	}
	if strings.ContainsAny(c.App, "/ ") {
		s.fail(spec.at("appName"), "%q is not the name of an application", c.App)
	}
	for word := range strings.SplitSeq(spec.text("process"), "|") {
		p := Process(strings.TrimSpace(word))
		switch {
		case p == "" || p == Value:
		case !slices.Contains(processes(), string(p)):
			s.fail(spec.at("process"), "unknown process %q%s", p, near(string(p), processes()))
		default:
			c.Process = append(c.Process, p)
		}
	}
	if c.Name == "" && c.Strategy != Merge && slices.Contains(c.Process, ToSecret) {
		s.fail(doc.at("metadata"), "the Secret that toSecret makes has the name of the Config: give it a metadata.name")
	}
	s.place(f, spec, c)
}

// place checks where a file goes to, and how.
func (s *source) place(f *File, spec *node, c Config) {
	said := spec.text("path")
	clean := path.Clean("/" + said)
	if said != "" && (strings.TrimPrefix(clean, "/") != strings.TrimPrefix(strings.TrimSuffix(said, "/"), "./") || clean == "/") {
		s.fail(spec.at("path"), "the path %q must be relative to the rootfs, without ..", said)
	}
	c.Path = strings.TrimPrefix(clean, "/")
	if c.App != "" {
		c.Path = applicationDir(c.App) + c.Path
	}
	if c.Strategy == "" {
		c.Strategy = Overwrite
	} else if !slices.Contains(strategies(), string(c.Strategy)) {
		s.fail(spec.at("strategy"), "unknown strategy %q%s", c.Strategy, near(string(c.Strategy), strategies()))
	}
	if c.Strategy == Merge && said != "" && !isData(strings.TrimSuffix(c.Path, ".tmpl")) {
		s.fail(spec.at("path"), "only YAML and JSON files can be merged, by their names .yaml, .yml or .json")
	}
	if _, err := c.process(); err != nil {
		s.fail(spec.at("data"), "%w", err)
	} else if c.Strategy == Merge {
		if _, err := c.Content(nil); err != nil {
			s.fail(spec.at("data"), "%w", err)
		}
	}
	f.Configs = append(f.Configs, c)
}

func isData(name string) bool {
	return slices.Contains([]string{".yaml", ".yml", ".json"}, path.Ext(name))
}
