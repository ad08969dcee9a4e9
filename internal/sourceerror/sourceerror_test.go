// SPDX-License-Identifier: Apache-2.0

package sourceerror_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/internal/sourceerror"
)

type hinted struct{ error }

func (hinted) Hint() string { return "do so" }

func TestErrors(t *testing.T) {
	cause := hinted{errors.New("no")}
	errs := sourceerror.Errors{
		{File: "f", Line: 7, Text: "b a", Mark: "a", Err: errors.New("late")},
		{File: "f", Line: 2, Text: "x", Err: fmt.Errorf("early: %w", cause)},
	}
	errs.Sort()
	require.Equal(t, "f:2: early: no\nf:7: late", errs.Error())
	require.Equal(t, "f:2: early: no\n   2 | x\nf:7: late\n   7 | b a\n     |   ^", errs.Show())
	require.ErrorIs(t, errs, cause)
	require.Equal(t, "do so", errs[0].Hint())
	require.Empty(t, errs[1].Hint())
}

func TestExcerpt(t *testing.T) {
	for _, c := range []struct{ text, mark, want string }{
		{"COPY a b", "", "   3 | COPY a b"},
		{"COPY a b", "z", "   3 | COPY a b"},
		{"aa a", "a", "   3 | aa a\n     |    ^"},
		{"aab", "b", "   3 | aab\n     |   ^"},
		{"\tü=\u0007x  ", "x", "   3 |  ü=·x\n     |     ^"},
		{"", "x", "   3 | "},
		{strings.Repeat("x", 200) + " y", "y", "   3 | " + strings.Repeat("x", 160) + "…"},
		{strings.Repeat(" ", 158) + "yyyy", "yyyy", "   3 | " + strings.Repeat(" ", 158) + "yy…\n     | " + strings.Repeat(" ", 158) + "^^"},
	} {
		require.Equal(t, c.want, sourceerror.Excerpt(3, c.text, c.mark), c.text)
	}
	require.Equal(t, "RUN", sourceerror.FirstWord("  RUN x"))
}
