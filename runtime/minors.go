// SPDX-License-Identifier: Apache-2.0

package runtime

import "fmt"

// Minors are the minor versions of Kubernetes 1 that a distribution is known to work with, from Oldest to Newest.
type Minors struct{ Oldest, Newest int }

func (m Minors) String() string { return fmt.Sprintf("1.%d to 1.%d", m.Oldest, m.Newest) }

// Include tells whether a version, such as v1.36.3 or v1.36.3+k3s1, is of one of them.
func (m Minors) Include(version string) bool {
	var major, minor int
	_, err := fmt.Sscanf(version, "v%d.%d.", &major, &minor)
	return err == nil && major == 1 && m.Oldest <= minor && minor <= m.Newest
}
