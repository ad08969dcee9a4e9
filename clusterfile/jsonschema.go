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
			defs[name] = fieldsSchema(name, fields, shapes)
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
	s := fieldsSchema(name, fields, shapes)
	properties, _ := s["properties"].(map[string]any)
	properties["kind"] = map[string]any{"const": name}
	properties["apiVersion"] = map[string]any{"enum": k.apiVersions}
	s["required"] = append([]string{"apiVersion", "kind"}, required()[name]...)
	if name == "Application" { // one with an image of its own is called by its name
		s["if"] = having("spec", having("image", map[string]any{"type": "string", "minLength": 1}))
		s["then"] = having("metadata", having("name", pattern(applicationRule.String())))
	}
	return s
}

func fieldsSchema(name string, fields map[string]string, shapes schema) map[string]any {
	properties := map[string]any{}
	for _, field := range supported(fields) {
		value, limited := limits()[name][field]
		if !limited {
			value = valueSchema(fields[field], shapes)
		}
		if !slices.Contains(required()[name], field) { // one without a value is as if it were not there
			nothing := map[string]any{"type": "null"}
			if limited && fields[field] == "string" {
				nothing = map[string]any{"enum": []any{nil, ""}}
			}
			properties[field] = map[string]any{"anyOf": []any{value, nothing}}
			continue
		}
		switch value["type"] {
		case "string":
			value["minLength"] = 1
		case "array":
			value["minItems"] = 1
		}
		properties[field] = value
	}
	s := map[string]any{"type": "object", "properties": properties, "additionalProperties": false}
	if must := required()[name]; len(must) > 0 {
		s["required"] = must
	}
	if name == "PluginSpec" {
		s["if"] = having("type", map[string]any{"const": string(Shell)})
		s["then"] = having("action", map[string]any{"type": "string", "minLength": 1})
	}
	return s
}

// limits are what fields hold that have shapes of more than they may: the words that the loader knows, and its rules.
func limits() map[string]map[string]map[string]any {
	environment := listOf(pattern(strings.TrimSuffix(envRule.String(), "$") + "="))
	role := map[string]any{"anyOf": []any{enum(slices.Sorted(maps.Keys(roleWords()))), pattern(nameRule.String())}}
	roles := listOf(role)
	roles["contains"] = enum(slices.Sorted(maps.Keys(roleWords())))
	return map[string]map[string]map[string]any{
		"Cluster":           {"metadata": {"allOf": []any{ref("Metadata"), map[string]any{"properties": map[string]any{"name": map[string]any{"pattern": "^$|" + nameRule.String()}}}}}},
		"ClusterSpec":       {"env": environment},
		"HostGroup":         {"env": environment, "roles": roles, "taints": listOf(pattern("^[^:=]+(=[^:]*)?:(" + strings.Join(taintEffects(), "|") + ")-?$"))},
		"ContainerRuntime":  {"type": enum(containerRuntimes())},
		"LocalRegistry":     {"ha": {"const": true}},
		"ApplicationSpec":   {"env": environment},
		"ApplicationConfig": {"env": environment},
		"ApplicationFile":   {"strategy": enum(strategies())},
		"ConfigSpec":        {"strategy": enum(strategies()), "process": several(processes(), "|")},
		"Plugin":            {"metadata": {"allOf": []any{ref("Metadata"), having("name", pattern("^[^/ \n]+$"))}}},
		"PluginSpec":        {"type": enum(pluginTypes()), "action": several(phases(), wordBreaks), "scope": several(scopes(), wordBreaks)},
	}
}

// having is a mapping that has a field.
func having(field string, value map[string]any) map[string]any {
	return map[string]any{"required": []string{field}, "properties": map[string]any{field: value}}
}

func pattern(p string) map[string]any { return map[string]any{"type": "string", "pattern": p} }

func enum(words []string) map[string]any { return map[string]any{"type": "string", "enum": words} }

func listOf(items map[string]any) map[string]any {
	return map[string]any{"type": "array", "items": items}
}

// several is a text of one of the words, which editors offer, or of more of them with any of breaks between.
func several(words []string, breaks string) map[string]any {
	one := "(" + strings.Join(words, "|") + ")"
	return map[string]any{"anyOf": []any{enum(words), pattern("^[ " + breaks + "]*(" + one + "( *[" + breaks + "][ " + breaks + "]*|$))*$")}}
}

func valueSchema(want string, shapes schema) map[string]any {
	if elem, ok := strings.CutPrefix(want, "[]"); ok {
		return map[string]any{"type": "array", "items": valueSchema(elem, shapes)}
	}
	if elem, ok := strings.CutPrefix(want, "map:"); ok {
		return map[string]any{"type": "object", "additionalProperties": map[string]any{"anyOf": []any{valueSchema(elem, shapes), map[string]any{"type": "null"}}}}
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
		return map[string]any{"type": "string", "pattern": `^[-+]?(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+$|^[-+]?0$`}
	case "port":
		return map[string]any{"oneOf": []any{
			map[string]any{"type": "integer", "minimum": 1, "maximum": 65535},
			pattern("^[+]?0*([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])$"),
		}}
	}
	return map[string]any{}
}
