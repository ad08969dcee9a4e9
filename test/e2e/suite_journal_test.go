//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// entry is a line of a double's journal.
type entry struct {
	Time                       time.Time
	Version, Event, Text, File string
	Args, Unknown, SecretFlags []string
}

// asked is what the doubles on the hosts were asked, by host, since the last call. It is empty where no double runs.
func (b *bed) asked(t *testing.T) [][]entry {
	t.Helper()
	all := make([][]entry, len(b.h))
	if b.journal == "" {
		return all
	}
	for i, h := range b.h {
		text := b.exec(t, h, "sh", "-c", "cat "+b.journal+" 2>/dev/null; rm -f "+b.journal)
		for line := range strings.Lines(text) {
			var e entry
			require.NoError(t, json.Unmarshal([]byte(line), &e), line)
			all[i] = append(all[i], e)
		}
	}
	return all
}

// wellAsked requires of the doubles that nothing was asked of them which they do not know, nothing secret in the open, and no image
// from elsewhere. It returns asked.
func (b *bed) wellAsked(t *testing.T) [][]entry {
	t.Helper()
	all := b.asked(t)
	for i, host := range all {
		for _, e := range host {
			require.NotEqual(t, "upstream", e.Event, "%s: %+v", b.h[i], e)
			require.NotEqual(t, "refused", e.Event, "%s: %+v", b.h[i], e)
			require.Empty(t, e.Unknown, "%s: %+v", b.h[i], e)
			require.Empty(t, e.SecretFlags, "%s: %+v", b.h[i], e)
		}
	}
	return all
}
