// SPDX-License-Identifier: Apache-2.0

package clusterfile

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

type document = map[string]any

// Content is what the file holds once the Config is applied. original is what the image has there, nil where it has
// nothing; it matters to Merge alone.
//
// Merging lays mappings over mappings field by field, and takes everything else whole. A document of the Config that
// has a kind goes over those of the file that have the same kind, and the same name where it gives one; one
// without a kind goes over every document of the file.
func (c Config) Content(original []byte) ([]byte, error) {
	data, err := c.process()
	if err != nil || c.Strategy != Merge {
		return data, err
	}
	over, err := documents(data)
	if err != nil {
		return nil, fmt.Errorf("reading the data of the Config %q: %w", c.Name, err)
	}
	if len(bytes.TrimSpace(original)) == 0 {
		return data, nil
	}
	base, err := documents(original)
	if err != nil {
		return nil, fmt.Errorf("merging the Config %q into %q: reading the image's file: %w", c.Name, c.Path, err)
	}
	for _, o := range over {
		found := false
		for i, b := range base {
			if matches(b, o) {
				base[i], found = overlay(b, o), true
			}
		}
		if !found {
			return nil, &NoDocumentError{Config: c.Name, Path: c.Path, Kind: text(o["kind"]), Name: objectName(o), Have: titles(base)}
		}
	}
	return write(base, strings.HasSuffix(strings.TrimSuffix(c.Path, ".tmpl"), ".json"))
}

// NoDocumentError is a document to be merged into a file that has none of its kind and name.
type NoDocumentError struct {
	Config, Path, Kind, Name string
	Have                     []string
}

func (e *NoDocumentError) Error() string {
	what := e.Kind
	if e.Name != "" {
		what += " " + e.Name
	}
	return fmt.Sprintf("merging the Config %q into %q: the file has no %s; it has %s", e.Config, e.Path, what, strings.Join(e.Have, ", "))
}

// Hint says how documents are matched.
func (e *NoDocumentError) Hint() string {
	return "name the kind and metadata.name of a document of that file, or leave both out to change every one"
}

// process is the data after all changes.
func (c Config) process() ([]byte, error) {
	if len(c.Process) == 0 {
		return []byte(c.Data), nil
	}
	docs, err := documents([]byte(c.Data))
	if err != nil {
		return nil, fmt.Errorf("processing the data of the Config %q: %w", c.Name, err)
	}
	if len(docs) != 1 {
		return nil, fmt.Errorf("processing the data of the Config %q: it must be one YAML mapping", c.Name)
	}
	values, encoded := docs[0], false
	for _, p := range c.Process {
		switch p {
		case ToJSON:
			values, err = each(values, toJSON)
		case ToBase64:
			values, err = each(values, toBase64)
			encoded = true
		case ToSecret:
			if !encoded {
				values, err = each(values, toBase64)
			}
			values = document{"apiVersion": "v1", "kind": "Secret", "metadata": document{"name": c.Name}, "type": "Opaque", "data": values}
			if c.Strategy == Merge { // into the Secret that the file has, whatever it is called
				values = document{"data": values["data"]}
			}
		}
		if err != nil {
			return nil, fmt.Errorf("processing the data of the Config %q with %s: %w", c.Name, p, err)
		}
	}
	return write([]document{values}, false)
}

func each(values document, change func(any) (string, error)) (document, error) {
	out := document{}
	for _, key := range slices.Sorted(maps.Keys(values)) {
		text, err := change(values[key])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
		out[key] = text
	}
	return out, nil
}

func toJSON(v any) (string, error) {
	if s, ok := v.(string); ok {
		return s, nil
	}
	data, err := json.Marshal(v)
	return string(data), err
}

func toBase64(v any) (string, error) {
	switch v.(type) {
	case document, []any:
		return "", errors.New("it is no single value: put toJson before")
	case nil:
		return "", nil
	}
	return base64.StdEncoding.EncodeToString(fmt.Append(nil, v)), nil
}

// documents are the mappings of a YAML or JSON text.
func documents(data []byte) ([]document, error) {
	var docs []document
	d := yaml.NewDecoder(bytes.NewReader(data))
	for {
		var doc any
		err := d.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return docs, nil
		}
		if err != nil {
			return nil, err
		}
		switch doc := doc.(type) {
		case nil:
		case document:
			docs = append(docs, doc)
		default:
			return nil, errors.New("a document is no mapping")
		}
	}
}

func write(docs []document, asJSON bool) ([]byte, error) {
	var out bytes.Buffer
	if asJSON {
		if len(docs) != 1 {
			return nil, errors.New("a JSON file holds one document")
		}
		e := json.NewEncoder(&out)
		e.SetIndent("", "  ")
		err := e.Encode(docs[0])
		return out.Bytes(), err
	}
	e := yaml.NewEncoder(&out)
	e.SetIndent(2)
	for _, doc := range docs {
		if err := e.Encode(doc); err != nil {
			return nil, err
		}
	}
	err := e.Close()
	return out.Bytes(), err
}

// matches tells whether over is about base.
func matches(base, over document) bool {
	kind, name := text(over["kind"]), objectName(over)
	return (kind == "" || kind == text(base["kind"])) && (name == "" || kind == "" || name == objectName(base))
}

func text(v any) string {
	s, _ := v.(string)
	return s
}

func objectName(d document) string {
	meta, _ := d["metadata"].(document)
	return text(meta["name"])
}

func titles(docs []document) []string {
	list := make([]string, len(docs))
	for i, d := range docs {
		list[i] = strings.TrimSpace(text(d["kind"]) + " " + objectName(d))
		if list[i] == "" {
			list[i] = "a document without a kind"
		}
	}
	return list
}

// overlay lays over upon base: mappings field by field, all else whole; null takes a field away. Neither is changed.
func overlay(base, over document) document {
	out := maps.Clone(base)
	if out == nil {
		out = document{}
	}
	for k, v := range over {
		if v == nil {
			delete(out, k)
			continue
		}
		a, isMapping := out[k].(document)
		b, overMapping := v.(document)
		if isMapping && overMapping {
			out[k] = overlay(a, b)
			continue
		}
		out[k] = v
	}
	return out
}
