// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var content = bytes.Repeat([]byte("0123456789abcdef"), 64<<10)

// site answers as servers in the field do: a file, a redirect, errors that pass and errors that stay, a broken connection.
func site(t *testing.T) *http.ServeMux {
	t.Helper()
	mux := http.NewServeMux()
	file := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"v1"`)
		http.ServeContent(w, r, "file", time.Time{}, bytes.NewReader(content))
	}
	mux.HandleFunc("/file", file)
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/file", http.StatusFound) })
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) { _, _ = fmt.Fprint(w, r.Header.Get("X-Token")) })
	var busy, cut atomic.Int32
	mux.HandleFunc("/busy", func(w http.ResponseWriter, r *http.Request) {
		if busy.Add(1) == 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		file(w, r)
	})
	mux.HandleFunc("/cut", func(w http.ResponseWriter, r *http.Request) {
		if cut.Add(1) == 1 {
			w.Header().Set("ETag", `"v1"`)
			w.Header().Set("Content-Length", fmt.Sprint(len(content)))
			_, _ = w.Write(content[:len(content)/2])
			panic(http.ErrAbortHandler)
		}
		if r.Header.Get("Range") != fmt.Sprintf("bytes=%d-", len(content)/2) {
			t.Errorf("asked for %q", r.Header.Get("Range"))
		}
		file(w, r)
	})
	return mux
}

func TestFiles(t *testing.T) {
	srv := httptest.NewServer(site(t))
	defer srv.Close()
	for _, c := range []struct {
		name string
		args string // URL stands for the server
		code int
		file string // that must hold the content
	}{
		{"wget names the file", "wget -q URL/file", 0, "file"},
		{"wget -O", "wget -q -O out URL/file", 0, "out"},
		{"wget -qO joined", "wget -qO out URL/file", 0, "out"},
		{"wget -P", "wget -nv -P sub URL/file", 0, "sub/file"},
		{"wget follows", "wget -q -O out URL/moved", 0, "out"},
		{"wget: missing", "wget -q -O out URL/nothere", exitFailed, ""},
		{"wget: tries again", "wget -q -O out URL/busy", 0, "out"},
		{"wget: goes on where it broke", "wget -q -O out URL/cut", 0, "out"},
		{"curl -fsSLo", "curl -fsSLo out URL/moved", 0, "out"},
		{"curl -sfL -o", "curl -sfL URL/file -o out", 0, "out"},
		{"curl -O", "curl -fsSL -O URL/file", 0, "file"},
		{"curl --output-dir", "curl -fsSL --create-dirs --output-dir sub -O URL/file", 0, "sub/file"},
		{"curl without -L", "curl -s -o out URL/moved", exitFailed, ""},
		{"curl without -f", "curl -s -o out URL/nothere", exitStatus, ""},
		{"unknown option", "curl --libcurl x URL/file", exitUsage, ""},
		{"no URL", "wget -q", exitUsage, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			t.Chdir(dir)
			require.Equal(t, c.code, run(t.Context(), strings.Fields(strings.ReplaceAll(c.args, "URL", srv.URL))))
			if c.file != "" {
				got, err := os.ReadFile(filepath.Join(dir, c.file))
				require.NoError(t, err)
				require.True(t, bytes.Equal(content, got))
				return
			}
			left, err := os.ReadDir(dir)
			require.NoError(t, err)
			require.Empty(t, left, "a failed download leaves nothing")
		})
	}
}

func TestContinue(t *testing.T) {
	srv := httptest.NewServer(site(t))
	defer srv.Close()
	for _, have := range []int{0, 100, len(content)} {
		t.Chdir(t.TempDir())
		require.NoError(t, os.WriteFile("file", content[:have], 0o644))
		require.Zero(t, run(t.Context(), []string{"wget", "-q", "-c", srv.URL + "/file"}))
		got, err := os.ReadFile("file")
		require.NoError(t, err)
		require.True(t, bytes.Equal(content, got), "had %d bytes", have)
	}
}

func TestCertificates(t *testing.T) {
	srv := httptest.NewTLSServer(site(t))
	defer srv.Close()
	t.Chdir(t.TempDir())
	require.Equal(t, exitFailed, run(t.Context(), []string{"curl", "-fsSo", "out", srv.URL + "/file"}), "nobody vouches for the server")
	require.NoFileExists(t, "out")
	require.Zero(t, run(t.Context(), []string{"curl", "-kfsSo", "out", srv.URL + "/file"}))
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	require.NoError(t, os.WriteFile("ca.pem", ca, 0o644))
	require.Zero(t, run(t.Context(), []string{"curl", "--cacert", "ca.pem", "-fsSo", "out", srv.URL + "/file"}))
}

func TestRedirectToPlainHTTP(t *testing.T) {
	plain := httptest.NewServer(site(t))
	defer plain.Close()
	srv := httptest.NewTLSServer(http.RedirectHandler(plain.URL+"/file", http.StatusFound))
	defer srv.Close()
	t.Chdir(t.TempDir())
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	require.NoError(t, os.WriteFile("ca.pem", ca, 0o644))
	require.Equal(t, exitFailed, run(t.Context(), []string{"wget", "-q", "--ca-certificate=ca.pem", "-O", "out", srv.URL}))
	require.NoFileExists(t, "out")
}

func TestCancelled(t *testing.T) {
	srv := httptest.NewServer(site(t))
	defer srv.Close()
	t.Chdir(t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.Equal(t, exitFailed, run(ctx, []string{"wget", "-q", srv.URL + "/file"}))
}
