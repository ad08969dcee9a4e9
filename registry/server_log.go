// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"reflect"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
)

// withDistributionLog makes distribution log to w. Its key for a logger in a
// context is not exported, and without one it writes to the process' standard
// error; so the context answers for every key of that type.
func withDistributionLog(ctx context.Context, w io.Writer) context.Context {
	l := logrus.New()
	l.SetOutput(w)
	l.SetLevel(logrus.WarnLevel)
	if w == io.Discard {
		l.SetLevel(logrus.PanicLevel)
	}
	return &logContext{Context: ctx, entry: logrus.NewEntry(l)}
}

type logContext struct {
	context.Context
	entry *logrus.Entry
}

// Value implements context.Context.
func (c *logContext) Value(key any) any {
	if v := c.Context.Value(key); v != nil {
		return v
	}
	if t := reflect.TypeOf(key); t != nil && t.Name() == "loggerKey" &&
		t.PkgPath() == "github.com/distribution/distribution/v3/internal/dcontext" {
		return c.entry
	}
	return nil
}

// accessLog writes a line for each request.
type accessLog struct {
	next http.Handler
	mu   sync.Mutex
	out  io.Writer
}

func (a *accessLog) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	cw := &countingWriter{ResponseWriter: w, status: http.StatusOK}
	// The path as it was asked for; handlers see a rewritten one.
	line := r.Method + " " + r.URL.EscapedPath()
	if ns := r.URL.Query().Get("ns"); ns != "" {
		line += "?ns=" + ns
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	user, _, ok := r.BasicAuth()
	if !ok {
		user = "-"
	}
	a.next.ServeHTTP(cw, r)
	a.mu.Lock()
	defer a.mu.Unlock()
	// A log that cannot be written is no reason not to serve.
	_, _ = fmt.Fprintf(a.out, "%s - %q [%s] %q %d %d %s\n",
		host, user, start.Format("02/Jan/2006:15:04:05 -0700"), line, cw.status, cw.bytes, time.Since(start).Round(time.Microsecond))
}

type countingWriter struct {
	http.ResponseWriter
	status int
	bytes  int64
	wrote  bool
}

func (w *countingWriter) WriteHeader(code int) {
	if !w.wrote {
		w.wrote, w.status = true, code
	}
	w.ResponseWriter.WriteHeader(code)
}

func (w *countingWriter) Write(p []byte) (int, error) {
	w.wrote = true
	n, err := w.ResponseWriter.Write(p)
	w.bytes += int64(n)
	return n, err
}

// ReadFrom keeps the kernel's way from file to socket open.
func (w *countingWriter) ReadFrom(r io.Reader) (int64, error) {
	w.wrote = true
	n, err := io.Copy(w.ResponseWriter, r)
	w.bytes += n
	return n, err
}

// Unwrap lets http.ResponseController reach the connection.
func (w *countingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
