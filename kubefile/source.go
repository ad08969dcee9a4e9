// SPDX-License-Identifier: Apache-2.0

package kubefile

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/distribution/reference"
	"github.com/moby/buildkit/util/suggest"

	"github.com/sealerio/sealer/internal/sourceerror"
)

const (
	// maxSource bounds what is parsed. The largest Kubefiles in the field carry
	// a few hundred kilobytes of manifests in heredocs.
	maxSource = 4 << 20
	// maxLine is the longest line that BuildKit's parser takes, in bytes
	// without the line end: it scans with bufio.MaxScanTokenSize.
	maxLine = 64<<10 - 1
)

// directiveLine is a parser directive,
// https://docs.docker.com/reference/dockerfile/#parser-directives.
var directiveLine = regexp.MustCompile(`^#\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*$`)

// lines splits the source and refuses what is no text. Line ends may be LF or
// CR LF, and a byte order mark may stand at the start.
func (p *parsing) split(src []byte) bool {
	f := p.file
	switch {
	case len(src) > maxSource:
		f.lines = []string{""}
		p.fail(1, "", fmt.Errorf("the file has %d bytes, more than the %d that a Kubefile may have", len(src), maxSource))
		return false
	case bytes.HasPrefix(src, []byte{0xFF, 0xFE}), bytes.HasPrefix(src, []byte{0xFE, 0xFF}):
		f.lines = []string{""}
		p.fail(1, "", errors.New("the file is UTF-16; save it as UTF-8"))
		return false
	}
	src = bytes.TrimLeft(src, "\ufeff")
	text := strings.TrimSuffix(strings.ReplaceAll(string(src), "\r\n", "\n"), "\n")
	f.lines = strings.Split(text, "\n")
	for i, line := range f.lines {
		n := i + 1
		if at := strings.IndexByte(line, 0); at >= 0 {
			p.fail(n, "", fmt.Errorf("a NUL byte stands at column %d: this is no text file", at+1))
		}
		if !utf8.ValidString(line) {
			p.fail(n, "", errors.New("the line is not UTF-8; save the file as UTF-8"))
		}
		if len(line) > maxLine {
			p.fail(n, "", fmt.Errorf("the line has %d bytes, more than the %d that a line may have", len(line), maxLine))
		}
	}
	return len(p.errs) == 0
}

// directives reads the comments above the first instruction, and returns the
// lines for BuildKit's parser: ours are hidden from it, because a directive
// that it does not know would end the block for it.
func (p *parsing) directives() []string {
	f := p.file
	f.Directives.Escape = '\\'
	lines := slices.Clone(f.lines)
	seen := map[string]int{}
	inBlock := true
	for i, line := range lines {
		line = strings.TrimLeftFunc(line, unicode.IsSpace)
		if line != "" && !strings.HasPrefix(line, "#") {
			break
		}
		if i == 0 && strings.HasPrefix(line, "#!") {
			lines[i] = "#"
			continue
		}
		match := directiveLine.FindStringSubmatch(line)
		name, value := "", ""
		if match != nil {
			name, value = strings.ToLower(match[1]), match[2]
		}
		known := slices.Contains(directiveWords(), name)
		if !known && inBlock && name != "" {
			if near, ok := suggest.Search(name, directiveWords(), true); ok {
				f.warn(i+1, UnknownDirective, fmt.Sprintf("# %s= is no directive and is ignored (did you mean %s?)", match[1], near))
			}
		}
		inBlock = inBlock && known
		if !inBlock && name != "toolbox" {
			continue
		}
		lines[i] = "#"
		if first, ok := seen[name]; ok {
			p.fail(i+1, "", fmt.Errorf("# %s= stands already in line %d", name, first))
			continue
		}
		seen[name] = i + 1
		p.directive(i+1, name, value)
	}
	if f.Directives.Escape != '\\' {
		lines[0] = "# escape=" + string(f.Directives.Escape)
	}
	return lines
}

func directiveWords() []string { return []string{"check", "escape", "syntax", "toolbox"} }

func (p *parsing) directive(n int, name, value string) {
	d := &p.file.Directives
	switch name {
	case "escape":
		if value != "`" && value != `\` {
			p.fail(n, value, fmt.Errorf("# escape=%s: it can be ` or \\ only", sourceerror.Printable(value)))
			return
		}
		d.Escape = rune(value[0])
	case "syntax":
		d.Syntax, _, _ = strings.Cut(value, " ")
	case "toolbox":
		if err := checkReference(value); err != nil {
			p.fail(n, value, fmt.Errorf("# toolbox=%s: %w", sourceerror.Printable(value), err))
			return
		}
		d.Toolbox = value
	}
}

// checkReference says what is wrong with the name of an image.
func checkReference(name string) error {
	if scheme, _, ok := strings.Cut(name, "://"); ok {
		return fmt.Errorf("the name of an image has no %s:// in front", sourceerror.Printable(scheme))
	}
	if _, err := reference.ParseNormalizedNamed(name); err != nil {
		return fmt.Errorf("%q is not the name of an image: %w", name, err)
	}
	return nil
}

// isBlank says whether BuildKit's parser takes no instruction from a line.
func isBlank(line string) bool {
	line = strings.TrimLeftFunc(line, unicode.IsSpace)
	return line == "" || line[0] == '#'
}
