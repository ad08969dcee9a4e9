// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/store"
)

// Report is what a check of images has found.
type Report struct {
	Images int   `json:"images"`
	Blobs  int   `json:"blobs"`
	Bytes  int64 `json:"bytes"`
	// Problems are sorted by digest.
	Problems []Problem `json:"problems"`
}

// Problem is a blob that is not what it should be.
type Problem struct {
	Digest string `json:"digest"`
	What   string `json:"what"`
	// Images are those that need the blob; none where no name needs it.
	Images []string `json:"images"`
}

// BrokenError says that a check has found problems.
type BrokenError struct{ Problems int }

func (e *BrokenError) Error() string {
	if e.Problems == 1 {
		return "one blob is not what it should be"
	}
	return fmt.Sprintf("%d blobs are not what they should be", e.Problems)
}

// Hint tells the user what to do.
func (e *BrokenError) Hint() string {
	return "pull or load the images that are named again, once the broken blobs are away: 'sealer rmi' and 'sealer prune' remove them; and look at the disk"
}

// tries is how often a blob of a registry is read before it counts as unreadable.
const tries = 3

// Check reads every blob of the images, hashes it, and reads the documents in
// it as far as images are made of them. What is not there because only other
// platforms were pulled is no problem. advance is told of every byte; it may be nil.
func Check(ctx context.Context, subjects []*Subject, advance func(int64)) (*Report, error) {
	c := newChecker(advance)
	for _, s := range subjects {
		c.subject(ctx, s)
	}
	return c.run(ctx, len(subjects))
}

// CheckStore checks all images of a store, and the blobs that no name needs.
func CheckStore(ctx context.Context, st *store.Store, advance func(int64)) (*Report, error) {
	tags, err := st.List(ctx)
	if err != nil {
		return nil, err
	}
	c := newChecker(advance)
	for _, t := range tags {
		c.subject(ctx, InStore(st, t))
	}
	loose := &Subject{Open: InStore(st, store.Tagged{}).Open, Local: true}
	if err := walkBlobs(ctx, st, func(d digest.Digest, size int64) {
		if _, ok := c.blobs[d]; !ok {
			c.blobs[d] = &checked{desc: ocispec.Descriptor{Digest: d, Size: size}, from: loose}
		}
	}); err != nil {
		return nil, err
	}
	return c.run(ctx, len(tags))
}

type checker struct {
	advance  func(int64)
	blobs    map[digest.Digest]*checked
	mu       sync.Mutex
	problems map[digest.Digest]*Problem
	bytes    int64
}

// checked is a blob to be read, and who needs it.
type checked struct {
	desc   ocispec.Descriptor
	from   *Subject
	images []string
}

func newChecker(advance func(int64)) *checker {
	if advance == nil {
		advance = func(int64) {}
	}
	return &checker{advance: advance, blobs: map[digest.Digest]*checked{}, problems: map[digest.Digest]*Problem{}}
}

// subject lists the blobs of an image. Documents that cannot be read are a problem, and hide what is below them.
func (c *checker) subject(ctx context.Context, s *Subject) {
	blobs, err := s.blobs(ctx)
	if err != nil {
		bad := s.Descriptor.Digest
		if wrong, ok := errors.AsType[*clusterimage.DigestError](err); ok {
			bad = wrong.Want
		}
		c.problem(bad, err.Error(), s.Name)
		blobs = []ocispec.Descriptor{s.Descriptor}
	}
	packed := documents{}
	if d, ok := s.Content.(documents); ok {
		packed = d
	}
	for _, b := range blobs {
		if _, ok := packed.docs[b.Digest]; ok && !s.Local {
			continue // it came, verified, with the documents layer
		}
		have := c.blobs[b.Digest]
		if have == nil {
			have = &checked{desc: b, from: s}
			c.blobs[b.Digest] = have
		}
		if have.desc.Size != b.Size {
			c.problem(b.Digest, fmt.Sprintf("%s says that it has %d bytes, others say %d", s.Name, b.Size, have.desc.Size), s.Name)
		}
		have.images = append(have.images, s.Name)
	}
	if img, err := s.Image(ctx); err == nil {
		c.documents(ctx, s, img)
	}
}

// documents reads the documents layers, whose every document is verified.
func (c *checker) documents(ctx context.Context, s *Subject, img *clusterimage.Image) {
	for _, d := range img.Index.Manifests {
		if d.Annotations[clusterimage.AnnotationRole] != clusterimage.RoleImageList {
			continue
		}
		for _, err := range clusterimage.ReadDocuments(ctx, s.Content, d) {
			if err != nil && !errdefs.IsNotFound(err) {
				c.problem(d.Digest, "its documents: "+err.Error(), s.Name)
			}
		}
	}
}

func (c *checker) problem(d digest.Digest, what string, images ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.problems[d]
	if p == nil {
		p = &Problem{Digest: d.String(), What: what, Images: []string{}}
		c.problems[d] = p
	}
	p.Images = append(p.Images, images...)
	slices.Sort(p.Images)
	p.Images = slices.Compact(p.Images)
}

func (c *checker) run(ctx context.Context, images int) (*Report, error) {
	var g errgroup.Group
	g.SetLimit(max(2, runtime.GOMAXPROCS(0)))
	for _, d := range slices.Sorted(maps.Keys(c.blobs)) {
		b := c.blobs[d]
		g.Go(func() error {
			if what := c.read(ctx, b); what != "" {
				c.problem(d, what, b.images...)
			}
			return nil
		})
	}
	_ = g.Wait() // problems are noted
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	r := &Report{Images: images, Blobs: len(c.blobs), Bytes: c.bytes, Problems: []Problem{}}
	for _, p := range c.problems {
		r.Problems = append(r.Problems, *p)
	}
	slices.SortFunc(r.Problems, func(a, b Problem) int { return cmp.Compare(a.Digest, b.Digest) })
	return r, nil
}

// read hashes a blob and says what is wrong with it; "" is nothing.
func (c *checker) read(ctx context.Context, b *checked) string {
	if !b.from.Local && (clusterimage.IsIndex(b.desc.MediaType) || clusterimage.IsManifest(b.desc.MediaType)) {
		// A registry has them elsewhere than blobs; they are verified as they are read.
		data, err := clusterimage.ReadBlob(ctx, b.from.Content, b.desc)
		c.count(len(data))
		return text(err)
	}
	var err error
	for range tries {
		var n int64
		var sum digest.Digest
		if n, sum, err = c.hash(ctx, b); err == nil {
			switch {
			case n != b.desc.Size:
				return fmt.Sprintf("it has %d bytes, not %d", n, b.desc.Size)
			case sum != b.desc.Digest:
				return fmt.Sprintf("its content is that of %s", sum)
			}
			return ""
		}
		if b.from.Local || errdefs.IsNotFound(err) || ctx.Err() != nil {
			break
		}
	}
	return text(err)
}

func text(err error) string {
	switch {
	case err == nil:
		return ""
	case errdefs.IsNotFound(err):
		return "it is missing"
	}
	return err.Error()
}

func (c *checker) hash(ctx context.Context, b *checked) (n int64, sum digest.Digest, err error) {
	r, err := b.from.Open(ctx, b.desc)
	if err != nil {
		return 0, "", err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	digester := b.desc.Digest.Algorithm().Digester()
	n, err = io.CopyBuffer(io.MultiWriter(digester.Hash(), progressWriter{c}), readerOf(ctx, io.LimitReader(r, b.desc.Size+1)), make([]byte, 256<<10))
	return n, digester.Digest(), err
}

// progressWriter counts.
type progressWriter struct{ c *checker }

func (w progressWriter) Write(p []byte) (int, error) {
	w.c.count(len(p))
	return len(p), nil
}

func (c *checker) count(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bytes += int64(n)
	c.advance(int64(n))
}

// readerOf ends with its context.
func readerOf(ctx context.Context, r io.Reader) io.Reader {
	return readerFunc(func(p []byte) (int, error) {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		return r.Read(p)
	})
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
