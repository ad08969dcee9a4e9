// SPDX-License-Identifier: Apache-2.0

// Package facts holds what is known of the command lines and images of k3s and k0s, as data. See the README for where
// it was read.
package facts

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/sealerio/sealer/test/components/programs/doubles/stamp"
)

//go:embed k3s.json
var k3sJSON []byte

//go:embed k0s.json
var k0sJSON []byte

//go:embed images.json
var imagesJSON []byte

// Flag of a command.
type Flag struct {
	Name     string   `json:"name"`
	Type     string   `json:"type"`
	Commands []string `json:"commands"`
	Aliases  []string `json:"aliases"`
	Short    string   `json:"short"`
	Env      string   `json:"env"`
	Since    string   `json:"since"`
	Default  string   `json:"default"`
	Hidden   bool     `json:"hidden"`
}

// K3s is what k3s takes.
type K3s struct {
	Flags         []Flag              `json:"flags"`
	Subcommands   map[string][]Flag   `json:"subcommands"`
	Services      []string            `json:"services"`
	Disable       []string            `json:"disable"`
	Critical      []string            `json:"critical"`
	RemovedValues map[string][]string `json:"removedValues"`
}

// K0s is what k0s takes.
type K0s struct {
	Commands   map[string]Command `json:"commands"`
	Components []string           `json:"components"`
}

// Command of k0s.
type Command struct {
	Aliases []string `json:"aliases"`
	Since   string   `json:"since"`
	Args    string   `json:"args"`
	Flags   []Flag   `json:"flags"`
}

// LoadK3s returns k3s' facts.
func LoadK3s() (K3s, error) {
	var k K3s
	if err := json.Unmarshal(k3sJSON, &k); err != nil {
		return k, fmt.Errorf("reading k3s' facts: %w", err)
	}
	return k, nil
}

// LoadK0s returns k0s' facts.
func LoadK0s() (K0s, error) {
	var k K0s
	if err := json.Unmarshal(k0sJSON, &k); err != nil {
		return k, fmt.Errorf("reading k0s' facts: %w", err)
	}
	return k, nil
}

// Of are the flags of a command of k3s in a version.
func (k K3s) Of(command string, s stamp.Stamp) []Flag {
	var out []Flag
	for _, f := range k.Flags {
		if slices.Contains(f.Commands, command) && s.AtLeast(f.Since) {
			out = append(out, f)
		}
	}
	return out
}

// Images are the distribution's own images in a version by the role that each has, with full names. A version that is
// not known has those of the newest one before it, with its own version where a tag follows it.
func Images(s stamp.Stamp) (map[string]string, error) {
	var all map[string]map[string]map[string]string
	if err := json.Unmarshal(imagesJSON, &all); err != nil {
		return nil, fmt.Errorf("reading the list of images: %w", err)
	}
	out := map[string]string{}
	for _, since := range slices.SortedFunc(maps.Keys(all[s.Program]), func(a, b string) int {
		return stamp.Compare(a, b)
	}) {
		if s.AtLeast(since) {
			maps.Copy(out, all[s.Program][since])
		}
	}
	for role, image := range out {
		out[role] = strings.ReplaceAll(image, "{version}", s.Kubernetes())
	}
	return out, nil
}
