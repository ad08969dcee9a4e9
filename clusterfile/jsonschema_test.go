// SPDX-License-Identifier: Apache-2.0

package clusterfile_test

import (
	"bytes"
	"os"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/sealerio/sealer/clusterfile"
)

// The schema takes every document of a good Clusterfile, and none of those whose shape is wrong.
func TestJSONSchema(t *testing.T) {
	src, err := clusterfile.JSONSchema()
	require.NoError(t, err)
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(src))
	require.NoError(t, err)
	c := jsonschema.NewCompiler()
	require.NoError(t, c.AddResource("clusterfile.json", doc))
	s, err := c.Compile("clusterfile.json")
	require.NoError(t, err)

	for _, file := range []string{"full", "whole", "k3s"} {
		for _, d := range documentsOf(t, "testdata/good/"+file+".yaml") {
			require.NoError(t, s.Validate(d))
		}
	}
	for _, d := range documentsOf(t, "testdata/wrong/many.yaml") {
		if d["kind"] == "Plugin" { // its shape is good
			require.NoError(t, s.Validate(d))
			continue
		}
		require.Error(t, s.Validate(d), d)
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
