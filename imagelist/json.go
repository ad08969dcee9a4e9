// SPDX-License-Identifier: Apache-2.0

package imagelist

import (
	"encoding/json"
	"errors"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxDepth bounds nested JSON; the YAML parser has the same bound.
const maxDepth = 10000

// parseJSON reads JSON values, one behind the other, as YAML nodes with their
// lines. JSON is nearly YAML, but not where it escapes characters beyond 16 bits.
func parseJSON(text string) ([]*yaml.Node, error) {
	r := &jsonReader{text: text, decoder: json.NewDecoder(strings.NewReader(text)), line: 1}
	r.decoder.UseNumber()
	var roots []*yaml.Node
	for {
		root, err := r.value(0)
		if errors.Is(err, io.EOF) {
			return roots, nil
		}
		if err != nil {
			return nil, err
		}
		roots = append(roots, root)
	}
}

type jsonReader struct {
	text    string
	decoder *json.Decoder
	offset  int // up to here lines are counted
	line    int
}

func (r *jsonReader) token() (json.Token, error) {
	token, err := r.decoder.Token()
	end := int(r.decoder.InputOffset())
	r.line += strings.Count(r.text[r.offset:end], "\n")
	r.offset = end
	return token, err
}

// value reads one value. io.EOF means that none is left; inside of a value it
// is io.ErrUnexpectedEOF.
func (r *jsonReader) value(depth int) (*yaml.Node, error) {
	token, err := r.token()
	if err != nil {
		if depth > 0 && errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	node := &yaml.Node{Kind: yaml.ScalarNode, Line: r.line}
	switch value := token.(type) {
	case json.Delim:
		return r.collection(node, value, depth)
	case string:
		node.Tag, node.Value = "!!str", value
	case json.Number:
		node.Tag, node.Value = "!!float", value.String()
	case bool:
		node.Tag = "!!bool"
	default:
		node.Tag = "!!null"
	}
	return node, nil
}

// collection reads an object or array; its keys and values alternate in
// Content as YAML's do.
func (r *jsonReader) collection(node *yaml.Node, open json.Delim, depth int) (*yaml.Node, error) {
	if depth >= maxDepth {
		return nil, errors.New("the JSON is nested too deep")
	}
	node.Kind = yaml.SequenceNode
	if open == '{' {
		node.Kind = yaml.MappingNode
	}
	for r.decoder.More() {
		child, err := r.value(depth + 1)
		if err != nil {
			return nil, err
		}
		node.Content = append(node.Content, child)
	}
	_, err := r.token()
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return node, err
}
