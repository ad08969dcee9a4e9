// SPDX-License-Identifier: Apache-2.0

package stamp

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestReadTakesTheLastLine(t *testing.T) {
	want := Stamp{Program: "k3s", Version: "v1.36.1+k3s1"}
	got, err := read(strings.NewReader(strings.Repeat("x", 500) + want.Line()))
	require.NoError(t, err)
	require.Equal(t, want, got)
	require.Equal(t, 36, got.Minor())
	require.Equal(t, "v1.36.1", got.Kubernetes())

	_, err = read(strings.NewReader(strings.Repeat("x", 500)))
	require.ErrorIs(t, err, errNone)
}

func TestAtLeast(t *testing.T) {
	for _, c := range []struct {
		version, since string
		want           bool
	}{
		{"v1.36.1+k3s1", "", true},
		{"v1.36.1+k3s1", "v1.28", true},
		{"v1.36.1+k3s1", "v1.37.0", false},
		{"v1.36.1+k3s1", "v1.36.3+k3s1, v1.35.7, v1.34.10, v1.33.13", false},
		{"v1.36.3+k3s1", "v1.36.3+k3s1, v1.35.7, v1.34.10, v1.33.13", true},
		{"v1.35.7+k3s1", "v1.36.3+k3s1, v1.35.7, v1.34.10, v1.33.13", true},
		{"v1.35.6+k3s1", "v1.36.3+k3s1, v1.35.7, v1.34.10, v1.33.13", false},
		{"v1.34.10+k0s.0", "1.35", false},
		{"v1.35.0+k0s.0", "1.35", true},
	} {
		require.Equal(t, c.want, Stamp{Version: c.version}.AtLeast(c.since), "%s since %s", c.version, c.since)
	}
}
