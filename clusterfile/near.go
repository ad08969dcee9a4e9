// SPDX-License-Identifier: Apache-2.0

package clusterfile

import (
	"slices"
	"strings"

	"github.com/agext/levenshtein"
)

// near is the name closest to word, as " (did you mean X?)", or nothing where none is close.
func near(word string, names []string) string {
	best, bestDistance := "", 3
	slices.Sort(names)
	for _, name := range names {
		d := distance(strings.ToLower(word), strings.ToLower(name))
		if d < bestDistance && d < max(len(name), 2)/2+1 {
			best, bestDistance = name, d
		}
	}
	if best == "" {
		return ""
	}
	return " (did you mean " + best + "?)"
}

// distance is Levenshtein's. Long words are far from everything: their table would be large.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	return levenshtein.Distance(a, b, nil)
}
