// SPDX-License-Identifier: Apache-2.0

package engine

import "time"

// PruneOptions say what Prune removes of what nothing uses now. The zero value: what is beyond the cache's bounds (10 GiB,
// a tenth of the disk free), and only that.
type PruneOptions struct {
	// All removes everything.
	All bool
	// Keep is how many bytes stay, those that were used last; nil: as All says.
	Keep *int64
	// Unused removes only what was not used for so long; 0: whatever it is.
	Unused time.Duration
}
