// SPDX-License-Identifier: Apache-2.0

// Package transfer brings sealer-node and the blobs of an image to the hosts of a cluster: from this machine, and from
// host to host. What is on its way is checked by digest on the host that takes it; what was cut is gone on with.
package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/cluster/program"
	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/internal/blobstream"
	"github.com/sealerio/sealer/internal/progress"
	"github.com/sealerio/sealer/runtime"
)

// Transfer is of one image to the hosts of one cluster.
type Transfer struct {
	Content content.Provider
	// Blobs are what a host needs; each may be named several times.
	Blobs    func(context.Context, *runtime.Host) ([]ocispec.Descriptor, error)
	Binaries program.Binaries
	Display  *progress.Display // nil: silent

	mu    sync.Mutex
	among []*runtime.Host // that share
	share *sharing        // of the phase under way
}

// Spread has these hosts get content from one another until end is called, which takes leave of all of them: nothing of it
// is left there. Without it, and where there is one host alone, all comes from here.
func (t *Transfer) Spread(among []*runtime.Host) (end func()) {
	t.among = among
	return t.endSharing
}

type wantedBlob struct {
	Digest digest.Digest `json:"digest"`
	Size   int64         `json:"size"`
}

type missingBlob struct {
	Digest digest.Digest `json:"digest"`
	Offset int64         `json:"offset"`
}

// Missing asks the host which blobs it lacks, from which byte on.
func (t *Transfer) Missing(ctx context.Context, h *runtime.Host) ([]blobstream.Header, error) {
	blobs, err := t.Blobs(ctx, h)
	if err != nil {
		return nil, err
	}
	sizes := map[digest.Digest]int64{}
	var want []wantedBlob
	for _, b := range blobs {
		if _, seen := sizes[b.Digest]; !seen {
			sizes[b.Digest] = b.Size
			want = append(want, wantedBlob{b.Digest, b.Size})
		}
	}
	var lacks []missingBlob
	if err := (program.Call{In: want, Out: &lacks, Reads: true}).Run(ctx, h, "content", "missing"); err != nil {
		return nil, err
	}
	headers := make([]blobstream.Header, 0, len(lacks))
	for _, m := range lacks {
		size, asked := sizes[m.Digest]
		if !asked || m.Offset < 0 || m.Offset > size {
			return nil, fmt.Errorf("%s: sealer-node asks for %s from byte %d, which was not offered", h, m.Digest, m.Offset)
		}
		headers = append(headers, blobstream.Header{Digest: m.Digest, Size: size, Offset: m.Offset})
	}
	return headers, nil
}

// sendTries is how often a stream that was cut is taken up again within one run.
const sendTries = 4

// Send brings what is missing, from other hosts as far as possible, and goes on where a lost connection has left off. The last try, and
// all to a host that is alone, is a stream from here: nothing but SSH is needed for that.
func (t *Transfer) Send(ctx context.Context, h *runtime.Host, log io.Writer) error {
	var err error
	for try := range sendTries {
		var missing []blobstream.Header
		if missing, err = t.Missing(ctx, h); err != nil || len(missing) == 0 {
			return err
		}
		if t.single() || try == sendTries-1 {
			err = t.stream(ctx, h, missing, log)
		} else {
			err = t.sharing().bring(ctx, h, log)
		}
		_, lost := errors.AsType[*host.LostError](err)
		_, left := errors.AsType[*sharingError](err)
		leftover, again := errors.AsType[*leftoverError](err)
		if !lost && !left && !again || ctx.Err() != nil {
			return err
		}
		if again {
			_, _ = fmt.Fprintln(log, leftover)
			continue
		}
		_, _ = fmt.Fprintf(log, "the connection was lost: going on (%v)\n", err)
	}
	return err
}

// leftoverError is a host that had wrong beginnings of blobs from before; it has thrown them away.
type leftoverError struct {
	host  string
	blobs []digest.Digest
}

func (e *leftoverError) Error() string {
	return fmt.Sprintf("%s: what it had of %s from before is damaged: it is sent again from its first byte", e.host, e.blobs)
}

func (t *Transfer) stream(ctx context.Context, h *runtime.Host, blobs []blobstream.Header, log io.Writer) error {
	total := int64(0)
	for _, b := range blobs {
		total += b.Size - b.Offset
	}
	counter := progress.CounterOf(log, fmt.Sprintf("%d blobs", len(blobs)), total)
	in, out := io.Pipe()
	go func() {
		w := blobstream.NewWriter(out)
		for _, b := range blobs {
			if err := t.writeBlob(ctx, w, b, counter); err != nil {
				_ = out.CloseWithError(err) // the reader gets it
				return
			}
		}
		_ = out.CloseWithError(w.Close())
	}()
	var got struct {
		Blobs     int             `json:"blobs"`
		Bytes     int64           `json:"bytes"`
		Leftovers []digest.Digest `json:"leftovers"`
	}
	err := program.Call{Log: log, Stdin: in, Out: &got}.Run(ctx, h, "content", "receive")
	counter.Done(err)
	_ = in.Close() // ends the writer, where the command ended first
	if err == nil && len(got.Leftovers) > 0 {
		return &leftoverError{h.String(), got.Leftovers}
	}
	if err == nil && got.Blobs != len(blobs) {
		err = fmt.Errorf("%s: sealer-node took %d of %d blobs", h, got.Blobs, len(blobs))
	}
	return err
}

func (t *Transfer) writeBlob(ctx context.Context, w *blobstream.Writer, b blobstream.Header, c *progress.Counter) (err error) {
	at, err := t.Content.ReaderAt(ctx, ocispec.Descriptor{Digest: b.Digest, Size: b.Size})
	if err != nil {
		return fmt.Errorf("reading %s: %w", b.Digest, err)
	}
	defer func() { err = errors.Join(err, at.Close()) }()
	return w.Blob(b, &counting{io.NewSectionReader(at, b.Offset, b.Size-b.Offset), c})
}

// counting tells a counter what is read.
type counting struct {
	r io.Reader
	c *progress.Counter
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.c.Advance(int64(n))
	return n, err
}
