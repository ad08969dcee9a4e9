// SPDX-License-Identifier: Apache-2.0

// Package program is sealer-node on the hosts of a cluster: how it comes there from this machine, and how it is asked.
package program

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/runtime"
)

// StepSend brings sealer-node to a host; its key is the program's digest.
const StepSend = "sending sealer-node"

// Binary is a sealer-node, or another file, on this machine.
type Binary struct {
	Path   string
	Size   int64 // bytes
	Digest string
}

// Binaries are those of several architectures, by Go's names of these.
type Binaries map[string]Binary

// Find hashes the sealer-node of every architecture among the hosts.
func Find(hosts []*runtime.Host, path func(arch string) (string, error)) (Binaries, error) {
	found := Binaries{}
	for _, h := range hosts {
		if _, known := found[h.Facts.Arch]; known {
			continue
		}
		path, err := path(h.Facts.Arch)
		if err != nil {
			return nil, fmt.Errorf("finding sealer-node for %s: %w", h.Facts.Arch, err)
		}
		b, err := Hash(path)
		if err != nil {
			return nil, fmt.Errorf("reading sealer-node: %w", err)
		}
		found[h.Facts.Arch] = b
	}
	return found, nil
}

// Hash reads a file of this machine.
func Hash(path string) (_ Binary, err error) {
	f, err := os.Open(path)
	if err != nil {
		return Binary{}, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	sum := sha256.New()
	n, err := io.Copy(sum, f)
	return Binary{path, n, "sha256:" + hex.EncodeToString(sum.Sum(nil))}, err
}

// sendTries is how often a connection that was lost is taken up again.
const sendTries = 4

// Send brings it to a host from here.
func (all Binaries) Send(h *runtime.Host) runtime.Step {
	b := all[h.Facts.Arch]
	return runtime.Step{
		Name: StepSend,
		Key:  b.Digest,
		Done: func(ctx context.Context) (bool, error) {
			err := h.Runner.Run(ctx, host.Command{Argv: []string{"test", "-x", runtime.NodeBinary}})
			if _, exited := errors.AsType[*host.ExitError](err); exited {
				return false, nil
			}
			return err == nil, err
		},
		Do: func(ctx context.Context, log io.Writer) (err error) {
			f, err := os.Open(b.Path)
			if err != nil {
				return fmt.Errorf("reading sealer-node: %w", err)
			}
			defer func() { err = errors.Join(err, f.Close()) }()
			for range sendTries {
				err = host.Upload(ctx, h.Runner, io.NewSectionReader(f, 0, b.Size), b.Size, b.Digest, runtime.NodeBinary, 0o755)
				if _, lost := errors.AsType[*host.LostError](err); !lost {
					break
				}
				_, _ = fmt.Fprintf(log, "the connection was lost: sending it again (%v)\n", err)
			}
			return err
		},
	}
}

// Call is a command of sealer-node: what goes in, and where its JSON answer goes.
type Call struct {
	Log    io.Writer // standard error
	In     any       // encoded as JSON; nil: Stdin
	Stdin  io.Reader
	Out    any  // nil: the answer is dropped
	Secret bool // host.Command's
	Reads  bool // changes nothing
}

// Run asks sealer-node on a host.
func (n Call) Run(ctx context.Context, h *runtime.Host, args ...string) error {
	c := host.Command{Argv: append([]string{runtime.NodeBinary}, args...), Stdin: n.Stdin, Stderr: n.Log, Mutates: !n.Reads, Secret: n.Secret}
	if n.In != nil {
		data, err := json.Marshal(n.In)
		if err != nil {
			return fmt.Errorf("asking sealer-node: %w", err)
		}
		c.Stdin = bytes.NewReader(data)
	}
	answer, err := host.Output(ctx, h.Runner, c)
	if err != nil || n.Out == nil {
		return err
	}
	if err := json.Unmarshal(answer, n.Out); err != nil {
		return fmt.Errorf("%s: reading the answer of %s: %w", h, c, err)
	}
	return nil
}
