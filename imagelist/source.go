// SPDX-License-Identifier: Apache-2.0

package imagelist

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
)

// transports are what an image can be read from other than a registry, by the words that skopeo has for them; "archive" is
// a file of either kind.
func transports() []string {
	return []string{"archive", "docker-archive", "oci-archive", "oci", "docker-daemon"}
}

// parseSource reads TRANSPORT:WHERE[:REFERENCE][@NAME], and returns ok false for what is the name of an image. name is the
// one that the image gets here; empty: the names that it has there. An image docker-archive:x of a registry
// "docker-archive" is not lost: such a reference has no dot, and so stands for docker.io/library/docker-archive:x, which
// nobody publishes.
func parseSource(text string) (source, name string, ok bool, err error) {
	transport, where, found := strings.Cut(text, ":")
	if !found || !slices.Contains(transports(), transport) {
		return "", "", false, nil
	}
	if at := strings.LastIndexByte(where, '@'); at >= 0 && !strings.HasPrefix(where[at:], "@sha256:") {
		if name, err = Normalize(where[at+1:]); err != nil {
			return "", "", true, err
		}
		where = where[:at]
	}
	if where == "" {
		return "", "", true, &lineError{fmt.Sprintf("behind %s: stands nothing", transport), "write " + transport + ":PATH, relative to the build context"}
	}
	if transport == "docker-daemon" {
		if where, err = Normalize(where); err != nil {
			return "", "", true, err
		}
		return transport + ":" + where, name, true, nil
	}
	file, reference, _ := strings.Cut(where, ":")
	if file == "" {
		return "", "", true, errors.New("the path is empty")
	}
	if reference != "" {
		reference = ":" + reference
	}
	return transport + ":" + path.Clean(file) + reference, name, true, nil
}

// within puts the path of a source that is relative into folder.
func within(folder, source string) string {
	transport, where, _ := strings.Cut(source, ":")
	if transport == "docker-daemon" || path.IsAbs(where) {
		return source
	}
	file, reference, found := strings.Cut(where, ":")
	if found {
		reference = ":" + reference
	}
	return transport + ":" + path.Join(folder, file) + reference
}
