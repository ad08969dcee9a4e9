// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"io"
)

// WithDistributionLog keeps the log of a test's own registry off the screen.
func WithDistributionLog(ctx context.Context, w io.Writer) context.Context {
	return withDistributionLog(ctx, w)
}
