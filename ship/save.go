// SPDX-License-Identifier: Apache-2.0

package ship

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/docker/go-units"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/internal/atomicfile"
)

// copyBuffer is the size of one read, in bytes.
const copyBuffer = 1 << 20

// WriteTo writes the archive in one pass. Every blob is verified on the way; a
// damaged one is a *clusterimage.DigestError, and what was written is of no use.
func (p *Plan) WriteTo(ctx context.Context, w io.Writer, track TrackFunc) (err error) {
	t := track.start("writing", p.size)
	defer func() { t.Done(err) }()
	out := &advancing{w: w, t: t}
	buf := make([]byte, copyBuffer)
	for _, e := range p.entries {
		if err := p.writeEntry(ctx, out, e, buf); err != nil {
			return err
		}
	}
	_, err = out.Write(make([]byte, 2*block))
	return err
}

func (p *Plan) writeEntry(ctx context.Context, w io.Writer, e entry, buf []byte) error {
	if _, err := w.Write(e.header); err != nil {
		return err
	}
	if e.digest == "" {
		if _, err := w.Write(e.data); err != nil {
			return err
		}
	} else if err := p.copyBlob(ctx, w, e, buf); err != nil {
		return err
	}
	_, err := w.Write(make([]byte, padded(e.size)-e.size))
	return err
}

// copyBlob copies a blob and verifies it.
func (p *Plan) copyBlob(ctx context.Context, w io.Writer, e entry, buf []byte) (err error) {
	r, err := p.openEntry(ctx, e)
	if err != nil {
		return fmt.Errorf("reading %s: %w", e.digest, err)
	}
	defer r.Close()
	verifier := e.digest.Algorithm().Digester()
	for left := e.size; left > 0; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := r.Read(buf[:min(int64(len(buf)), left)])
		left -= int64(n)
		if _, werr := w.Write(buf[:n]); werr != nil {
			return werr
		}
		_, _ = verifier.Hash().Write(buf[:n]) // a hash takes all
		if err != nil && left > 0 {
			return fmt.Errorf("reading %s: %w", e.digest, err)
		}
	}
	if got := verifier.Digest(); got != e.digest {
		return fmt.Errorf("reading the store: %w", &clusterimage.DigestError{Want: e.digest, Got: got})
	}
	return nil
}

func (p *Plan) openEntry(ctx context.Context, e entry) (io.ReadCloser, error) {
	if e.open != nil {
		return e.open(ctx)
	}
	ra, err := p.st.Content().ReaderAt(ctx, ocispec.Descriptor{Digest: e.digest, Size: e.size})
	if err != nil {
		return nil, err
	}
	if ra.Size() != e.size {
		return nil, errors.Join(fmt.Errorf("it has %d bytes, not %d", ra.Size(), e.size), ra.Close())
	}
	return &blobReader{Reader: content.NewReader(ra), Closer: ra}, nil
}

type blobReader struct {
	io.Reader
	io.Closer
}

// advancing shows what passes.
type advancing struct {
	w io.Writer
	t Tracker
}

func (a *advancing) Write(p []byte) (int, error) {
	n, err := a.w.Write(p)
	a.t.Advance(int64(n))
	return n, err
}

// SpaceError says that a file system has no room for an archive.
type SpaceError struct {
	Path string
	Size int64
	Err  error
}

func (e *SpaceError) Error() string {
	return fmt.Sprintf("writing %q: it needs %s: %v", e.Path, units.HumanSize(float64(e.Size)), e.Err)
}

func (e *SpaceError) Unwrap() error { return e.Err }

// Hint tells the user what to do.
func (e *SpaceError) Hint() string {
	return "free the space, write to another disk, or through a pipe (-o -)"
}

// SaveFile writes the archive to a file that appears whole or not at all. Its
// space is asked for before the first byte; where there is not enough the error
// is a *SpaceError.
func (p *Plan) SaveFile(ctx context.Context, path string, track TrackFunc) (err error) {
	f, err := reserve(path, p.size)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Abort()) }()
	if err := p.WriteTo(ctx, f, track); err != nil {
		return writing(path, p.size, err)
	}
	return f.Commit()
}

// reserve opens a file with room for size bytes, where the file system can tell.
func reserve(path string, size int64) (*atomicfile.File, error) {
	f, err := atomicfile.Output(path, 0o644)
	if err != nil {
		return nil, err
	}
	err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, size)
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG) {
		return nil, errors.Join(&SpaceError{Path: path, Size: size, Err: err}, f.Abort())
	}
	return f, nil // elsewhere a full disk shows as it is written
}

func writing(path string, size int64, err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG) {
		return &SpaceError{Path: path, Size: size, Err: err}
	}
	if _, ok := errors.AsType[*os.PathError](err); ok {
		return fmt.Errorf("writing %q: %w", path, err)
	}
	return fmt.Errorf("saving to %q: %w", path, err)
}

// digestOf hashes what passes.
type digestOf struct {
	w io.Writer
	d digest.Digester
	n int64
}

func (d *digestOf) Write(p []byte) (int, error) {
	n, err := d.w.Write(p)
	_, _ = d.d.Hash().Write(p[:n]) // a hash takes all
	d.n += int64(n)
	return n, err
}
