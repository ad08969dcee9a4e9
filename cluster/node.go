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
	"os"

	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/runtime"
)

const nodeBinary = runtime.NodeBinary

// stepBinary brings sealer-node to a host; its key is the program's digest.
const stepBinary = "sending sealer-node"

// binary is a sealer-node on this machine.
type binary struct {
	path   string
	size   int64
	digest string
}

// findBinaries hashes the sealer-node of every architecture among the hosts.
func (r *run) findBinaries() error {
	r.binaries = map[string]binary{}
	for _, h := range r.cluster.Hosts {
		if _, known := r.binaries[h.Facts.Arch]; known {
			continue
		}
		path, err := r.NodeBinary(h.Facts.Arch)
		if err != nil {
			return fmt.Errorf("finding sealer-node for %s: %w", h.Facts.Arch, err)
		}
		b, err := hashFile(path)
		if err != nil {
			return fmt.Errorf("reading sealer-node: %w", err)
		}
		r.binaries[h.Facts.Arch] = b
	}
	return nil
}

func hashFile(path string) (_ binary, err error) {
	f, err := os.Open(path)
	if err != nil {
		return binary{}, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	sum := sha256.New()
	n, err := io.Copy(sum, f)
	return binary{path, n, "sha256:" + hex.EncodeToString(sum.Sum(nil))}, err
}

func (r *run) sendBinary(h *runtime.Host) runtime.Step {
	b := r.binaries[h.Facts.Arch]
	return runtime.Step{
		Name: stepBinary,
		Key:  b.digest,
		Done: func(ctx context.Context) (bool, error) { return asks(ctx, h, "test", "-x", nodeBinary) },
		Do: func(ctx context.Context, log io.Writer) (err error) {
			f, err := os.Open(b.path)
			if err != nil {
				return fmt.Errorf("reading sealer-node: %w", err)
			}
			defer func() { err = errors.Join(err, f.Close()) }()
			for range sendTries {
				err = host.Upload(ctx, h.Runner, io.NewSectionReader(f, 0, b.size), b.size, b.digest, nodeBinary, 0o755)
				if _, lost := errors.AsType[*host.LostError](err); !lost {
					break
				}
				_, _ = fmt.Fprintf(log, "the connection was lost: sending it again (%v)\n", err)
			}
			return err
		},
	}
}

// asks is a question whose answer is an exit status.
func asks(ctx context.Context, h *runtime.Host, argv ...string) (bool, error) {
	return answered(h.Runner.Run(ctx, host.Command{Argv: argv}))
}

// nodeCall is a command of sealer-node: what goes in, and where its JSON answer goes.
type nodeCall struct {
	log    io.Writer // standard error
	in     any       // encoded as JSON; nil: stdin
	stdin  io.Reader
	out    any // nil: the answer is dropped
	secret bool
	reads  bool // changes nothing
}

func (n nodeCall) run(ctx context.Context, h *runtime.Host, args ...string) error {
	c := host.Command{Argv: append([]string{nodeBinary}, args...), Stdin: n.stdin, Stderr: n.log, Mutates: !n.reads, Secret: n.secret}
	if n.in != nil {
		data, err := json.Marshal(n.in)
		if err != nil {
			return fmt.Errorf("asking sealer-node: %w", err)
		}
		c.Stdin = bytes.NewReader(data)
	}
	answer, err := host.Output(ctx, h.Runner, c)
	if err != nil || n.out == nil {
		return err
	}
	if err := json.Unmarshal(answer, n.out); err != nil {
		return fmt.Errorf("%s: reading the answer of %s: %w", h, c, err)
	}
	return nil
}
