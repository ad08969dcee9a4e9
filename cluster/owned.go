// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/sealerio/sealer/runtime"
)

// readID is the id of the cluster that this machine keeps in a folder; empty where it knows none. It tells clusters of one name apart.
func readID(dir string) (string, error) {
	data, err := os.ReadFile(filepath.Join(dir, "id"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("reading the cluster's id: %w", err)
	}
	return strings.TrimSpace(string(data)), nil
}

// owned makes sure that the hosts which hold something of a cluster hold it of this one: of its name, and of the id that this machine keeps,
// or else of one and the same. The error is of *OtherClusterErrors. Hosts that hold nothing are fine.
func owned(stateDir, name string, hosts []*runtime.Host) error {
	id := ""
	if stateDir != "" {
		var err error
		if id, err = readID(filepath.Join(stateDir, name)); err != nil {
			return err
		}
	}
	var others []error
	for _, h := range hosts {
		s := h.Facts.State
		if s == nil {
			continue
		}
		if id == "" && s.Cluster == name {
			id = s.ClusterID
		}
		// A sealer that kept no id yet has made it where it is empty.
		if s.Cluster != name || id != "" && s.ClusterID != "" && s.ClusterID != id {
			others = append(others, &OtherClusterError{Host: h.String(), Cluster: s.Cluster, Namesake: s.Cluster == name})
		}
	}
	return errors.Join(others...)
}

// OtherClusterError is a host that belongs to another cluster.
type OtherClusterError struct {
	Host, Cluster string
	Namesake      bool // that cluster has the same name
}

func (e *OtherClusterError) Error() string {
	if e.Namesake {
		return fmt.Sprintf("%s: it belongs to another cluster named %q", e.Host, e.Cluster)
	}
	return fmt.Sprintf("%s: it belongs to the cluster %q", e.Host, e.Cluster)
}

// Hint says how to delete that one.
func (e *OtherClusterError) Hint() string {
	if e.Namesake {
		return "leave the host out; if that cluster is to go, delete it from the machine that made it, or from one whose --root knows no cluster of this name"
	}
	return "sealer delete --all --name " + e.Cluster
}
