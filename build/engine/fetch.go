// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// fetchTimeout is how long a server may send nothing of a file that ADD or APP names.
const fetchTimeout = 2 * time.Minute

// SilentServerError is a server that stopped sending in the middle of a file, or never began.
type SilentServerError struct {
	Host string
	For  time.Duration
}

func (e *SilentServerError) Error() string {
	return fmt.Sprintf("%s has sent nothing for %s", e.Host, e.For)
}

// patientTransport bounds the time in which nothing comes, not that of a whole file, which may be large.
type patientTransport struct {
	inner http.RoundTripper
	quiet time.Duration
}

func (t *patientTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(r.Context())
	silent := &SilentServerError{Host: r.URL.Host, For: t.quiet}
	timer := time.AfterFunc(t.quiet, func() { cancel(silent) })
	resp, err := t.inner.RoundTrip(r.WithContext(ctx))
	timer.Stop()
	if err != nil {
		err = silence(ctx, err)
		cancel(nil)
		return nil, err
	}
	resp.Body = &patientBody{ReadCloser: resp.Body, ctx: ctx, cancel: cancel, timer: timer, quiet: t.quiet}
	return resp, nil
}

// silence is what ended a request: the server's silence goes before the cancellation that follows it.
func silence(ctx context.Context, err error) error {
	if silent, ok := errors.AsType[*SilentServerError](context.Cause(ctx)); ok && !errors.Is(err, io.EOF) {
		return silent
	}
	return err
}

// patientBody is read under the timer, which rests while nobody reads.
type patientBody struct {
	io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
	quiet  time.Duration
}

func (b *patientBody) Read(p []byte) (int, error) {
	b.timer.Reset(b.quiet)
	n, err := b.ReadCloser.Read(p)
	b.timer.Stop()
	if err != nil {
		err = silence(b.ctx, err)
	}
	return n, err
}

func (b *patientBody) Close() error {
	b.timer.Stop()
	err := b.ReadCloser.Close()
	b.cancel(nil)
	return err
}
