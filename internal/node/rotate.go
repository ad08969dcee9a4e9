// SPDX-License-Identifier: Apache-2.0

package node

import (
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/sealerio/sealer/internal/atomicfile"
)

// AcceptRegistry makes the host's registry take another login beside its own, and trust another CA beside its own when it asks its peers, until
// LeaveRegistry. It may be called again, also with yet another one, and when the registry has taken over what it was called with. A registry
// that runs knows at once. Of the password a hash is kept.
func (n *Node) AcceptRegistry(a RegistryAccess) error {
	if err := n.acceptRegistry(a); err != nil {
		return fmt.Errorf("accepting another login: %w", err)
	}
	return nil
}

func (n *Node) acceptRegistry(a RegistryAccess) error {
	if block, _ := pem.Decode([]byte(a.CA)); block == nil || a.Username == "" || a.Password == "" {
		return errors.New("the CA, the user or the password is missing")
	}
	own, err := os.ReadFile(filepath.Join(n.registryDir(), caFile))
	if err != nil {
		return err
	}
	trusted, err := n.trusted()
	if err != nil {
		return err
	}
	for _, ca := range [][]byte{own, []byte(a.CA)} {
		if ca = bytes.TrimSpace(ca); !bytes.Contains(trusted, ca) {
			trusted = slices.Concat(trusted, ca, []byte("\n"))
		}
	}
	if err := atomicfile.Write(filepath.Join(n.registryDir(), trustedFile), trusted, 0o644); err != nil {
		return err
	}
	lines, err := n.htpasswd()
	if err != nil || slices.ContainsFunc(lines, a.isLine) {
		return err
	}
	line, err := a.line()
	if err != nil {
		return err
	}
	return n.saveHtpasswd(append(lines, line))
}

// LeaveRegistry takes away what AcceptRegistry has added to the host's registry: its own login and CA are all that there is then.
func (n *Node) LeaveRegistry() error {
	own, err := n.credentials()
	if err != nil {
		return fmt.Errorf("leaving a login: %w", err)
	}
	lines, err := n.htpasswd()
	if err != nil {
		return fmt.Errorf("leaving a login: %w", err)
	}
	if rest := slices.DeleteFunc(slices.Clone(lines), func(l []byte) bool { return !own.isLine(l) }); len(rest) < len(lines) {
		if err := n.saveHtpasswd(rest); err != nil {
			return fmt.Errorf("leaving a login: %w", err)
		}
	}
	// Last: it tells that this is not at its end.
	if err := os.Remove(filepath.Join(n.registryDir(), trustedFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("leaving a login: %w", err)
	}
	return nil
}

// trusted are the CAs besides the registry's own, as PEM.
func (n *Node) trusted() ([]byte, error) {
	data, err := os.ReadFile(filepath.Join(n.registryDir(), trustedFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}
