// SPDX-License-Identifier: Apache-2.0

package imagelist

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/agext/levenshtein"
	"github.com/containerd/platforms"
)

// ParseList reads a list of images: one reference a line, which may be quoted;
// blank lines, and comments from # at the start of a line or after a space.
// In place of a reference may stand where to read images from other than a
// registry: docker-archive:FILE, oci-archive:FILE, oci:FOLDER (each with
// :REFERENCE for one of several), docker-daemon:NAME, and behind it @NAME, the
// name that the image gets. Behind the reference may stand platform=OS/ARCH[/VARIANT][,…]: the image is
// then packed for those platforms, not for the one that is built. An error is
// Errors: every mistake of the file.
func ParseList(file string, src []byte) ([]Image, error) {
	if len(src) > MaxFile {
		return nil, tooLarge(file, int64(len(src)))
	}
	text := newSource(file, src)
	var images []Image
	var errs Errors
	for i, line := range text.lines {
		found, err := parseLine(line)
		if err != nil {
			errs = append(errs, text.errorAt(i+1, err))
			continue
		}
		for _, image := range found {
			image.Origins = []Origin{{File: file, Line: i + 1}}
			images = append(images, image)
		}
	}
	if len(errs) > 0 {
		return nil, errs
	}
	return Merge(images), nil
}

func tooLarge(file string, size int64) error {
	return fmt.Errorf("reading %q: it has %d bytes, more than the %d that are read", file, size, MaxFile)
}

// parseLine returns the image of a line, once for each platform; none where
// the line asks for none.
func parseLine(line string) ([]Image, error) {
	fields := strings.Fields(line)
	if comment := slices.IndexFunc(fields, func(f string) bool { return strings.HasPrefix(f, "#") }); comment >= 0 {
		fields = fields[:comment]
	}
	if len(fields) == 0 {
		return nil, nil
	}
	first := fields[0]
	switch {
	case first == "-":
		return nil, &lineError{"the line begins with a dash", "this is no YAML: write the reference alone"}
	case len(fields) > 1 && strings.HasSuffix(first, ":"):
		return nil, &lineError{fmt.Sprintf("the line begins with %q", shorten(first)), "this is no YAML: write the reference alone"}
	}
	first = strings.Trim(first, `"'`)
	source, name, elsewhere, err := parseSource(first)
	if !elsewhere {
		name, err = Normalize(first)
	}
	if err != nil {
		return nil, err
	}
	wanted, err := parseOptions(fields[1:])
	if err != nil {
		return nil, err
	}
	var images []Image
	for _, platform := range wanted {
		images = append(images, Image{Name: name, Platform: platform, Source: source})
	}
	return images, nil
}

// lineError is a mistake with the way out of it.
type lineError struct{ message, hint string }

func (e *lineError) Error() string { return e.message }

func (e *lineError) Hint() string { return e.hint }

// parseOptions reads what stands behind a reference, and returns the platforms:
// one empty string where none is named.
func parseOptions(options []string) ([]string, error) {
	var wanted []string
	for _, option := range options {
		key, value, ok := strings.Cut(option, "=")
		if !ok {
			return nil, &lineError{fmt.Sprintf("%q stands behind the reference", shorten(option)), "write one reference a line; a comment begins with #"}
		}
		if key != "platform" {
			near := ""
			if distance(key, "platform") <= 2 {
				near = " (did you mean platform?)"
			}
			return nil, fmt.Errorf("unknown option %q%s", shorten(key), near)
		}
		if wanted != nil {
			return nil, errors.New("platform= stands twice; write platform=linux/amd64,linux/arm64")
		}
		for one := range strings.SplitSeq(strings.Trim(value, `"'`), ",") {
			platform, err := parsePlatform(one)
			if err != nil {
				return nil, err
			}
			if !slices.Contains(wanted, platform) {
				wanted = append(wanted, platform)
			}
		}
	}
	if wanted == nil {
		wanted = []string{""}
	}
	return wanted, nil
}

// parsePlatform returns a platform in its usual spelling.
func parsePlatform(text string) (string, error) {
	parsed, err := platforms.Parse(text)
	if err != nil || !strings.Contains(text, "/") {
		return "", &lineError{fmt.Sprintf("platform %q has not the form os/arch[/variant]", shorten(text)), "write linux/amd64 or linux/arm64"}
	}
	normal := platforms.Normalize(parsed)
	if !slices.Contains(systems(), normal.OS) {
		return "", fmt.Errorf("platform %q: unknown operating system %q%s", shorten(text), shorten(normal.OS), near(normal.OS, systems()))
	}
	if err := CheckArchitecture(normal.Architecture); err != nil {
		return "", fmt.Errorf("platform %q: %w", shorten(text), err)
	}
	return platforms.Format(normal), nil
}

// CheckArchitecture refuses what is no architecture of a host.
func CheckArchitecture(name string) error {
	if slices.Contains(architectures(), name) {
		return nil
	}
	return fmt.Errorf("unknown architecture %q%s", shorten(name), near(name, architectures()))
}

func systems() []string { return []string{"linux", "windows"} }

// architectures are those that Go, and so Kubernetes and its images, build for.
func architectures() []string {
	return []string{"386", "amd64", "arm", "arm64", "loong64", "mips64le", "ppc64le", "riscv64", "s390x"}
}

// near returns " (did you mean x?)" for the word that resembles text.
func near(text string, words []string) string {
	best, least := "", 3
	for _, word := range words {
		if d := distance(text, word); d < least {
			best, least = word, d
		}
	}
	if best == "" {
		return ""
	}
	return " (did you mean " + best + "?)"
}

// distance is how many characters must be changed, put in or taken out to make
// b of a. Words that differ much in length are not compared.
func distance(a, b string) int {
	if d := len(a) - len(b); d > 4 || d < -4 {
		return 5
	}
	return levenshtein.Distance(a, b, nil)
}
