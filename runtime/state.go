// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"

	"github.com/sealerio/sealer/host"
)

// StateDir is where sealer keeps what it must know of a host.
const StateDir = "/etc/sealer"

// StateFile is sealer's marker on a host: whose it is, and which steps are done. It holds no secret.
const StateFile = StateDir + "/state.json"

// StateVersion is the version of HostState that this package writes, and the only one it reads.
const StateVersion = "v1"

// HostState is the content of StateFile.
type HostState struct {
	SchemaVersion string `json:"schemaVersion"`
	Cluster       string `json:"cluster"`
	ClusterID     string `json:"clusterID"`
	Role          string `json:"role"`
	Address       string `json:"address,omitempty"`       // by which the node is known
	SecondAddress string `json:"secondAddress,omitempty"` // of the other family, where it has one
	Image         string `json:"image"`
	ImageDigest   string `json:"imageDigest"`
	Runtime       string `json:"runtime"`
	KubeVersion   string `json:"kubeVersion"`
	Complete      bool   `json:"complete"`
	// PreviousImage and PreviousDigest are of what is being upgraded from, until all of it is done.
	PreviousImage  string            `json:"previousImage,omitempty"`
	PreviousDigest string            `json:"previousDigest,omitempty"`
	Steps          map[string]string `json:"steps,omitempty"` // name → Key
}

// WasComplete says whether an installation has come to its end here once, so that the host has what cannot be made
// again. s may be nil.
func (s *HostState) WasComplete() bool {
	return s != nil && (s.Complete || s.PreviousDigest != "")
}

// Clone is a copy whose Steps may be changed.
func (s HostState) Clone() HostState {
	s.Steps = maps.Clone(s.Steps)
	if s.Steps == nil {
		s.Steps = map[string]string{}
	}
	return s
}

// Write puts the state on the host.
func (s HostState) Write(ctx context.Context, r host.Runner) error {
	s.SchemaVersion = StateVersion
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("writing the host's state: %w", err)
	}
	return host.WriteFile(ctx, r, StateFile, append(data, '\n'), 0o644)
}
