// SPDX-License-Identifier: Apache-2.0

// Package host drives one machine: commands as values, run over SSH or here,
// as root by sudo where the login is not root, and files that appear whole on
// the other side. It knows nothing of clusters.
//
// All that leaves a machine is checked: host keys before the first credential
// is sent, uploaded files by their SHA-256 on the host.
package host

import (
	"bytes"
	"context"
	"fmt"
	"io"
)

// maxOutput bounds what Output and ReadFile keep in memory.
const maxOutput = 64 << 20

// Runner runs commands on one machine. String names it in messages: "10.0.0.7".
// Run may be called from many goroutines. A command that ended with another
// status than 0 is an *ExitError; one whose end nobody saw, because the
// connection broke, is a *LostError.
type Runner interface {
	fmt.Stringer
	Run(ctx context.Context, c Command) error
}

// Output runs c and returns its standard output, at most 64 MiB of it. c.Stdout must be nil.
func Output(ctx context.Context, r Runner, c Command) ([]byte, error) {
	var out bytes.Buffer
	c.Stdout = &boundedWriter{w: &out, left: maxOutput}
	if err := r.Run(ctx, c); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// boundedWriter refuses to take more than a given number of bytes.
type boundedWriter struct {
	w    io.Writer
	left int
}

func (b *boundedWriter) Write(p []byte) (int, error) {
	if len(p) > b.left {
		return 0, fmt.Errorf("keeping the output: more than %d bytes", maxOutput)
	}
	b.left -= len(p)
	return b.w.Write(p)
}
