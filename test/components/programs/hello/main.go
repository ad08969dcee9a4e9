// SPDX-License-Identifier: Apache-2.0

// Command hello is the workload of the tests: it answers with the content of /greeting, which tells one image from
// another.
package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

const (
	address      = ":8080"
	greetingFile = "/greeting"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "hello:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	greeting, err := os.ReadFile(greetingFile)
	if err != nil {
		return fmt.Errorf("reading the greeting: %w", err)
	}
	if len(args) > 0 && args[0] == "--version" {
		_, err := os.Stdout.Write(greeting)
		return err
	}
	host, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("asking for the host's name: %w", err)
	}
	return serve(ctx, handler(greeting, host))
}

// handler answers "/" with the greeting, "/hostname" with the pod's name, and "/healthz".
func handler(greeting []byte, host string) http.Handler {
	answer := func(body []byte) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			_, _ = w.Write(body) // a client that has gone away is no concern of ours
		}
	}
	mux := http.NewServeMux()
	mux.Handle("GET /{$}", answer(greeting))
	mux.Handle("GET /hostname", answer([]byte(host+"\n")))
	mux.Handle("GET /healthz", answer([]byte("ok\n")))
	return mux
}

// serve listens until ctx ends, then lets requests under way finish.
func serve(ctx context.Context, h http.Handler) error {
	server := &http.Server{Addr: address, Handler: h, ReadHeaderTimeout: 5 * time.Second}
	stopped := make(chan error, 1)
	context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		stopped <- server.Shutdown(grace)
	})
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving on %s: %w", address, err)
	}
	return <-stopped
}
