// SPDX-License-Identifier: Apache-2.0

package imagelist

import (
	"regexp"
	"strings"
)

// maxWords is the longest text that is searched for images, in bytes: those of
// variables and arguments are short.
const maxWords = 64 << 10

// domain is a registry's host: a name with a dot, or with a port, or localhost,
// https://pkg.go.dev/github.com/distribution/reference#pkg-overview.
var domain = regexp.MustCompile(`^(localhost|[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*\.[A-Za-z][A-Za-z0-9-]*|\d+\.\d+\.\d+\.\d+:\d+|\[[0-9a-fA-F:]+\]:\d+|[A-Za-z0-9.-]+:\d+)(:\d+)?$`)

// isSurelyImage says whether a string names a registry, and a tag or a digest:
// enough to tell an image from other things that are called one, as
// machineImage: ubuntu-24.04.
func isSurelyImage(value string) bool {
	value = strings.TrimSpace(value)
	host, rest, ok := strings.Cut(value, "/")
	if !ok || !domain.MatchString(host) || strings.Contains(value, "://") {
		return false
	}
	return strings.ContainsAny(rest, ":@") && isReference(value)
}

// looksLikeImage says the same of a string that stands where an image is
// expected: there a tag, a digest or a path is enough.
func looksLikeImage(value string) bool {
	return strings.ContainsAny(value, ":/@") && !strings.HasPrefix(value, "/") && isReference(value)
}

// lacksTag says whether a string names a registry and a repository, but no tag
// and no digest.
func lacksTag(value string) bool {
	host, rest, ok := strings.Cut(value, "/")
	return ok && strings.Contains(host, ".") && domain.MatchString(host) && !strings.ContainsAny(rest, ":@") && isReference(value)
}

func isReference(value string) bool {
	_, err := Normalize(value)
	return err == nil
}

// speaksOfImages says whether the name of a variable or a flag promises an image.
func speaksOfImages(name string) bool {
	name = strings.ToLower(name)
	for _, other := range []string{"pull", "imagelist", "image_list", "image-list", "type", "name_prefix"} {
		if strings.Contains(name, other) {
			return false
		}
	}
	return strings.Contains(name, "image")
}

// imagesIn returns the words of a text that surely are images: a command line,
// JSON in a variable, a list with commas.
func imagesIn(text string) []string {
	if len(text) > maxWords || !strings.Contains(text, "/") {
		return nil
	}
	var found []string
	for word := range strings.FieldsFuncSeq(text, func(r rune) bool {
		return r <= ' ' || strings.ContainsRune(`,;|"'`+"`"+`(){}<>&`, r)
	}) {
		if _, value, ok := strings.Cut(word, "="); ok {
			word = value
		}
		if isSurelyImage(word) {
			found = append(found, word)
		}
	}
	return found
}
