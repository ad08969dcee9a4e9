// SPDX-License-Identifier: Apache-2.0

package node

import (
	"bufio"
	"context"
	"crypto/subtle"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// How long a host that asks may take to say what, and to read what it gets.
const (
	askPatience  = 10 * time.Second
	readPatience = 30 * time.Second
)

// tlsHandshake is the first byte of a TLS connection (RFC 8446, 5.1).
const tlsHandshake = 22

// listen gives parts to other hosts until it is closed.
func (s *sharing) listen(ctx context.Context, config *tls.Config) (io.Closer, int, error) {
	inner, err := s.listenTCP(ctx)
	if err != nil {
		return nil, 0, err
	}
	l := &sharedListener{Listener: inner, token: s.hello.Token, conns: make(chan net.Conn), closed: make(chan struct{})}
	go l.accept()
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+partsPath, s.give)
	server := &http.Server{
		Handler: mux, ReadHeaderTimeout: askPatience, ReadTimeout: readPatience, IdleTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0),
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){}, // HTTP/2 would cost more
	}
	go func() { _ = server.Serve(tls.NewListener(l, config)) }() // it ends when it is closed
	_, port, err := net.SplitHostPort(inner.Addr().String())
	if err != nil {
		return nil, 0, errors.Join(err, l.Close(), server.Close())
	}
	number, err := strconv.Atoi(port)
	return &shareServer{server, l}, number, err
}

// shareServer closes its listener by itself: a server that is closed before it began to serve leaves that for later.
type shareServer struct {
	*http.Server
	listener io.Closer
}

func (s *shareServer) Close() error { return errors.Join(s.listener.Close(), s.Server.Close()) }

// give answers with the bytes of ranges, of blobs of this transfer alone.
func (s *sharing) give(w http.ResponseWriter, req *http.Request) {
	var list []blobRange
	if err := json.NewDecoder(io.LimitReader(req.Body, 1<<20)).Decode(&list); err != nil {
		http.Error(w, "this is no list of ranges", http.StatusBadRequest)
		return
	}
	total := int64(0)
	var files []*os.File
	defer func() {
		for _, f := range files {
			_ = f.Close()
		}
	}()
	for _, r := range list {
		b := s.byDigest[r.Digest]
		if b == nil || r.Offset < 0 || r.Length < 0 || r.Length > maxGet || r.Offset+r.Length > b.Size {
			http.Error(w, "there is no such range", http.StatusNotFound)
			return
		}
		f := b.open(r.Offset + r.Length)
		if f == nil {
			http.Error(w, "it is not here", http.StatusNotFound)
			return
		}
		files = append(files, f)
		total += r.Length
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(total, 10))
	rc := http.NewResponseController(w)
	buf := make([]byte, 128<<10)
	for i, r := range list {
		from := io.NewSectionReader(files[i], r.Offset, r.Length)
		for {
			n, err := from.Read(buf)
			if n > 0 {
				_ = rc.SetWriteDeadline(time.Now().Add(readPatience)) // the connection has one
				if _, err := w.Write(buf[:n]); err != nil {
					return // whoever asked is gone
				}
			}
			if err != nil { // the end, or less than there was: then the answer is too short, and seen to be
				break
			}
		}
	}
}

// sharedListener passes TLS connections on, and answers by itself those that ask for this program.
type sharedListener struct {
	net.Listener
	token  string
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func (l *sharedListener) accept() {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			_ = l.Close()
			return
		}
		go l.look(c)
	}
}

// look reads the first byte.
func (l *sharedListener) look(c net.Conn) {
	r := bufio.NewReaderSize(c, 4<<10)
	_ = c.SetDeadline(time.Now().Add(askPatience))
	first, err := r.Peek(1)
	if err != nil || first[0] != tlsHandshake && l.token == "" {
		_ = c.Close()
		return
	}
	if first[0] != tlsHandshake {
		giveProgram(c, r, l.token)
		return
	}
	_ = c.SetDeadline(time.Time{})
	select {
	case l.conns <- &peekedConn{c, r}:
	case <-l.closed:
		_ = c.Close()
	}
}

func (l *sharedListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *sharedListener) Close() error {
	err := net.ErrClosed
	l.once.Do(func() {
		close(l.closed)
		err = l.Listener.Close()
	})
	return err
}

// peekedConn is a connection of which some bytes were looked at.
type peekedConn struct {
	net.Conn
	r *bufio.Reader
}

func (p *peekedConn) Read(b []byte) (int, error) { return p.r.Read(b) }

// giveProgram sends this program to a host that has nothing yet but a shell: no TLS, therefore. Whoever asked for it checks its digest. The
// token keeps strangers from asking; what they would get is no secret.
func giveProgram(c net.Conn, r *bufio.Reader, token string) {
	defer func() { _ = c.Close() }()
	line, err := r.ReadString('\n')
	if err != nil || subtle.ConstantTimeCompare([]byte(strings.TrimSpace(line)), []byte("sealer-node "+token)) != 1 {
		return
	}
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		return
	}
	defer func() { _ = f.Close() }()
	_ = c.SetDeadline(time.Now().Add(5 * time.Minute))
	_, _ = io.Copy(c, f) // a short copy is seen by its digest
}
