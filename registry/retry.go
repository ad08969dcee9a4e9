// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"syscall"
	"time"
)

const (
	maxBackoff = 15 * time.Second
	// maxRetryAfter is the longest wait a server may ask for; beyond it the
	// user is told at once.
	maxRetryAfter = 2 * time.Minute
)

// attempts counts the tries of one operation.
type attempts struct {
	c     *Client
	tries int
}

// progressed starts the count again: a connection that moves bytes between
// cuts is slow, not broken.
func (a *attempts) progressed() { a.tries = 0 }

// next decides after a failure: nil to try again, after a wait; else the error to give up with.
func (a *attempts) next(ctx context.Context, what string, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if !transient(err) || a.tries >= a.c.o.Retries {
		return err
	}
	wait := min(a.c.o.Backoff<<a.tries, maxBackoff)
	// Jitter of a quarter, so that many clients do not come back together.
	wait += time.Duration(rand.Int64N(int64(wait)/4 + 1)) //nolint:gosec // no secret
	var se *StatusError
	if errors.As(err, &se) && se.wait > 0 {
		if se.wait > maxRetryAfter {
			return err
		}
		wait = se.wait
	}
	a.tries++
	a.c.o.Logger.InfoContext(ctx, "trying again",
		"what", what, "after", wait, "error", err)
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// retry runs do until it succeeds or fails for good.
func (c *Client) retry(ctx context.Context, what string, do func(ctx context.Context) error) error {
	a := attempts{c: c}
	for {
		err := do(ctx)
		if err == nil {
			return nil
		}
		if err := a.next(ctx, what, err); err != nil {
			return err
		}
	}
}

// transient tells whether the same request may succeed later.
func transient(err error) bool {
	var (
		status   *StatusError
		insecure *InsecureError
		wrong    *DigestError
		schema   *SchemaOneError
		cert     *tls.CertificateVerificationError
		dns      *net.DNSError

		permanent *permanentError
		again     *retryError
	)
	switch {
	case errors.As(err, &again):
		return true
	case errors.As(err, &status):
		return transientStatus(status.Status)
	case errors.As(err, &insecure), errors.As(err, &wrong), errors.As(err, &schema), errors.As(err, &cert),
		errors.As(err, &permanent):
		return false
	case errors.As(err, &dns):
		return !dns.IsNotFound
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EROFS),
		errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return false
	}
	return true
}

// permanentError marks an error that another try will not mend.
type permanentError struct{ err error }

func (e *permanentError) Error() string { return e.err.Error() }

func (e *permanentError) Unwrap() error { return e.err }

// retryError marks an error after which another way is left to be tried.
type retryError struct{ err error }

func (e *retryError) Error() string { return e.err.Error() }

func (e *retryError) Unwrap() error { return e.err }

// refused makes a refused connection final: at the first contact that is a
// wrong address far more often than a registry about to start.
func refused(err error) error {
	if errors.Is(err, syscall.ECONNREFUSED) {
		return &permanentError{err}
	}
	return err
}

func transientStatus(code int) bool {
	switch code {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests, 499:
		return true
	case http.StatusNotImplemented, http.StatusHTTPVersionNotSupported:
		return false
	}
	return code >= 500
}

// retryAfter reads the header's seconds or date; 0 where there is none.
func retryAfter(h http.Header) time.Duration {
	v := h.Get("Retry-After")
	if v == "" {
		return 0
	}
	if s, err := strconv.Atoi(v); err == nil {
		return time.Duration(max(s, 0)) * time.Second
	}
	if t, err := http.ParseTime(v); err == nil {
		return max(time.Until(t), 0)
	}
	return 0
}

// watchdog ends a request's context when nothing moves.
type watchdog struct {
	timer *time.Timer
	after time.Duration
	stop  context.CancelCauseFunc
}

// watch derives a context that is cancelled with a *stallError unless fed in
// time. end must be called.
func watch(ctx context.Context, after time.Duration) (context.Context, *watchdog) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &watchdog{after: after, stop: cancel}
	w.timer = time.AfterFunc(after, func() { cancel(&stallError{after: after}) })
	return ctx, w
}

func (w *watchdog) feed() { w.timer.Reset(w.after) }

// allow gives the next step more time than usual.
func (w *watchdog) allow(d time.Duration) { w.timer.Reset(max(d, w.after)) }

func (w *watchdog) end() {
	w.timer.Stop()
	w.stop(nil)
}

// cause replaces the "context canceled" of a request that the watchdog ended.
func (w *watchdog) cause(ctx context.Context, err error) error {
	var stalled *stallError
	if err != nil && errors.As(context.Cause(ctx), &stalled) {
		return stalled
	}
	return err
}
