// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"time"

	"github.com/opencontainers/go-digest"
)

// MaxRemoved is how many removals are kept.
const MaxRemoved = maxRemoved

// WriteMark is as markRemoved, and does not wait for the disk.
func WriteMark(root, repository string, d digest.Digest, at time.Time) error {
	t := peerTag{Repository: repository, Digest: d, Time: at}
	data, err := json.Marshal(t)
	if err != nil {
		return err
	}
	return os.WriteFile(removedFile(root, t), data, 0o600)
}

// Removals are the repositories of what was taken away, the last first.
func Removals(root string) (repositories []string, err error) {
	marks, err := removals(root)
	for _, m := range marks {
		repositories = append(repositories, m.Repository)
	}
	return repositories, err
}

// WithDistributionLog keeps the log of a test's own registry off the screen.
func WithDistributionLog(ctx context.Context, w io.Writer) context.Context {
	return withDistributionLog(ctx, w)
}
