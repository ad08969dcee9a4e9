// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
)

// Source says where images are: TRANSPORT:WHERE[:REFERENCE].
type Source struct {
	Transport string // archive, docker-archive, oci-archive, oci, docker-daemon
	Path      string // of a file or folder; with docker-daemon the image's name
	Ref       string // which of its images; empty: all
}

// ParseSource reads a source as a list of images has it.
func ParseSource(text string) (Source, error) {
	transport, where, ok := strings.Cut(text, ":")
	s := Source{Transport: transport, Path: where}
	switch transport {
	case "archive", "docker-archive", "oci-archive", "oci":
		s.Path, s.Ref, _ = strings.Cut(where, ":")
	case "docker-daemon":
	default:
		return Source{}, fmt.Errorf("source %q: sealer reads docker-archive:, oci-archive:, oci: and docker-daemon: sources", text)
	}
	if !ok || s.Path == "" {
		return Source{}, fmt.Errorf("source %q names nothing", text)
	}
	return s, nil
}

func (s Source) String() string {
	if s.Ref != "" {
		return s.Transport + ":" + s.Path + ":" + s.Ref
	}
	return s.Transport + ":" + s.Path
}

// File is a file that can be read from its start as often as it is opened. Where the reader can seek, what is not needed
// is skipped without being read.
type File func() (io.ReadCloser, error)

// OpenFile lists an archive: docker save's or OCI's, plain or compressed with gzip or zstd. name is shown in messages; ref
// picks one image by its name, tag or digest.
func OpenFile(ctx context.Context, name, ref string, open File) (*Archive, error) {
	return list(ctx, name, ref, &tarball{open: open}, nil)
}

// OpenFolder lists an OCI layout in a folder.
func OpenFolder(ctx context.Context, name, ref string, folder fs.FS) (*Archive, error) {
	if _, err := fs.Stat(folder, "."); err != nil {
		return nil, &Error{Source: name, Err: pathless(err)}
	}
	return list(ctx, name, ref, &tree{folder: folder}, nil)
}

// pathless leaves out the path of an error where the message has one already.
func pathless(err error) error {
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		return pe.Err
	}
	return err
}
