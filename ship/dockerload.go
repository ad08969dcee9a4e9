// SPDX-License-Identifier: Apache-2.0

package ship

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/sealerio/sealer/store"
	"github.com/sealerio/sealer/store/archive"
)

// docker reads an archive in Docker's own format, which has neither manifests
// nor the digests of layers: they are made, always in the same way, and so are
// zstd layers of those that are plain. It is a section of the source.
func (l *loader) docker(ctx context.Context, s *source, from, size int64) (_ []imageEntry, err error) {
	a, err := archive.OpenFile(ctx, l.name, "", func() (io.ReadCloser, error) {
		return section{io.NewSectionReader(s, from, size)}, nil
	})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	images := append(a.Images, a.Unnamed...)
	packed, err := a.Import(ctx, l.st, images, archive.ImportOptions{Advance: func(n int64) {
		l.read.Add(n)
		l.t.Advance(n)
	}})
	if err != nil {
		return nil, err
	}
	var out []imageEntry
	for i, img := range images {
		out = append(out, imageEntry{name: img.Name, desc: packed[i].Manifest, whole: true})
	}
	return out, nil
}

// section is read from its start, however often.
type section struct{ *io.SectionReader }

func (section) Close() error { return nil }

// streamable tells whether what r begins with is an OCI layout, which can be
// loaded as it comes: its blobs are named by their digests. Other archives say
// what their files are at their end. What is no tar counts as one: the reader
// says so. Nothing is consumed.
func streamable(br *bufio.Reader) bool {
	for n := 4 * block; ; n *= 2 {
		n = min(n, br.Size())
		head, err := br.Peek(n)
		if layout, known := layoutAhead(head, err != nil); known {
			return layout
		}
		if n == br.Size() {
			return false
		}
	}
}

// layoutAhead looks at the files that a tar begins with, until one tells what it is. all: there is no more than head.
func layoutAhead(head []byte, all bool) (layout, known bool) {
	tr := tar.NewReader(bytes.NewReader(head))
	for {
		hdr, err := tr.Next()
		switch {
		case errors.Is(err, io.ErrUnexpectedEOF):
			return true, all // the rest of it is not in head; where there is none, the archive is cut
		case err != nil:
			return true, all || !errors.Is(err, io.EOF)
		case hdr.Typeflag == tar.TypeDir:
			continue
		}
		switch name := path.Clean(hdr.Name); {
		case name == layoutFile, name == indexFile, name == ContentsFile, strings.HasPrefix(name, blobsFolder+"/"):
			return true, true
		case name != dockerFile && name != dockerNames:
			return strings.HasPrefix(name, "../") || path.IsAbs(name), true
		}
	}
}

// dockerNames is another document of Docker's own format, which archives that are layouts have, too.
const dockerNames = "repositories"

// spool keeps a tar that cannot be read as it comes in a file of the store's
// folder, which has no name and so is gone with the process.
func spool(ctx context.Context, st *store.Store, r io.Reader, name string) (_ *source, err error) {
	f, err := os.CreateTemp(st.Dir(), ".load-")
	if err != nil {
		return nil, fmt.Errorf("loading %q: %w", name, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	if err := os.Remove(f.Name()); err != nil {
		return nil, fmt.Errorf("loading %q: %w", name, err)
	}
	size, err := io.Copy(f, io.LimitReader(&waiting{ctx: ctx, r: r}, maxBlob))
	if err != nil {
		return nil, &ArchiveError{Archive: name, Offset: size, Err: cut(err)}
	}
	return &source{name: name, size: size, files: []sourceFile{{File: f, part: part{Name: name, Size: size}}}}, nil
}

// platformsOf are the archives in one of sealer 0.9 to 0.11: of the images of one name for several platforms.
func (l *loader) platformsOf(ctx context.Context, s *source, it item) ([]imageEntry, error) {
	within, err := scan(s, it.data, it.size)
	if err != nil {
		return nil, err
	}
	if _, ok := file(within, indexFile); ok {
		return l.layout(ctx, s, within)
	}
	if _, ok := file(within, dockerFile); ok {
		return l.docker(ctx, s, it.data, it.size)
	}
	return nil, s.wrong(it.name, it.at, 1, errors.New("it is no archive of images"))
}
