// SPDX-License-Identifier: Apache-2.0

package imagelist

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/distribution/reference"
)

// Ignored is a list of patterns of images that are not packed.
type Ignored struct {
	patterns []ignorePattern
}

type ignorePattern struct {
	text   string
	origin Origin
	match  *regexp.Regexp
	used   bool
}

// ParseIgnored reads a list of patterns, one a line, with blank lines and comments as in a list of images. A pattern is
// compared with the full name (docker.io/library/nginx:1.27) and with the short one (nginx:1.27); where it has no tag, any
// tag fits. * stands for anything but a slash, ** also for slashes, ? for one character. An error is Errors.
func ParseIgnored(file string, src []byte) (*Ignored, error) {
	if len(src) > MaxFile {
		return nil, tooLarge(file, int64(len(src)))
	}
	text := newSource(file, src)
	ignored := &Ignored{}
	var errs Errors
	for i, line := range text.lines {
		fields := strings.Fields(line)
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		if len(fields) > 1 && !strings.HasPrefix(fields[1], "#") {
			errs = append(errs, text.errorAt(i+1, &lineError{fmt.Sprintf("%q stands behind the pattern", shorten(fields[1])), "write one pattern a line; a comment begins with #"}))
			continue
		}
		pattern := strings.Trim(fields[0], `"'`)
		if strings.ContainsAny(pattern, "[]{}\\") {
			errs = append(errs, text.errorAt(i+1, &lineError{fmt.Sprintf("pattern %q: only *, ** and ? are special", shorten(pattern)), ""}))
			continue
		}
		ignored.patterns = append(ignored.patterns, ignorePattern{text: pattern, origin: Origin{File: file, Line: i + 1}, match: compilePattern(pattern)})
	}
	if len(errs) > 0 {
		return nil, errs
	}
	return ignored, nil
}

func compilePattern(pattern string) *regexp.Regexp {
	var re strings.Builder
	re.WriteString("^")
	for i := 0; i < len(pattern); i++ {
		switch {
		case strings.HasPrefix(pattern[i:], "**"):
			re.WriteString(".*")
			i++
		case pattern[i] == '*':
			re.WriteString("[^/]*")
		case pattern[i] == '?':
			re.WriteString("[^/]")
		default:
			re.WriteString(regexp.QuoteMeta(pattern[i : i+1]))
		}
	}
	if last := pattern[strings.LastIndexByte(pattern, '/')+1:]; !strings.ContainsAny(last, ":@") {
		re.WriteString("([:@].*)?")
	}
	re.WriteString("$")
	return regexp.MustCompile(re.String())
}

// Join adds the patterns of another list.
func (i *Ignored) Join(other *Ignored) *Ignored {
	if i == nil {
		return other
	}
	if other != nil {
		i.patterns = append(i.patterns, other.patterns...)
	}
	return i
}

// Match returns the first pattern that an image's name fits, with where it stands; "" where none does.
func (i *Ignored) Match(name string) (pattern string, origin Origin) {
	if i == nil || name == "" {
		return "", Origin{}
	}
	names := []string{name}
	if named, err := reference.ParseNormalizedNamed(name); err == nil {
		names = append(names, reference.FamiliarString(named))
	}
	for k := range i.patterns {
		p := &i.patterns[k]
		for _, n := range names {
			if p.match.MatchString(n) {
				// Every pattern that fits is of use, not the first alone.
				p.used = true
				if pattern == "" {
					pattern, origin = p.text, p.origin
				}
			}
		}
	}
	return pattern, origin
}

// Unused are the patterns that no image fitted.
func (i *Ignored) Unused() []Problem {
	if i == nil {
		return nil
	}
	var out []Problem
	for _, p := range i.patterns {
		if !p.used {
			out = append(out, Problem{File: p.origin.File, Line: p.origin.Line, Text: p.text, Message: fmt.Sprintf("no image fits the pattern %s", p.text)})
		}
	}
	return out
}
