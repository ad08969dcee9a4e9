// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"path/filepath"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// pollIngest is how often a blob that another process is writing is looked for.
const pollIngest = 200 * time.Millisecond

// ingestRef is the name under which a blob that came in part is found again:
// by another process, and from another source.
func ingestRef(d digest.Digest) string { return "blob-" + d.String() }

// IngestOption changes how a blob is taken in.
type IngestOption func(*ingesting)

type ingesting struct{ resumable bool }

// Resumable keeps what came of a small blob, too, where its sender goes on in its middle.
func Resumable() IngestOption { return func(i *ingesting) { i.resumable = true } }

// Ingest opens the writer of a blob, at the end of what an earlier try has
// left, and waits while another process writes it. errdefs.ErrAlreadyExists
// says that the blob is there by now. The caller closes the writer; what was
// not committed then is continued from by the next Ingest of the digest,
// whether it comes from a registry or from an archive. A blob of at most 256 KiB
// is kept in memory until it is complete, and leaves nothing unless it is Resumable.
func (s *Store) Ingest(ctx context.Context, desc ocispec.Descriptor, opts ...IngestOption) (content.Writer, error) {
	var o ingesting
	for _, opt := range opts {
		opt(&o)
	}
	if !o.resumable && isSmall(desc) {
		return s.newSmallWriter(ingestRef(desc.Digest), desc)
	}
	var tick *time.Ticker
	for {
		w, err := s.content.Writer(ctx, content.WithRef(ingestRef(desc.Digest)), content.WithDescriptor(desc))
		if !errdefs.IsUnavailable(err) {
			return w, err
		}
		if tick == nil {
			tick = time.NewTicker(pollIngest)
			defer tick.Stop()
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// Ingested is how many bytes of a blob have come, on the disk, without all of it being there.
func (s *Store) Ingested(ctx context.Context, d digest.Digest) (int64, error) {
	status, err := s.content.Status(ctx, ingestRef(d))
	if errdefs.IsNotFound(err) {
		return 0, nil
	}
	return status.Offset, err
}

// IngestPath is where the bytes of a blob lie while it comes, unless it is a small one that is not Resumable. It is containerd's content
// store that names it so (plugins/content/local).
func (s *Store) IngestPath(d digest.Digest) string {
	return filepath.Join(s.dir, ingestDir, digest.FromString(ingestRef(d)).Encoded(), "data")
}

// AbortIngest throws away what came of a blob, if anything did.
func (s *Store) AbortIngest(ctx context.Context, d digest.Digest) error {
	if err := s.content.Abort(ctx, ingestRef(d)); !errdefs.IsNotFound(err) {
		return err
	}
	return nil
}
