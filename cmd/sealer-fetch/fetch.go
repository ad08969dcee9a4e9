// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const (
	defaultTries = 5
	defaultStall = 60 * time.Second // without a byte
	maxDelay     = 30 * time.Second
	maxRedirects = 20
)

// job is one file to fetch.
type job struct {
	url, output       string // output "-" is stdout
	method, body      string
	header            http.Header
	user, password    string
	caFile, proxy     string
	tries             int
	stall, limit      time.Duration
	quiet, follow     bool
	insecure, noProxy bool
	httpsOnly         bool
	resume, appendTo  bool
	makeDirs          bool
	client            *http.Client
	received, start   int64
	validator         string // ETag or Last-Modified: proof that a second answer is of the same file
	truncate          func() error
	ranged            bool
}

type statusError struct {
	url    string
	status string
	code   int
	after  time.Duration
}

func (e *statusError) Error() string {
	return fmt.Sprintf("%s: the server answers %s", e.url, e.status)
}

func (e *statusError) temporary() bool {
	return e.code >= 500 || e.code == http.StatusTooManyRequests || e.code == http.StatusRequestTimeout
}

// permanentError is one that another try does not change.
type permanentError struct{ error }

func (e *permanentError) Unwrap() error { return e.error }

func (j *job) run(ctx context.Context) error {
	if j.limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, j.limit)
		defer cancel()
	}
	if j.stall <= 0 {
		j.stall = defaultStall
	}
	if err := j.connect(); err != nil {
		return err
	}
	if j.output == "-" {
		return j.fetch(ctx, os.Stdout)
	}
	return j.intoFile(ctx)
}

// intoFile fetches into a file beside the wanted one and renames it, so that the wanted one is whole or not there. Only
// -c, which asks for it, leaves a part.
func (j *job) intoFile(ctx context.Context) (err error) {
	if j.makeDirs || filepath.Dir(j.output) != "." {
		if err := os.MkdirAll(filepath.Dir(j.output), 0o755); err != nil {
			return err
		}
	}
	var f *os.File
	switch {
	case j.resume:
		f, err = os.OpenFile(j.output, os.O_CREATE|os.O_RDWR, 0o644)
		if err == nil {
			j.start, err = f.Seek(0, io.SeekEnd)
		}
	case j.appendTo:
		f, err = os.OpenFile(j.output, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	default:
		f, err = os.CreateTemp(filepath.Dir(j.output), "."+filepath.Base(j.output)+".*")
	}
	if err != nil {
		return err
	}
	whole := !j.resume && !j.appendTo
	defer func() {
		if err != nil {
			_ = f.Close()
			if whole {
				_ = os.Remove(f.Name())
			}
		}
	}()
	if !j.appendTo {
		j.truncate = func() error {
			if err := f.Truncate(0); err != nil {
				return err
			}
			_, err := f.Seek(0, io.SeekStart)
			return err
		}
	}
	if err := j.fetch(ctx, f); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if !whole {
		return nil
	}
	if err := os.Chmod(f.Name(), 0o644); err != nil {
		return err
	}
	return os.Rename(f.Name(), j.output)
}

func (j *job) connect() error {
	transport := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout:   30 * time.Second,
		ResponseHeaderTimeout: j.stall,
		DisableCompression:    true, // the bytes as they are, with the length that was announced
		ForceAttemptHTTP2:     true,
		TLSClientConfig:       &tls.Config{MinVersion: tls.VersionTLS12},
	}
	if j.noProxy {
		transport.Proxy = nil
	}
	if j.proxy != "" {
		u, err := url.Parse(address(j.proxy))
		if err != nil {
			return err
		}
		transport.Proxy = http.ProxyURL(u)
	}
	if j.caFile != "" {
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		pem, err := os.ReadFile(j.caFile)
		if err != nil {
			return err
		}
		if !pool.AppendCertsFromPEM(pem) {
			return fmt.Errorf("reading %q: it holds no certificate", j.caFile)
		}
		transport.TLSClientConfig.RootCAs = pool
	}
	if j.insecure {
		fmt.Fprintf(os.Stderr, "warning: the certificate of %s is not checked\n", j.url)
		transport.TLSClientConfig.InsecureSkipVerify = true
	}
	j.client = &http.Client{Transport: transport, CheckRedirect: j.redirect}
	return nil
}

func (j *job) redirect(to *http.Request, via []*http.Request) error {
	if !j.follow {
		return http.ErrUseLastResponse
	}
	if len(via) >= maxRedirects {
		return &permanentError{errors.New("too many redirects")}
	}
	if to.URL.Scheme == "http" && (j.httpsOnly || via[0].URL.Scheme == "https") && !j.insecure {
		return &permanentError{fmt.Errorf("redirected from https to %s", to.URL.Redacted())}
	}
	return nil
}

func (j *job) fetch(ctx context.Context, w io.Writer) error {
	var err error
	for try := 1; ; try++ {
		err = j.once(ctx, w)
		var permanent *permanentError
		var status *statusError
		if err == nil || ctx.Err() != nil || errors.As(err, &permanent) || errors.As(err, &status) && !status.temporary() {
			return err
		}
		if j.tries > 0 && try >= j.tries {
			return fmt.Errorf("%w (tried %d times)", err, try)
		}
		if j.received > 0 && j.truncate == nil && j.validator == "" {
			return fmt.Errorf("%w (what was written cannot be taken back)", err)
		}
		delay := min(time.Second<<min(try-1, 5), maxDelay)
		if status != nil && status.after > 0 {
			delay = min(status.after, 4*maxDelay)
		}
		if !j.quiet {
			fmt.Fprintf(os.Stderr, "%v: trying again in %s\n", err, delay)
		}
		timer := time.NewTimer(delay)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
	}
}

func (j *job) request(ctx context.Context) (*http.Request, error) {
	method := j.method
	if method == "" {
		method = http.MethodGet
	}
	var body io.Reader
	if j.body != "" {
		body = strings.NewReader(j.body)
	}
	req, err := http.NewRequestWithContext(ctx, method, j.url, body) //nolint:gosec // the URL is what the user asks for
	if err != nil {
		return nil, &permanentError{err}
	}
	if scheme := req.URL.Scheme; scheme != "https" && (scheme != "http" || j.httpsOnly) {
		return nil, &permanentError{fmt.Errorf("%s: the protocol is not allowed", j.url)}
	}
	req.Header = j.header.Clone()
	if req.Header.Get("User-Agent") == "" {
		req.Header.Set("User-Agent", "sealer-fetch")
	}
	if j.body != "" && req.Header.Get("Content-Type") == "" {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if j.user != "" {
		req.SetBasicAuth(j.user, j.password)
	}
	offset := j.start + j.received
	j.ranged = offset > 0 && (j.received == 0 || j.validator != "")
	if j.ranged {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
		if j.validator != "" {
			req.Header.Set("If-Range", j.validator)
		}
	}
	return req, nil
}

func (j *job) once(ctx context.Context, w io.Writer) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	req, err := j.request(ctx)
	if err != nil {
		return err
	}
	resp, err := j.client.Do(req) //nolint:gosec // as above
	if err != nil {
		if _, unknown := errors.AsType[x509.UnknownAuthorityError](err); unknown {
			return &permanentError{fmt.Errorf("%w (SSL_CERT_FILE names a file of further authorities)", err)}
		}
		_, host := errors.AsType[x509.HostnameError](err)
		_, invalid := errors.AsType[x509.CertificateInvalidError](err)
		if host || invalid {
			return &permanentError{err}
		}
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if done, err := j.answer(resp); done || err != nil {
		return err
	}
	stalled := time.AfterFunc(j.stall, func() { cancel(fmt.Errorf("no byte for %s", j.stall)) })
	defer stalled.Stop()
	buf := make([]byte, 256<<10)
	for {
		n, err := resp.Body.Read(buf)
		if n > 0 {
			stalled.Reset(j.stall)
			if _, err := w.Write(buf[:n]); err != nil {
				return &permanentError{err}
			}
			j.received += int64(n)
		}
		if errors.Is(err, io.EOF) {
			if !j.quiet && j.output != "-" {
				fmt.Fprintf(os.Stderr, "%s: %d bytes\n", j.output, j.start+j.received)
			}
			return nil
		}
		if err != nil {
			if cause := context.Cause(ctx); cause != nil {
				err = cause
			}
			return fmt.Errorf("%s: %w", j.url, err)
		}
	}
}

// answer looks at status and headers. done says that there is nothing more to read.
func (j *job) answer(resp *http.Response) (done bool, err error) {
	offset := j.start + j.received
	switch code := resp.StatusCode; {
	case code == http.StatusPartialContent && j.ranged:
		if !strings.HasPrefix(resp.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", offset)) {
			return false, &permanentError{fmt.Errorf("%s: the server sends other bytes than it was asked for", j.url)}
		}
	case code == http.StatusRequestedRangeNotSatisfiable && j.ranged && resp.Header.Get("Content-Range") == fmt.Sprintf("bytes */%d", offset):
		return true, nil // all of it is there
	case code >= 300 && code < 400:
		return false, &permanentError{fmt.Errorf("%s: redirected to %s: use -L", j.url, resp.Header.Get("Location"))}
	case code >= 400:
		e := &statusError{url: j.url, status: resp.Status, code: code}
		if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil {
			e.after = time.Duration(s) * time.Second
		}
		return false, e
	default:
		if offset > 0 { // the file from its start
			if j.truncate == nil {
				return false, &permanentError{fmt.Errorf("%s: the server cannot go on where the connection broke", j.url)}
			}
			if err := j.truncate(); err != nil {
				return false, &permanentError{err}
			}
			j.start, j.received = 0, 0
		}
	}
	j.validator = resp.Header.Get("ETag")
	if strings.HasPrefix(j.validator, "W/") {
		j.validator = "" // a weak one does not vouch for bytes
	}
	if j.validator == "" {
		j.validator = resp.Header.Get("Last-Modified")
	}
	return false, nil
}
