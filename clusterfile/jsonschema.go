// SPDX-License-Identifier: Apache-2.0

package clusterfile

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// JSONSchema is the schema of one document of a Clusterfile, of any kind, for editors and other programs
// (JSON Schema draft 2020-12). Parse checks more: what words mean, and how documents fit together.
func JSONSchema() ([]byte, error) {
	shapes, err := loadSchema()
	if err != nil {
		return nil, err
	}
	kinds := allKinds()
	defs := map[string]any{}
	for name, fields := range shapes {
		if k, isKind := kinds[name]; isKind {
			defs[name] = documentSchema(name, k, fields, shapes)
		} else {
			defs[name] = fieldsSchema(fields, shapes)
		}
	}
	var documents []any
	for _, name := range slices.Sorted(maps.Keys(kinds)) {
		documents = append(documents, ref(name))
	}
	out, err := json.MarshalIndent(map[string]any{
		"$schema":     "https://json-schema.org/draft/2020-12/schema",
		"title":       "Clusterfile",
		"description": "One document of a sealer Clusterfile",
		"oneOf":       documents,
		"$defs":       defs,
	}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("writing the schema of Clusterfiles: %w", err)
	}
	return append(out, '\n'), nil
}

func ref(name string) map[string]any { return map[string]any{"$ref": "#/$defs/" + name} }

func documentSchema(name string, k kind, fields map[string]string, shapes schema) map[string]any {
	s := fieldsSchema(fields, shapes)
	properties, _ := s["properties"].(map[string]any)
	properties["kind"] = map[string]any{"const": name}
	properties["apiVersion"] = map[string]any{"enum": k.apiVersions}
	s["required"] = []string{"apiVersion", "kind"}
	return s
}

func fieldsSchema(fields map[string]string, shapes schema) map[string]any {
	properties := map[string]any{}
	for _, name := range supported(fields) {
		// A field without a value is as if it were not there.
		properties[name] = map[string]any{"anyOf": []any{valueSchema(fields[name], shapes), map[string]any{"type": "null"}}}
	}
	return map[string]any{"type": "object", "properties": properties, "additionalProperties": false}
}

func valueSchema(want string, shapes schema) map[string]any {
	if elem, ok := strings.CutPrefix(want, "[]"); ok {
		return map[string]any{"type": "array", "items": valueSchema(elem, shapes)}
	}
	if elem, ok := strings.CutPrefix(want, "map:"); ok {
		return map[string]any{"type": "object", "additionalProperties": valueSchema(elem, shapes)}
	}
	if _, ok := shapes[want]; ok {
		return ref(want)
	}
	want, words, limited := strings.Cut(want, "=")
	word := map[string]any{"type": "string"}
	if limited {
		word["enum"] = strings.Split(words, "|")
	}
	switch want {
	case "texts": // one, or several
		return map[string]any{"oneOf": []any{word, map[string]any{"type": "array", "items": word}}}
	case "string":
		return word
	case "secret":
		return map[string]any{"type": "string", "description": "the secret, or env:NAME, file:PATH or prompt"}
	case "int":
		return map[string]any{"type": "integer"}
	case "number":
		return map[string]any{"type": "number"}
	case "bool":
		return map[string]any{"type": "boolean"}
	case "duration":
		return map[string]any{"type": "string", "pattern": `^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$|^0$`}
	case "port":
		return map[string]any{"oneOf": []any{
			map[string]any{"type": "integer", "minimum": 1, "maximum": 65535},
			map[string]any{"type": "string", "pattern": "^[0-9]{1,5}$"},
		}}
	}
	return map[string]any{}
}
