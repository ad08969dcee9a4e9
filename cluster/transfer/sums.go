// SPDX-License-Identifier: Apache-2.0

package transfer

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/internal/peers"
	"github.com/sealerio/sealer/internal/swarm"
)

// partSums are the digests of the beginnings of blobs, by which a host knows with every part whether it is right, before it gives it on. All
// those of a blob cost one reading.
type partSums struct {
	content content.Provider
	blobs   []runningSum
}

type runningSum struct {
	peers.Blob

	mu   sync.Mutex
	hash hash.Hash
	sums []digest.Digest // after each part
}

func newPartSums(c content.Provider, blobs []peers.Blob) *partSums {
	p := &partSums{content: c, blobs: make([]runningSum, len(blobs))}
	for i, b := range blobs {
		p.blobs[i].Blob = b
	}
	return p
}

// upTo is the digest of a blob's first bytes, up to the end of a part.
func (p *partSums) upTo(ctx context.Context, blob int, end int64) (_ digest.Digest, err error) {
	s := &p.blobs[blob]
	n := int(end / swarm.PartSize)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hash == nil {
		s.hash = sha256.New()
	}
	if n <= len(s.sums) {
		return s.sums[n-1], nil
	}
	at, err := p.content.ReaderAt(ctx, ocispec.Descriptor{Digest: s.Digest, Size: s.Size})
	if err != nil {
		return "", fmt.Errorf("reading %s: %w", s.Digest, err)
	}
	defer func() { err = errors.Join(err, at.Close()) }()
	for len(s.sums) < n {
		if _, err := io.Copy(s.hash, io.NewSectionReader(at, int64(len(s.sums))*swarm.PartSize, swarm.PartSize)); err != nil {
			return "", fmt.Errorf("reading %s: %w", s.Digest, err)
		}
		s.sums = append(s.sums, digest.NewDigest(digest.SHA256, s.hash))
	}
	return s.sums[n-1], nil
}
