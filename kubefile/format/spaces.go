// SPDX-License-Identifier: Apache-2.0

package format

import "strings"

// kind is how the arguments of an instruction are read.
type kind int

const (
	opaque  kind = iota // every space counts
	words               // words with quotes, as BuildKit's parser reads them
	array               // JSON
	command             // a shell's
)

func isSpace(b byte) bool { return b == ' ' || b == '\t' }

// freeSpaces tells for each byte whether it is a space that separates words and
// nothing else. Where it is not sure, it says no.
func freeSpaces(kind kind, text string, escape byte) []bool {
	free := make([]bool, len(text))
	switch kind {
	case words:
		quoted(text, free, `"'`, escape)
	case array:
		quoted(text, free, `"`, '\\')
	case command:
		shellWords(text, free)
	case opaque:
	}
	return free
}

// quoted marks the spaces outside of quotes. The escape character takes the
// next one its meaning, but not between single quotes.
func quoted(text string, free []bool, quotes string, escape byte) {
	quote := byte(0)
	for i := 0; i < len(text); i++ {
		switch b := text[i]; {
		case b == escape && quote != '\'':
			i++
		case quote != 0:
			if b == quote {
				quote = 0
			}
		case strings.IndexByte(quotes, b) >= 0:
			quote = b
		default:
			free[i] = isSpace(b)
		}
	}
}

// shellWords marks the spaces between the words of a shell's command, up to
// the first place that is hard to follow: substitutions inside quotes, comments
// and here-documents.
func shellWords(text string, free []bool) {
	quote := byte(0)
	braces := 0
	for i := 0; i < len(text); i++ {
		b, next := text[i], byte(0)
		if i+1 < len(text) {
			next = text[i+1]
		}
		switch {
		case quote == '\'':
			if b == quote {
				quote = 0
			}
		case b == '\\':
			i++
		case b == '`', quote == '"' && b == '$' && (next == '(' || next == '{'):
			return
		case quote == '"':
			if b == quote {
				quote = 0
			}
		case b == '$' && (next == '\'' || next == '"'), b == '<' && next == '<', b == '#' && (i == 0 || strings.IndexByte(" \t;&|()", text[i-1]) >= 0):
			return
		case b == '$' && next == '{':
			braces++
			i++
		case b == '}' && braces > 0:
			braces--
		case b == '"' || b == '\'':
			quote = b
		default:
			free[i] = isSpace(b) && braces == 0
		}
	}
}
