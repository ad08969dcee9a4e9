// SPDX-License-Identifier: Apache-2.0

package sourceerror

import (
	"fmt"
	"strings"
	"unicode"
)

// excerptWidth is how many characters of a line are shown.
const excerptWidth = 160

// Excerpt returns a line with its number, cut where it is long, and below it
// marks under the first place where mark stands in it, as a word of its own
// where it can. Without a mark, or where text holds none, there is no second
// line.
func Excerpt(n int, text, mark string) string {
	runes := []rune(Printable(text))
	if len(runes) > excerptWidth {
		runes = append(runes[:excerptWidth], '…')
	}
	shown := fmt.Sprintf("%4d | %s", n, strings.TrimRight(string(runes), " "))
	at := markAt(text, mark)
	if mark == "" || at < 0 {
		return shown
	}
	column, width := len([]rune(text[:at])), len([]rune(mark))
	if column >= excerptWidth {
		return shown
	}
	width = min(width, excerptWidth-column)
	return shown + "\n     | " + strings.Repeat(" ", column) + strings.Repeat("^", width)
}

// FirstWord returns the word that a line begins with, for use as a mark.
func FirstWord(text string) string {
	word, _, _ := strings.Cut(strings.TrimSpace(text), " ")
	return word
}

// markAt returns where mark stands in text as a word of its own, else where it
// stands first; negative: nowhere.
func markAt(text, mark string) int {
	isBorder := func(b byte) bool { return strings.IndexByte(" \t=\"',", b) >= 0 }
	for from := 0; mark != ""; {
		next := strings.Index(text[from:], mark)
		if next < 0 {
			break
		}
		at, end := from+next, from+next+len(mark)
		if (at == 0 || isBorder(text[at-1])) && (end == len(text) || isBorder(text[end])) {
			return at
		}
		from = at + 1
	}
	return strings.Index(text, mark)
}

// Printable replaces each character that would move the cursor or not be seen,
// one for one, so that columns stay.
func Printable(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case unicode.IsPrint(r):
			return r
		default:
			return '\u00b7'
		}
	}, text)
}
