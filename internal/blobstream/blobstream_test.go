// SPDX-License-Identifier: Apache-2.0

package blobstream_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/internal/blobstream"
)

type blob struct {
	data   string
	offset int64
}

func (b blob) header() blobstream.Header {
	return blobstream.Header{Digest: digest.FromString(b.data), Size: int64(len(b.data)), Offset: b.offset}
}

func encode(t *testing.T, blobs ...blob) []byte {
	t.Helper()
	var out bytes.Buffer
	w := blobstream.NewWriter(&out)
	for _, b := range blobs {
		require.NoError(t, w.Blob(b.header(), strings.NewReader(b.data[b.offset:])))
	}
	require.NoError(t, w.Close())
	return out.Bytes()
}

// decode reads a whole stream; skip leaves bodies unread.
func decode(r io.Reader, skip bool) (headers []blobstream.Header, bodies []string, err error) {
	br := blobstream.NewReader(r)
	for {
		h, err := br.Next()
		if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return headers, bodies, nil
		}
		if err != nil {
			return headers, bodies, err
		}
		headers = append(headers, h)
		if skip {
			continue
		}
		body, err := io.ReadAll(br)
		if err != nil {
			return headers, bodies, err
		}
		bodies = append(bodies, string(body))
	}
}

var some = []blob{{"hello", 0}, {"", 0}, {strings.Repeat("long\n", 50_000), 777}, {"done", 4}}

func TestStream_RoundTrip(t *testing.T) {
	stream := encode(t, some...)
	for name, r := range map[string]io.Reader{
		"whole": bytes.NewReader(stream), "byte by byte": iotest.OneByteReader(bytes.NewReader(stream)),
		"end with the last data": iotest.DataErrReader(bytes.NewReader(stream)),
	} {
		t.Run(name, func(t *testing.T) {
			headers, bodies, err := decode(r, false)
			require.NoError(t, err)
			require.Len(t, headers, len(some))
			for i, b := range some {
				require.Equal(t, b.header(), headers[i])
				require.True(t, b.data[b.offset:] == bodies[i])
			}
		})
	}
	headers, _, err := decode(bytes.NewReader(stream), true)
	require.NoError(t, err)
	require.Len(t, headers, len(some), "bodies that nobody reads are passed over")
	headers, _, err = decode(bytes.NewReader(encode(t)), false)
	require.NoError(t, err)
	require.Empty(t, headers)
}

func TestReader_SeesEveryCut(t *testing.T) {
	stream := encode(t, blob{"hello", 0}, blob{"world!", 2})
	for n := range stream {
		for _, skip := range []bool{false, true} {
			_, _, err := decode(bytes.NewReader(stream[:n]), skip)
			var cut *blobstream.TruncatedError
			require.ErrorAs(t, err, &cut, "cut at %d", n)
			require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		}
	}
}

func TestReader_NamesTheBlobThatWasCut(t *testing.T) {
	stream := encode(t, blob{"one", 0}, blob{"two and more", 0})
	at := bytes.Index(stream, []byte("two"))
	_, _, err := decode(bytes.NewReader(stream[:at+5]), false)
	var cut *blobstream.TruncatedError
	require.ErrorAs(t, err, &cut)
	require.Equal(t, blobstream.TruncatedError{Blobs: 1, Within: digest.FromString("two and more")}, *cut)
}

func TestReader_Refuses(t *testing.T) {
	const begin = "sealer-blobs 1\n"
	sum := digest.FromString("x").String()
	for name, c := range map[string]struct{ in, want string }{
		"something else":  {"Welcome to Ubuntu\n", `begins with "Welcome to Ubuntu"`},
		"another version": {"sealer-blobs 2\n", "begins with"},
		"not JSON":        {begin + "hello\n", `a header is "hello"`},
		"no digest":       {begin + `{"size":1}` + "\n", "a header is wrong"},
		"a path":          {begin + `{"digest":"sha256:../../etc/passwd","size":1}` + "\n", "a header is wrong"},
		"negative size":   {begin + `{"digest":"` + sum + `","size":-1}` + "\n", "a header is wrong"},
		"offset too far":  {begin + `{"digest":"` + sum + `","size":1,"offset":2}` + "\n", "offset 2 of size 1"},
		"wrong count":     {begin + `{"end":true,"blobs":3}` + "\n", "ends after 0 blobs, and says 3"},
		"endless header":  {begin + strings.Repeat("x", 10_000), "longer than 4096"},
		"endless line":    {strings.Repeat("x", 1<<20), "longer than 4096"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := decode(strings.NewReader(c.in), false)
			require.ErrorContains(t, err, c.want)
		})
	}
}

func TestReader_PassesOnErrors(t *testing.T) {
	broken := errors.New("wire on fire")
	stream := encode(t, blob{"hello", 0})
	for _, n := range []int{3, len(stream) - 30} {
		_, _, err := decode(io.MultiReader(bytes.NewReader(stream[:n]), iotest.ErrReader(broken)), false)
		require.ErrorIs(t, err, broken)
	}
}

func TestWriter_Refuses(t *testing.T) {
	w := blobstream.NewWriter(io.Discard)
	b := blob{"hello", 0}
	require.ErrorIs(t, w.Blob(b.header(), strings.NewReader("hell")), io.ErrUnexpectedEOF)
	require.Error(t, w.Blob(b.header(), strings.NewReader("hello")), "the stream is of no use any more")
	require.Error(t, w.Close())

	w = blobstream.NewWriter(io.Discard)
	require.Error(t, w.Blob(blobstream.Header{Digest: "sha256:x", Size: 1}, strings.NewReader("x")))
	w = blobstream.NewWriter(io.Discard)
	require.NoError(t, w.Close())
	require.Error(t, w.Blob(b.header(), strings.NewReader("hello")))
}

func FuzzReader(f *testing.F) {
	f.Add([]byte("sealer-blobs 1\n{\"end\":true}\n"))
	f.Add([]byte("sealer-blobs 1\n{\"digest\":\"" + digest.FromString("x").String() + "\",\"size\":1}\nx{\"end\":true,\"blobs\":1}\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		headers, bodies, err := decode(bytes.NewReader(in), false)
		if err == nil {
			for i, h := range headers {
				if int64(len(bodies[i])) != h.Size-h.Offset {
					t.Fatalf("%v has %d bytes", h, len(bodies[i]))
				}
			}
		}
	})
}
