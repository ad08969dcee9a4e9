// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"

	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/runtime"
)

// definitionFile is what the cluster was made from, kept on its control planes for root alone: hosts that join it later, from
// whichever machine, become like the others. It holds what hosts hold anyway, and no password of SSH.
const definitionFile = runtime.StateDir + "/definition.json"

// definition is the content of definitionFile.
type definition struct {
	SchemaVersion string            `json:"schemaVersion"`
	File          *clusterfile.File `json:"file"`
	// K3s has File.K3s with its types, which JSON does not keep.
	K3sServer map[string]typed `json:"k3sServer,omitempty"`
	K3sAgent  map[string]typed `json:"k3sAgent,omitempty"`
	// Registry has the secrets of File.Registry, which JSON does not keep either.
	Registry registrySecrets `json:"registry,omitzero"`
}

// registrySecrets are what control planes have anyway: the registry's login stands in their container runtime's files.
type registrySecrets struct {
	Password string `json:"password,omitempty"`
	CAKey    string `json:"caKey,omitempty"`
	External string `json:"external,omitempty"`
}

// typed is a value of a document of kind K3s.
type typed struct {
	Text   *string  `json:"text,omitempty"`
	Secret *string  `json:"secret,omitempty"`
	Number *int64   `json:"number,omitempty"`
	Truth  *bool    `json:"truth,omitempty"`
	List   []string `json:"list,omitempty"`
}

func typedOf(values map[string]any) map[string]typed {
	out := map[string]typed{}
	for k, v := range values {
		switch v := v.(type) {
		case string:
			out[k] = typed{Text: &v}
		case clusterfile.Secret:
			text := v.Reveal()
			out[k] = typed{Secret: &text}
		case int64:
			out[k] = typed{Number: &v}
		case bool:
			out[k] = typed{Truth: &v}
		case []string:
			out[k] = typed{List: v}
		}
	}
	return out
}

func untyped(values map[string]typed) map[string]any {
	out := map[string]any{}
	for k, v := range values {
		switch {
		case v.Text != nil:
			out[k] = *v.Text
		case v.Secret != nil:
			out[k] = clusterfile.Secret(*v.Secret)
		case v.Number != nil:
			out[k] = *v.Number
		case v.Truth != nil:
			out[k] = *v.Truth
		default:
			out[k] = v.List
		}
	}
	return out
}

func marshalDefinition(f *clusterfile.File) ([]byte, error) {
	file := *f
	file.ClearText = nil
	file.ApplicationImages = nil // the cluster itself keeps which of them it has
	file.Hosts = slices.Clone(f.Hosts)
	for i := range file.Hosts {
		file.Hosts[i].SSH = clusterfile.SSH{}
	}
	d := definition{SchemaVersion: runtime.StateVersion, File: &file}
	if f.K3s != nil {
		d.K3sServer, d.K3sAgent = typedOf(f.K3s.Server), typedOf(f.K3s.Agent)
	}
	d.Registry = registrySecrets{Password: f.Registry.Password.Reveal(), CAKey: f.Registry.CAKey.Reveal()}
	if e := f.Registry.External; e != nil {
		d.Registry.External = e.Password.Reveal()
	}
	data, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("writing the cluster's definition: %w", err)
	}
	return append(data, '\n'), nil
}

func parseDefinition(data []byte) (*clusterfile.File, error) {
	var d definition
	in := json.NewDecoder(bytes.NewReader(data))
	in.UseNumber()
	if err := in.Decode(&d); err != nil {
		return nil, fmt.Errorf("reading the cluster's definition: %w", err)
	}
	if d.SchemaVersion != runtime.StateVersion || d.File == nil {
		return nil, fmt.Errorf("reading the cluster's definition: its version is %q, this sealer reads %q", d.SchemaVersion, runtime.StateVersion)
	}
	f := d.File
	for i := range f.Hosts {
		f.Hosts[i].SSH = clusterfile.SSH{}
	}
	f.Registry.Password, f.Registry.CAKey = clusterfile.Secret(d.Registry.Password), clusterfile.Secret(d.Registry.CAKey)
	if e := f.Registry.External; e != nil {
		e.Password = clusterfile.Secret(d.Registry.External)
	}
	for _, doc := range f.Kubeadm {
		numbers(doc)
	}
	numbers(f.K0s)
	if f.K3s != nil {
		f.K3s.Server, f.K3s.Agent = untyped(d.K3sServer), untyped(d.K3sAgent)
	}
	return f, nil
}

// numbers makes of JSON's numbers what the Clusterfile's reader makes of them: int64, or else float64.
func numbers(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			v[k] = numbers(e)
		}
	case []any:
		for i, e := range v {
			v[i] = numbers(e)
		}
	case json.Number:
		if n, err := strconv.ParseInt(v.String(), 10, 64); err == nil {
			return n
		}
		n, _ := v.Float64() // JSON's own grammar has seen to it
		return n
	}
	return v
}

// define keeps the definition on a control plane.
func define(c *runtime.Cluster, h *runtime.Host) []runtime.Step {
	if h.Spec.Role != clusterfile.ControlPlane {
		return nil
	}
	data, err := marshalDefinition(c.File)
	// Keys can be read by all on the host: none is made from a password.
	key, keyErr := marshalDefinition(c.File.Public())
	err = errors.Join(err, keyErr)
	sum := sha256.Sum256(key)
	return []runtime.Step{{
		Name: "keeping the cluster's definition",
		Key:  hex.EncodeToString(sum[:16]),
		Done: func(ctx context.Context) (bool, error) { return runtime.SameFile(ctx, h.Runner, definitionFile, data) },
		Do: func(ctx context.Context, _ io.Writer) error {
			if err != nil {
				return err
			}
			return host.WriteFile(ctx, h.Runner, definitionFile, data, 0o600)
		},
	}}
}

// readDefinition is what a control plane has of the cluster; nil where an earlier sealer has kept nothing.
func readDefinition(ctx context.Context, h *runtime.Host) (*clusterfile.File, error) {
	data, err := host.ReadFile(ctx, h.Runner, definitionFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	f, err := parseDefinition(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", h, err)
	}
	return f, nil
}
