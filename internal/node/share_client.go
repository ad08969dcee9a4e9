// SPDX-License-Identifier: Apache-2.0

package node

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/sealerio/sealer/internal/peers"
	"github.com/sealerio/sealer/internal/swarm"
)

// How long a peer may send nothing, and how long a whole answer may take: below 128 KiB/s others are faster.
const (
	peerStall  = 15 * time.Second
	peerAnswer = time.Minute
)

// partsPath is where a host gives parts: a JSON list of ranges is posted, their bytes are the answer.
const partsPath = "/parts"

type blobRange struct {
	Digest digest.Digest `json:"digest"`
	Offset int64         `json:"offset"`
	Length int64         `json:"length"`
}

// peerClient asks other hosts.
type peerClient struct {
	http *http.Client

	mu    sync.Mutex
	peers map[int]peers.Peer
	addrs map[string]string // by name and port
}

func newPeerClient(config *tls.Config) *peerClient {
	c := &peerClient{peers: map[int]peers.Peer{}, addrs: map[string]string{}}
	dialer := net.Dialer{Timeout: dialPatience}
	c.http = &http.Client{Transport: &http.Transport{
		TLSClientConfig: config, MaxIdleConnsPerHost: 8, IdleConnTimeout: time.Minute, TLSHandshakeTimeout: peerStall, ReadBufferSize: 64 << 10,
		// Hosts are known to one another by the names in their certificates, which no resolver knows.
		DialContext: func(ctx context.Context, network, name string) (net.Conn, error) {
			c.mu.Lock()
			address := c.addrs[name]
			c.mu.Unlock()
			return dialer.DialContext(ctx, network, address)
		},
	}}
	return c
}

func (c *peerClient) add(list []peers.Peer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range list {
		c.peers[p.ID] = p
		c.addrs[p.Name+":443"] = p.Address
	}
}

func (c *peerClient) close() { c.http.CloseIdleConnections() }

// open asks a peer for ranges; their bytes are the body, which the caller closes.
func (c *peerClient) open(ctx context.Context, from int, list []blobRange) (io.ReadCloser, *partError) {
	c.mu.Lock()
	peer, known := c.peers[from]
	c.mu.Unlock()
	if !known {
		return nil, &partError{swarm.Unreachable, fmt.Errorf("asking host %d: it is not known here", from)}
	}
	ask, err := json.Marshal(list)
	if err != nil {
		return nil, &partError{"", err}
	}
	want := int64(0)
	for _, r := range list {
		want += r.Length
	}
	ctx, cancel := context.WithCancelCause(ctx)
	b := &peerBody{peer: peer.Address, cancel: cancel}
	b.stall = time.AfterFunc(peerStall, func() { cancel(errStall) })
	b.answer = time.AfterFunc(peerAnswer, func() { cancel(errStall) })
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+peer.Name+partsPath, bytes.NewReader(ask))
	if err != nil {
		b.end()
		return nil, &partError{"", err}
	}
	res, err := c.http.Do(req) //nolint:bodyclose // peerBody closes it
	if err != nil {
		err = b.reason(ctx, err)
		b.end()
		return nil, broken(err)
	}
	b.body, b.ctx = res.Body, ctx
	if res.StatusCode != http.StatusOK || res.ContentLength != want {
		_ = b.Close()
		if res.StatusCode == http.StatusNotFound {
			return nil, &partError{swarm.Absent, fmt.Errorf("%s does not have it", peer.Address)}
		}
		return nil, &partError{swarm.Cut, fmt.Errorf("%s answers %s with %d bytes", peer.Address, res.Status, res.ContentLength)}
	}
	return b, nil
}

var errStall = errors.New("it is too slow")

// peerBody is an answer; its errors are *partError.
type peerBody struct {
	peer          string
	body          io.ReadCloser
	ctx           context.Context //nolint:containedctx // that of the request, for its cause
	cancel        context.CancelCauseFunc
	stall, answer *time.Timer
}

func (b *peerBody) Read(p []byte) (int, error) {
	n, err := b.body.Read(p)
	b.stall.Reset(peerStall)
	if err != nil && (!errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)) {
		err = b.reason(b.ctx, err)
	}
	return n, err
}

// reason says what went wrong.
func (b *peerBody) reason(ctx context.Context, err error) error {
	reason := swarm.Cut
	var op *net.OpError
	var cert *tls.CertificateVerificationError
	switch {
	case errors.Is(context.Cause(ctx), errStall):
		reason, err = swarm.Slow, errStall
	case errors.As(err, &op) && op.Op == "dial", errors.As(err, &cert):
		reason = swarm.Unreachable
	}
	return &partError{reason, fmt.Errorf("getting from %s: %w", b.peer, err)}
}

func (b *peerBody) Close() error {
	// What is left of a good answer is nothing, and the connection goes on; that of a bad one is cut.
	_, _ = io.CopyN(io.Discard, b.body, 1)
	err := b.body.Close()
	b.end()
	return err
}

func (b *peerBody) end() {
	b.stall.Stop()
	b.answer.Stop()
	b.cancel(nil)
}
