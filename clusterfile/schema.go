// SPDX-License-Identifier: Apache-2.0

package clusterfile

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The shapes of all documents: type → field → what it holds, which is one of
// string, secret, int, number, bool, duration, port, any, texts (a text, or a list of them), the name of
// another type, "[]X" or "map:X"; "string=a|b" and "texts=a|b" are of these words only; "!why" is a field that
// is known and refused with the reason.
//
// kubeadm.json holds the fields of the Go types of kubeadm.k8s.io/v1beta4,
// kubelet.config.k8s.io/v1beta1 and kubeproxy.config.k8s.io/v1alpha1 in Kubernetes v1.36.3
// (k8s.io/kubernetes/cmd/kubeadm/app/apis, k8s.io/kubelet/config, k8s.io/kube-proxy/config), where those of
// 1.31 to 1.35 are contained.
//
// k0s.json holds those of k0s.k0sproject.io/v1beta1 in k0s v1.36.3+k0s.2; the kubelet's are kubeadm.json's.
//
// k3s.json holds the keys of k3s' config.yaml (docs.k3s.io/cli/server and /cli/agent), for v1.31 to v1.37.
//
//go:embed schema/sealer.json
var sealerSchema []byte

//go:embed schema/kubeadm.json
var kubeadmSchema []byte

//go:embed schema/k0s.json
var k0sSchema []byte

//go:embed schema/k3s.json
var k3sSchema []byte

type schema map[string]map[string]string

func loadSchema() (schema, error) {
	all := schema{}
	for _, src := range [][]byte{kubeadmSchema, sealerSchema, k0sSchema, k3sSchema} {
		if err := json.Unmarshal(src, &all); err != nil {
			return nil, fmt.Errorf("reading the schema of Clusterfiles: %w", err)
		}
	}
	return all, nil
}

// check compares a value with what its place holds, and notes every difference.
func (s *source) check(n *node, want string, shapes schema) {
	if n.kind == nullNode {
		return // as if it were not there
	}
	if elem, ok := strings.CutPrefix(want, "[]"); ok {
		if s.kindIs(n, listNode) {
			for _, v := range n.values {
				if v.kind == nullNode && elem != "any" {
					s.failShape(v, "the list has an entry with nothing in it")
				}
				s.check(v, elem, shapes)
				n.partial = n.partial || v.wrong
			}
		}
		return
	}
	if elem, ok := strings.CutPrefix(want, "map:"); ok {
		if s.kindIs(n, mappingNode) {
			for _, v := range n.values {
				s.check(v, elem, shapes)
				n.partial = n.partial || v.wrong
			}
		}
		return
	}
	if fields, ok := shapes[want]; ok {
		s.checkFields(n, want, fields, shapes)
		return
	}
	want, words, _ := strings.Cut(want, "=")
	if want == "texts" {
		if n.kind == listNode {
			for _, v := range n.values {
				s.checkText(v, words)
				n.partial = n.partial || v.wrong
			}
			return
		}
		want = "string"
	}
	if words != "" {
		s.checkText(n, words)
		return
	}
	if want != "any" && s.kindIs(n, scalarNode) {
		if why := wrongScalar(n.scalar, want); why != "" {
			s.failShape(n, "%s %s", show(n.scalar, want), why)
		}
	}
}

// checkText holds a text against the words that it may be, "a|b"; none: any text.
func (s *source) checkText(n *node, words string) {
	if !s.kindIs(n, scalarNode) {
		return
	}
	if why := wrongScalar(n.scalar, "string"); why != "" {
		s.failShape(n, "%s %s", show(n.scalar, "string"), why)
		return
	}
	text, _ := n.scalar.(string)
	if all := strings.Split(words, "|"); words != "" && !slices.Contains(all, text) {
		s.failShape(n, "%q is not one of %s%s", text, strings.Join(all, ", "), near(text, slices.Clone(all)))
	}
}

// required are the fields that a type must have, with something in them. Where the meaning of fields is read, that was told.
func required() map[string][]string {
	return map[string][]string{
		"Cluster": {"spec"}, "Application": {"spec"}, "Plugin": {"metadata", "spec"}, "Config": {"spec"},
		"ApplicationConfig": {"name"}, "ApplicationFile": {"path"}, "ConfigSpec": {"path"}, "PluginSpec": {"type", "data"},
		"HostAlias": {"ip", "hostnames"}, "HostGroup": {"ips", "roles"}, "Jump": {"host"}, "ExternalRegistry": {"domain"},
	}
}

// empty tells whether there is nothing to read.
func (n *node) empty() bool {
	return n == nil || n.kind == nullNode || n.kind == listNode && len(n.values) == 0 || n.kind == scalarNode && n.scalar == ""
}

func (s *source) checkFields(n *node, name string, fields map[string]string, shapes schema) {
	if !s.kindIs(n, mappingNode) {
		return
	}
	strange := false
	for i, key := range n.keys {
		want, known := fields[key]
		switch why, refused := strings.CutPrefix(want, "!"); {
		case !known:
			strange = true
			s.failShape(n.keyNodes[i], "unknown field %q of %s%s", key, name, near(key, supported(fields)))
		case refused:
			s.failShape(n.keyNodes[i], "the field %q of %s is not supported: %s", key, name, why)
		default:
			s.check(n.values[i], want, shapes)
		}
		n.partial = n.partial || n.keyNodes[i].wrong || n.values[i].wrong
	}
	for _, key := range required()[name] {
		if !strange && n.child(key).empty() { // or else that is its name, most likely
			s.failAt(n.at(key).line, n.at(key).column, fmt.Errorf("the field %q of %s is missing", key, name))
		}
	}
}

func supported(fields map[string]string) []string {
	return slices.DeleteFunc(slices.Collect(maps.Keys(fields)), func(f string) bool { return strings.HasPrefix(fields[f], "!") })
}

func (s *source) kindIs(n *node, want nodeKind) bool {
	if n.kind != want {
		hint := ""
		if want == scalarNode && len(n.keys) == 1 && strings.Trim(strings.ToLower(n.keys[0]), "0123456789abcdef") == "" {
			hint = ": an IPv6 address between brackets goes in quotes"
		}
		s.failShape(n, "this must be %s, not %s%s", want, n.kind, hint)
	}
	return n.kind == want
}

func show(v any, want string) string {
	if want == "secret" {
		return "the value"
	}
	if text, ok := v.(string); ok {
		return strconv.Quote(text)
	}
	return fmt.Sprint(v)
}

// wrongScalar says why v does not fit, or nothing.
func wrongScalar(v any, want string) string {
	switch want {
	case "string", "secret":
		if _, ok := v.(string); !ok {
			return "must be a text: put it in quotes"
		}
	case "bool":
		if _, ok := v.(bool); !ok {
			return "must be true or false"
		}
	case "int":
		if _, ok := v.(int64); !ok {
			return "must be a whole number"
		}
	case "number":
		switch v.(type) {
		case int64, float64:
		default:
			return "must be a number"
		}
	case "duration":
		text, ok := v.(string)
		if _, err := time.ParseDuration(text); !ok || err != nil {
			return "must be a duration such as 4m0s"
		}
	case "port":
		if _, ok := port(v); !ok {
			return "must be a port between 1 and 65535"
		}
	}
	return ""
}

// port reads 22 and "22": sealer's Clusterfiles have it as a text.
func port(v any) (int, bool) {
	n := int64(0)
	switch v := v.(type) {
	case int64:
		n = v
	case string:
		var err error
		if n, err = strconv.ParseInt(v, 10, 32); err != nil {
			return 0, false
		}
	}
	return int(n), n >= 1 && n <= 65535
}
