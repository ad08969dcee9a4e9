// SPDX-License-Identifier: Apache-2.0

package clusterfile_test

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/sealerio/sealer/clusterfile"
)

// The schema takes every document of a good Clusterfile, and none of those whose shape is wrong.
func TestJSONSchema(t *testing.T) {
	s, _ := schemaOf(t)
	for _, file := range []string{"full", "whole", "k3s"} {
		for _, d := range documentsOf(t, "testdata/good/"+file+".yaml") {
			require.NoError(t, s.Validate(d))
		}
	}
	for _, d := range documentsOf(t, "testdata/wrong/many.yaml") {
		require.Error(t, s.Validate(d), d)
	}
}

// The words of the schema are those that Parse takes, and no others.
func TestJSONSchema_Words(t *testing.T) {
	_, doc := schemaOf(t)
	for name, c := range map[string]struct {
		at, document string // the document with the word in the place of %s
		want         []string
	}{
		"type of a plugin": {"PluginSpec type", "apiVersion: sealer.io/v1\nkind: Plugin\nmetadata: {name: p}\nspec: {type: %s, data: '#', action: ''}", []string{"SHELL", "HOSTNAME", "LABEL", "TAINT"}},
		"phase": {
			"PluginSpec action", "apiVersion: sealer.io/v1\nkind: Plugin\nmetadata: {name: p}\nspec: {type: SHELL, data: x, action: %s}",
			[]string{
				"pre-install", "post-install", "pre-uninstall", "post-uninstall", "pre-scaleup", "post-scaleup", "upgrade", "rollback",
				"pre-init-host", "post-init-host", "pre-clean-host", "post-clean-host", "upgrade-host",
			},
		},
		"scope": {
			"PluginSpec scope", "apiVersion: sealer.io/v1\nkind: Plugin\nmetadata: {name: p}\nspec: {type: SHELL, data: x, action: upgrade, scope: %s}",
			[]string{"cluster", "control-plane", "master", "node", "worker"},
		},
		"strategy":            {"ConfigSpec strategy", "apiVersion: sealer.io/v1\nkind: Config\nmetadata: {name: c}\nspec: {path: a.yaml, data: 'a: b', strategy: %s}", []string{"overwrite", "merge"}},
		"process":             {"ConfigSpec process", "apiVersion: sealer.io/v1\nkind: Config\nmetadata: {name: c}\nspec: {path: a.yaml, data: 'a: b', process: %s}", []string{"value", "toJson", "toBase64", "toSecret"}},
		"application's files": {"ApplicationFile strategy", "apiVersion: sealer.io/v2\nkind: Application\nspec: {configs: [{name: a, files: [{path: a.yaml, data: 'a: b', strategy: %s}]}]}", []string{"overwrite", "merge"}},
		"container runtime":   {"ContainerRuntime type", "apiVersion: sealer.io/v2\nkind: Cluster\nspec: {containerRuntime: {type: %s}}", []string{"containerd"}},
	} {
		t.Run(name, func(t *testing.T) {
			words := wordsAt(t, doc, c.at)
			require.ElementsMatch(t, c.want, words)
			for _, word := range append(words, "x") {
				_, err := clusterfile.ParsePart("f", fmt.Appendf(nil, c.document, word))
				switch word {
				case "SHELL":
					require.ErrorContains(t, err, "no action", "nothing else is wrong")
				case "x":
					require.Error(t, err)
				default:
					require.NoError(t, err)
				}
			}
		})
	}
}

// What the schema refuses, Parse refuses as well; what Parse misses, so does the schema.
func TestJSONSchema_Strict(t *testing.T) {
	s, _ := schemaOf(t)
	refused, missed := 0, 0
	for _, file := range []string{"full", "k3s"} {
		for _, d := range documentsOf(t, "testdata/good/"+file+".yaml") {
			for _, changed := range variants(d) {
				if changed == nil {
					continue // no document
				}
				text, err := yaml.Marshal(changed)
				require.NoError(t, err)
				wrong := s.Validate(changed)
				_, err = clusterfile.ParsePart("f", text)
				if wrong != nil {
					require.Error(t, err, "%s\n%v", text, wrong)
					refused++
				}
				if err != nil && strings.Contains(err.Error(), "is missing") {
					require.Error(t, wrong, "%s\n%v", text, err)
					missed++
				}
			}
		}
	}
	require.Greater(t, refused, 100)
	require.Greater(t, missed, 20)
}

// variants are a value with one thing in it taken away, emptied, or another one, each time another.
func variants(v any) []any {
	var all []any
	switch v := v.(type) {
	case map[string]any:
		for key, inner := range v {
			without := maps.Clone(v)
			delete(without, key)
			all = append(all, without)
			for _, other := range variants(inner) {
				changed := maps.Clone(v)
				changed[key] = other
				all = append(all, changed)
			}
		}
	case []any:
		all = append(all, []any{})
		for i, inner := range v {
			for _, other := range variants(inner) {
				changed := slices.Clone(v)
				changed[i] = other
				all = append(all, changed)
			}
		}
	case string:
		all = append(all, "", v+"x", v+"|", " "+v, "="+v)
	}
	return append(all, nil, 5)
}

func schemaOf(t *testing.T) (*jsonschema.Schema, map[string]any) {
	t.Helper()
	src, err := clusterfile.JSONSchema()
	require.NoError(t, err)
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(src))
	require.NoError(t, err)
	c := jsonschema.NewCompiler()
	require.NoError(t, c.AddResource("clusterfile.json", doc))
	s, err := c.Compile("clusterfile.json")
	require.NoError(t, err)
	return s, doc.(map[string]any)
}

// wordsAt are the first ones that a field of a type is an enumeration of, however deep that is.
func wordsAt(t *testing.T, doc map[string]any, at string) []string {
	t.Helper()
	name, field, _ := strings.Cut(at, " ")
	v := doc["$defs"].(map[string]any)[name].(map[string]any)["properties"].(map[string]any)[field]
	for {
		m := v.(map[string]any)
		if list, ok := m["enum"].([]any); ok {
			words := make([]string, len(list))
			for i, w := range list {
				words[i] = w.(string)
			}
			return words
		}
		inner, ok := m["anyOf"].([]any)
		require.True(t, ok, "%s is no enumeration: %v", at, m)
		v = inner[0]
	}
}

func documentsOf(t *testing.T, file string) []map[string]any {
	t.Helper()
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	var docs []map[string]any
	for part := range bytes.SplitSeq(data, []byte("\n---\n")) {
		var d map[string]any
		require.NoError(t, yaml.Unmarshal(part, &d))
		docs = append(docs, d)
	}
	return docs
}
