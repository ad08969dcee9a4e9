// SPDX-License-Identifier: Apache-2.0

// Package peers is what an operator and the hosts say to one another while
// content goes from host to host, and the certificates by which hosts know one
// another meanwhile.
//
// On every host a command runs whose standard input brings orders and whose
// standard output brings reports, one JSON document a line. After an order to
// take what the operator sends itself the bytes follow. When the input ends the command ends, so that
// nothing outlives an operator, and with it the server on the host and the key, which was
// never written to a disk.
package peers

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/opencontainers/go-digest"
)

// DefaultPort is where hosts listen for one another. Where it is taken they listen on any.
const DefaultPort = 9447

// Lease is how long a host waits for an order until it takes the operator for lost, Tick how often one is given.
const (
	Lease = time.Minute
	Tick  = 10 * time.Second
)

// maxLine bounds an order and a report, in bytes.
const maxLine = 64 << 20

// Hello is the first order.
type Hello struct {
	Identity
	// Port is where to listen; 0: any; negative: not at all.
	Port  int    `json:"port"`
	Blobs []Blob `json:"blobs"`
	// Token lets other hosts fetch this program.
	Token string `json:"token,omitempty"`
}

// Blob is a blob of which the host may get parts, or give them to others. Others name it by its place in the list.
type Blob struct {
	Digest digest.Digest `json:"digest"`
	Size   int64         `json:"size"`
}

// Peer is a host to ask for parts; others name it by its ID.
type Peer struct {
	ID      int    `json:"id"`
	Address string `json:"address"` // IP:port
	Name    string `json:"name"`    // in its certificate
}

// Part is a range of a blob. Sum is the digest of all of the blob up to the range's end; empty at the end of the blob.
type Part struct {
	Blob   int           `json:"b"`
	Offset int64         `json:"o"`
	Length int64         `json:"n"`
	Sum    digest.Digest `json:"s,omitempty"`
}

// Get is an order to get parts from a peer, or, where From is 0, out of what follows the order.
type Get struct {
	ID    int    `json:"id"`
	From  int    `json:"from,omitempty"`
	Parts []Part `json:"parts"`
}

// Order is one line to a host. An empty one says that the operator is there.
type Order struct {
	Hello *Hello `json:"hello,omitempty"`
	Peers []Peer `json:"peers,omitempty"`
	Get   *Get   `json:"get,omitempty"`
	End   bool   `json:"end,omitempty"`
}

// Serving is the first report.
type Serving struct {
	Port int `json:"port"` // 0: it does not
	// Have are the blobs that are there, Begun those of which some bytes are.
	Have  []int `json:"have,omitempty"`
	Begun []At  `json:"begun,omitempty"`
}

// At is a place in a blob.
type At struct {
	Blob   int   `json:"b"`
	Offset int64 `json:"o"`
}

// Failed is a Get that failed.
type Failed struct {
	ID     int    `json:"id"`
	Reason string `json:"reason"` // one of package swarm's
	Text   string `json:"text"`
	// At is where the host goes on with the blobs of the Get.
	At []At `json:"at"`
}

// Report is one line from a host.
type Report struct {
	Serving *Serving `json:"serving,omitempty"`
	Have    []At     `json:"have,omitempty"` // right up to there, and kept where it is all of the blob
	Done    []int    `json:"done,omitempty"` // Gets
	Failed  *Failed  `json:"failed,omitempty"`
	// Fatal is why the host can go on no more, such as a full disk.
	Fatal string `json:"fatal,omitempty"`
}

// Write writes one line.
func Write(w io.Writer, v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("writing to a peer: %w", err)
	}
	_, err = w.Write(append(line, '\n'))
	return err
}

// Read reads one line; io.EOF is an end between lines.
func Read(r *bufio.Reader, v any) error {
	var line []byte
	for {
		piece, err := r.ReadSlice('\n')
		line = append(line, piece...)
		switch {
		case len(line) > maxLine:
			return fmt.Errorf("reading from a peer: a line is longer than %d bytes", maxLine)
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF) && len(line) > 0:
			return fmt.Errorf("reading from a peer: it ended within a line: %w", io.ErrUnexpectedEOF)
		case err != nil:
			return err
		}
		d := json.NewDecoder(bytes.NewReader(line))
		if err := d.Decode(v); err != nil {
			return fmt.Errorf("reading from a peer: %.60q: %w", line, err)
		}
		return nil
	}
}
