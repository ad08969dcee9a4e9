// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"io"
	"net"
	"os"

	"github.com/containerd/containerd/v2/core/content"
)

// sendChunk is how much of a file the kernel sends before the watchdog and the display hear of it, in bytes: on a slow
// link, the watchdog must not wait for long.
const sendChunk = 128 << 10

// fileConn is a connection in the clear over which the kernel sends files, without a copy through this process.
type fileConn struct{ *net.TCPConn }

// dialFiles is what a transport dials with.
func dialFiles(dialer *net.Dialer) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dialer.DialContext(ctx, network, address)
		if tcp, ok := conn.(*net.TCPConn); ok && err == nil {
			return fileConn{tcp}, nil
		}
		return conn, err
	}
}

// ReadFrom is called by net/http for what is left of a request's body. TLS does not call it.
func (c fileConn) ReadFrom(r io.Reader) (int64, error) {
	if limited, ok := r.(*io.LimitedReader); ok {
		if body, ok := limited.R.(*blobBody); ok {
			n, err := body.sendTo(c.TCPConn, limited.N)
			limited.N -= n
			if err != nil || limited.N <= 0 {
				return n, err
			}
			more, err := c.TCPConn.ReadFrom(r)
			return n + more, err
		}
	}
	return c.TCPConn.ReadFrom(r)
}

// sendTo sends up to limit bytes of the body by the kernel; none where it is no file.
func (b *blobBody) sendTo(conn *net.TCPConn, limit int64) (sent int64, err error) {
	file, ok := b.r.(*os.File)
	for ok && err == nil && sent < limit {
		var n int64
		n, err = b.sendChunk(conn, file, min(sendChunk, limit-sent))
		sent += n
		ok = n > 0
	}
	return sent, err
}

func (b *blobBody) sendChunk(conn *net.TCPConn, file *os.File, size int64) (int64, error) {
	if b.hasEnded() {
		return 0, io.ErrClosedPipe
	}
	n, err := conn.ReadFrom(&io.LimitedReader{R: file, N: size}) // may take long: nothing is locked
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.ended { // who ended it has counted
		b.passed(n)
	}
	return n, err
}

func (b *blobBody) hasEnded() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ended
}

// fileOf is the file behind a blob of the store, at an offset; nil where there is none. It ends with ra.
func fileOf(ra content.ReaderAt, at int64) (*os.File, error) {
	whole, ok := ra.(interface{ Reader() io.Reader })
	if !ok {
		return nil, nil
	}
	limited, ok := whole.Reader().(*io.LimitedReader)
	if !ok {
		return nil, nil
	}
	file, ok := limited.R.(*os.File)
	if !ok {
		return nil, nil
	}
	if _, err := file.Seek(at, io.SeekStart); err != nil {
		return nil, &permanentError{err}
	}
	return file, nil
}
