// SPDX-License-Identifier: Apache-2.0

package build

import (
	"context"
	"errors"

	"github.com/moby/buildkit/solver/errdefs"

	"github.com/sealerio/sealer/build/convert"
	"github.com/sealerio/sealer/kubefile"
)

// explain turns what a solve returned into what the user has to know: our own error where it was ours, else the line of
// the Kubefile that failed, with the innermost reason. own is the error of our build function, err that of the solve.
func explain(ctx context.Context, f *kubefile.File, own, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var positioned *kubefile.PositionError
	if errors.As(own, &positioned) {
		return positioned
	}
	for _, one := range []error{own, err} {
		for _, s := range errdefs.Sources(one) {
			if s.Info != nil && s.Info.Filename == f.Name && len(s.Ranges) > 0 {
				return convert.At(f, int(s.Ranges[0].Start.Line), innermost(one))
			}
		}
	}
	if own != nil {
		return own
	}
	return err
}

// innermost is the first cause: what stands around it repeats it with the solver's own digests.
func innermost(err error) error {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err
		}
		err = next
	}
}
