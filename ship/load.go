// SPDX-License-Identifier: Apache-2.0

package ship

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/sealerio/sealer/store"
)

const (
	// smallBlob is how large a blob may be to be written beside others: each
	// waits for the disk once.
	smallBlob = 1 << 20
	// smallJobs and largeJobs are how many blobs are written at once. Disks that
	// turn, and those on a cable, want to be read in order.
	smallJobs, largeJobs = 8, 2
)

// LoadOptions say how an archive is loaded.
type LoadOptions struct {
	// Name is given to the archive's one image instead of the name in it.
	Name string
	// Track shows the progress. The default is silence.
	Track TrackFunc
}

// Result says what a load did.
type Result struct {
	// Images are what was tagged.
	Images []Loaded
	// Read are the bytes of blobs that were read, Skipped those of blobs that
	// the store had.
	Read, Skipped int64
}

// Loaded is an image that was loaded.
type Loaded struct {
	Name   string        `json:"name"`
	Digest digest.Digest `json:"digest"`
	// Platforms are those that the store has whole now.
	Platforms []string `json:"platforms,omitempty"`
}

// Load brings the images of the archive at path into the store, and tags each
// once all of it is there. What the store has is not read; a load that was cut
// continues where it stopped, in the middle of a blob too. A file that sealer,
// skopeo, docker or podman wrote as OCI layout, one in Docker's own format, and
// sealer 0.9's archive of several platforms are read, compressed or not. Errors
// are *ArchiveError, *archive.Error, *BaseError, *ForeignError, *NamelessError.
func Load(ctx context.Context, st *store.Store, path string, o LoadOptions) (_ Result, err error) {
	s, err := openSource(path)
	if err != nil {
		return Result{}, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	release, err := st.Hold(ctx)
	if err != nil {
		return Result{}, err
	}
	defer func() { err = errors.Join(err, release()) }()
	plain, err := decompress(io.NewSectionReader(s, 0, s.size))
	if err != nil {
		return Result{}, s.wrong("", 0, 1, err)
	}
	if plain != nil {
		defer plain.Close()
		return loadTar(ctx, st, bufio.NewReaderSize(plain, copyBuffer), path, o)
	}
	return loadFile(ctx, st, s, path, o)
}

// loadFile loads a plain tar that can be read at any place.
func loadFile(ctx context.Context, st *store.Store, s *source, path string, o LoadOptions) (_ Result, err error) {
	items, err := scan(s, 0, s.size)
	if err != nil && len(items) == 0 {
		return Result{}, err
	}
	l := &loader{st: st, name: path, o: o, t: o.Track.start("reading", blobBytes(items))}
	defer func() { l.t.Done(err) }()
	if err != nil {
		// What is there before the cut is worth keeping: the whole archive, when
		// it comes, is then read from there on.
		l.salvage = true
		_, kept := l.layout(ctx, s, items)
		if _, ok := errors.AsType[*BaseError](kept); ok {
			return Result{}, kept
		}
		return Result{}, err
	}
	return l.file(ctx, s, items)
}

// blobBytes sums up the blobs of an archive; where it is no layout, its files.
func blobBytes(items []item) (total int64) {
	_, layout := file(items, indexFile)
	for _, it := range items {
		if _, ok := it.blob(); ok || !layout && it.kind == tar.TypeReg {
			total += it.size
		}
	}
	return total
}

// loader is one load.
type loader struct {
	st            *store.Store
	name          string
	o             LoadOptions
	t             Tracker
	read, skipped atomic.Int64
	// salvage: that one blob is damaged does not end the reading of others.
	salvage bool
}

// file picks what the archive is.
func (l *loader) file(ctx context.Context, s *source, items []item) (Result, error) {
	if _, ok := file(items, indexFile); ok {
		images, err := l.layout(ctx, s, items)
		if err != nil {
			return Result{}, err
		}
		return l.tag(ctx, images)
	}
	if meta, ok := file(items, metadataFile); ok && len(inner(items)) > 0 {
		images, err := l.several(ctx, s, items, meta)
		if err != nil {
			return Result{}, err
		}
		return l.tag(ctx, images)
	}
	if _, ok := file(items, dockerFile); ok {
		images, err := l.docker(ctx, s, 0, s.size)
		if err != nil {
			return Result{}, err
		}
		return l.tag(ctx, images)
	}
	return Result{}, l.foreign(items)
}

func (l *loader) foreign(items []item) error {
	why := "it is empty"
	if len(items) > 0 {
		why = fmt.Sprintf("it has neither %s nor %s, and begins with %q", indexFile, dockerFile, items[0].name)
	}
	return &ForeignError{Archive: l.name, Why: why}
}

// layout reads an OCI layout: its documents, then its blobs, documents first.
func (l *loader) layout(ctx context.Context, s *source, items []item) ([]imageEntry, error) {
	var contents *Contents
	if it, ok := file(items, ContentsFile); ok {
		data, err := s.document(it, maxContents)
		if err != nil {
			return nil, err
		}
		if contents, err = parseContents(data); err != nil {
			return nil, s.wrong(it.name, it.at, it.size, err)
		}
		if err := l.checkBase(ctx, contents); err != nil {
			return nil, err
		}
	}
	var images []imageEntry
	if it, ok := file(items, indexFile); ok {
		data, err := s.document(it, maxIndex)
		if err != nil {
			return nil, err
		}
		if images, err = parseIndexFile(data, contents); err != nil {
			return nil, s.wrong(it.name, it.at, it.size, err)
		}
	}
	var small, large errgroup.Group
	small.SetLimit(smallJobs)
	large.SetLimit(largeJobs)
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	for _, it := range items {
		d, ok := it.blob()
		if !ok {
			continue
		}
		g := &large
		if it.size <= smallBlob {
			g = &small
		}
		g.Go(func() error {
			err := l.blobAt(ctx, s, it, d)
			if err != nil && !l.salvage {
				stop(errOtherBlob)
			}
			return err
		})
	}
	if err := firstCause(small.Wait(), large.Wait()); err != nil {
		return nil, err
	}
	return images, nil
}

// errOtherBlob ends the reading of blobs when one is damaged.
var errOtherBlob = errors.New("another blob is damaged")

// firstCause picks the error that stopped the others.
func firstCause(errs ...error) error {
	var other error
	for _, err := range errs {
		if err != nil && !errors.Is(err, errOtherBlob) {
			return err
		}
		other = errors.Join(other, err)
	}
	return other
}

// blobAt reads a blob of a file. Where the store has the beginning of it, that is skipped.
func (l *loader) blobAt(ctx context.Context, s *source, it item, d digest.Digest) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	open := func(from int64) io.Reader { return io.NewSectionReader(s, it.data+from, it.size-from) }
	err := l.ingest(ctx, d, it.size, open)
	if me, ok := errors.AsType[*mismatchError](err); ok && me.resumed > 0 {
		// The beginning came from elsewhere, or through a crash of the machine.
		err = l.ingest(ctx, d, it.size, open)
	}
	if err, ok := errors.AsType[*contentError](err); ok {
		return s.wrong(it.name, it.at, it.size+it.data-it.at, cut(err.err))
	}
	return err
}
