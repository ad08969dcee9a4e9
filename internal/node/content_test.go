// SPDX-License-Identifier: Apache-2.0

package node_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/internal/blobstream"
	"github.com/sealerio/sealer/internal/node"
	"github.com/sealerio/sealer/store"
)

func TestContent_EveryBlobOfAnImage(t *testing.T) {
	m := newMachine(t)
	st, desc, blobs := clusterImage(t, map[string]string{"bin/kubelet": "elf"})
	var wanted []node.Wanted
	sizes := map[digest.Digest]int64{}
	var sum int64
	for _, d := range blobs {
		wanted = append(wanted, node.Wanted{Digest: d.Digest, Size: d.Size})
		sizes[d.Digest] = d.Size
		sum += d.Size
	}
	missing := m.missing(append(wanted, wanted...))
	require.Len(t, missing, len(blobs), "each once")
	stream := send(t, st, sizes, missing)
	require.JSONEq(t, string(must(json.Marshal(node.Received{Blobs: len(blobs), Bytes: sum}))), m.run(bytes.NewReader(stream), "content", "receive"))
	require.Equal(t, "[]\n", m.run(toJSON(wanted), "content", "missing"))
	require.JSONEq(t, `{"blobs":0,"bytes":0}`, m.run(bytes.NewReader(stream), "content", "receive"), "what is there is not stored twice")
	for _, d := range blobs {
		require.True(t, bytes.Equal(must(os.ReadFile(st.BlobPath(d.Digest))), must(os.ReadFile(filepath.Join(m.root, "store/blobs/sha256", d.Digest.Encoded())))))
	}

	tag := []string{"content", "tag", "--name", "example.com/c:v1", "--digest", desc.Digest.String(), "--size"}
	require.Contains(t, m.try(nil, append(tag, "999")...).err, "the host has no "+desc.Digest.String()+" of 999 bytes")
	require.Empty(t, m.run(nil, append(tag, strconv.FormatInt(desc.Size, 10))...))
}

func TestContent_ResumesAtTheVeryByte(t *testing.T) {
	m := newMachine(t)
	operator := must(store.Open(filepath.Join(t.TempDir(), "s")))
	data := make([]byte, 3<<20)
	must(rand.Read(data))
	desc := put(t, operator, "x", data)
	sizes := map[digest.Digest]int64{desc.Digest: desc.Size}
	wanted := []node.Wanted{{Digest: desc.Digest, Size: desc.Size}}

	stream := send(t, operator, sizes, m.missing(wanted))
	head := int64(bytes.Index(stream, data[:32]))
	for _, cut := range []int64{1, 1_000_003, 2_999_999} { // bytes of the blob that have come in all
		missing := m.missing(wanted)
		from := missing[0].Offset
		stream := send(t, operator, sizes, missing)
		at := int64(bytes.Index(stream, data[from:from+32])) + cut - from
		r := m.try(bytes.NewReader(stream[:at]), "content", "receive")
		require.Equal(t, 1, r.code)
		require.Contains(t, r.err, "the blob stream was cut within "+desc.Digest.String())
		require.Equal(t, []node.Missing{{Digest: desc.Digest, Offset: cut}}, m.missing(wanted))
	}
	require.NoFileExists(t, filepath.Join(m.root, "store/blobs/sha256", desc.Digest.Encoded()))

	// A sender that knows nothing of the half starts anew; one that starts too far is refused.
	far := send(t, operator, sizes, []node.Missing{{Digest: desc.Digest, Offset: 2_999_999 + 1}})
	require.Contains(t, m.try(bytes.NewReader(far), "content", "receive").err, "comes from byte 3000000 on, and the host has 2999999")
	overlap := send(t, operator, sizes, []node.Missing{{Digest: desc.Digest, Offset: 2_000_000}})
	require.JSONEq(t, `{"blobs":1,"bytes":1145728}`, m.run(bytes.NewReader(overlap), "content", "receive"))
	require.Empty(t, m.missing(wanted))
	require.Positive(t, head)

	other := newMachine(t)
	require.Equal(t, 1, other.try(bytes.NewReader(stream[:head+1_000_000]), "content", "receive").code)
	require.JSONEq(t, `{"blobs":1,"bytes":3145728}`, other.run(bytes.NewReader(stream), "content", "receive"))
}

func TestContent_ManySmallBlobsAndACut(t *testing.T) {
	m := newMachine(t)
	var wanted []node.Wanted
	var stream bytes.Buffer
	w := blobstream.NewWriter(&stream)
	for i := range 300 {
		data := []byte(strings.Repeat(strconv.Itoa(i), 1+i%7))
		wanted = append(wanted, node.Wanted{Digest: digest.FromBytes(data), Size: int64(len(data))})
		require.NoError(t, w.Blob(blobstream.Header{Digest: digest.FromBytes(data), Size: int64(len(data))}, bytes.NewReader(data)))
	}
	require.NoError(t, w.Close())
	cut := stream.Bytes()[:stream.Len()*2/3]
	require.Equal(t, 1, m.try(bytes.NewReader(cut), "content", "receive").code)
	missing := len(m.missing(wanted))
	require.Equal(t, 300-bytes.Count(cut, []byte("{"))+1, missing, "all that came whole is there")
	var got node.Received
	require.NoError(t, json.Unmarshal([]byte(m.run(&stream, "content", "receive")), &got))
	require.Equal(t, missing, got.Blobs)
	require.Empty(t, m.missing(wanted))
}

func TestContent_WrongBytesAreNotKept(t *testing.T) {
	m := newMachine(t)
	good, bad := []byte("good"), []byte("bad!")
	var stream bytes.Buffer
	w := blobstream.NewWriter(&stream)
	lie := digest.FromString("something else")
	require.NoError(t, w.Blob(blobstream.Header{Digest: lie, Size: 4}, bytes.NewReader(bad)))
	require.NoError(t, w.Blob(blobstream.Header{Digest: digest.FromBytes(good), Size: 4}, bytes.NewReader(good)))
	require.NoError(t, w.Close())
	r := m.try(&stream, "content", "receive")
	require.Equal(t, 1, r.code)
	require.Empty(t, r.out)
	require.Contains(t, r.err, "receiving "+lie.String()+": its content is something else")
	require.Equal(t, []node.Missing{{Digest: lie}}, m.missing([]node.Wanted{
		{Digest: lie, Size: 4}, {Digest: digest.FromBytes(good), Size: 4},
	}), "the good one is there, of the bad one nothing")
}

func TestContent_DamagedBlobIsReplaced(t *testing.T) {
	m := newMachine(t)
	operator := must(store.Open(filepath.Join(t.TempDir(), "s")))
	desc := put(t, operator, "x", []byte("whole"))
	sizes := map[digest.Digest]int64{desc.Digest: desc.Size}
	wanted := []node.Wanted{{Digest: desc.Digest, Size: desc.Size}}
	m.run(bytes.NewReader(send(t, operator, sizes, m.missing(wanted))), "content", "receive")
	file := filepath.Join(m.root, "store/blobs/sha256", desc.Digest.Encoded())
	require.NoError(t, os.Truncate(file, 2))
	m.run(bytes.NewReader(send(t, operator, sizes, m.missing(wanted))), "content", "receive")
	require.Equal(t, "whole", string(must(os.ReadFile(file))))
}

// A beginning that was there and is damaged is no error of who has sent the rest: it goes, and is asked for again.
func TestContent_DamagedLeftover(t *testing.T) {
	m := newMachine(t)
	operator := must(store.Open(filepath.Join(t.TempDir(), "s")))
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<17)
	desc := put(t, operator, "x", data)
	sizes := map[digest.Digest]int64{desc.Digest: desc.Size}
	wanted := []node.Wanted{{Digest: desc.Digest, Size: desc.Size}}
	m.leftover(operator, desc, 1_000_000)
	require.JSONEq(t, `{"blobs":0,"bytes":0,"leftovers":["`+desc.Digest.String()+`"]}`,
		m.run(bytes.NewReader(send(t, operator, sizes, m.missing(wanted))), "content", "receive"))
	require.Equal(t, []node.Missing{{Digest: desc.Digest}}, m.missing(wanted), "nothing of it is left")
	m.run(bytes.NewReader(send(t, operator, sizes, m.missing(wanted))), "content", "receive")
	require.Empty(t, m.missing(wanted))
}

// leftover is what a run that was cut has left of a blob, damaged since.
func (m *machine) leftover(operator *store.Store, desc ocispec.Descriptor, length int64) {
	m.t.Helper()
	sizes := map[digest.Digest]int64{desc.Digest: desc.Size}
	stream := send(m.t, operator, sizes, []node.Missing{{Digest: desc.Digest}})
	head := must(os.ReadFile(operator.BlobPath(desc.Digest)))[:32]
	at := int64(bytes.Index(stream, head))
	require.Equal(m.t, 1, m.try(bytes.NewReader(stream[:at+length]), "content", "receive").code)
	missing := m.missing([]node.Wanted{{Digest: desc.Digest, Size: desc.Size}})
	require.Equal(m.t, []node.Missing{{Digest: desc.Digest, Offset: length}}, missing)
	f := must(os.OpenFile(must(store.Open(filepath.Join(m.root, "store"))).IngestPath(desc.Digest), os.O_WRONLY, 0))
	must(f.WriteAt([]byte("damage"), length/2))
	require.NoError(m.t, f.Close())
}

func TestContent_TwoSendersAtOnce(t *testing.T) {
	m := newMachine(t)
	st, _, blobs := clusterImage(t, map[string]string{"a": "b"})
	sizes := map[digest.Digest]int64{}
	var all []node.Missing
	for _, d := range blobs {
		sizes[d.Digest] = d.Size
		all = append(all, node.Missing{Digest: d.Digest})
	}
	stream := send(t, st, sizes, all)
	first, w := io.Pipe()
	done := make(chan result)
	go func() { done <- m.try(first, "content", "receive") }()
	half := len(stream) / 2
	must(w.Write(stream[:half])) // now it holds a blob that is not whole
	go func() { done <- m.try(bytes.NewReader(stream), "content", "receive") }()
	must(w.Write(stream[half:]))
	require.NoError(t, w.Close())
	for range 2 {
		r := <-done
		require.Zero(t, r.code, r.err)
	}
}

func TestContent_TagKeepsFromPrune(t *testing.T) {
	m := newMachine(t)
	st, desc, blobs := clusterImage(t, map[string]string{"a": "b"})
	m.load(st, desc, blobs)
	require.JSONEq(t, `{"blobs":0,"bytes":0}`, m.run(nil, "content", "prune"))
	m.run(nil, "content", "untag", "--name", "example.com/cluster:v1")
	m.run(nil, "content", "untag", "--name", "example.com/cluster:v1")
	var pruned node.Received
	require.NoError(t, json.Unmarshal([]byte(m.run(nil, "content", "prune")), &pruned))
	require.Equal(t, len(blobs), pruned.Blobs)
}

func TestContent_Refuses(t *testing.T) {
	m := newMachine(t)
	d := digest.FromString("x").String()
	for name, c := range map[string]struct {
		in   string
		args []string
		code int
		want string
	}{
		"no JSON":              {"hello", []string{"content", "missing"}, 1, "reading the list of blobs"},
		"more than one":        {"[] []", []string{"content", "missing"}, 1, "something follows it"},
		"unknown key":          {`[{"digest":"` + d + `","size":1,"path":"x"}]`, []string{"content", "missing"}, 1, "path"},
		"digest that is none":  {`[{"digest":"sha256:../x","size":1}]`, []string{"content", "missing"}, 1, "sha256:../x"},
		"empty stream":         {"", []string{"content", "receive"}, 1, "the blob stream was cut after 0 blobs"},
		"tag of nothing":       {"", []string{"content", "tag", "--name", "a", "--digest", d, "--size", "1"}, 1, "the host has no " + d},
		"flag missing":         {"", []string{"content", "tag", "--name", "a"}, 2, "needs --digest"},
		"flag unknown":         {"", []string{"content", "tag", "--nmae", "a"}, 2, "--nmae"},
		"digest flag":          {"", []string{"content", "tag", "--name", "a", "--digest", "x", "--size", "1"}, 2, `--digest "x"`},
		"command missing":      {"", []string{"content"}, 2, "needs a command"},
		"command unknown":      {"", []string{"content", "eat"}, 2, `unknown command "eat"`},
		"command unknown, top": {"", []string{"eat"}, 2, `unknown command "eat"`},
		"argument":             {"", []string{"version", "x"}, 2, "x"},
		"image not there":      {"", []string{"rootfs", "mount", "--image", d}, 1, "finding image " + d},
		"image to publish":     {"", []string{"registry", "publish", "--image", d}, 1, "finding image " + d},
	} {
		t.Run(name, func(t *testing.T) {
			r := m.try(strings.NewReader(c.in), c.args...)
			require.Equal(t, c.code, r.code, r.err)
			require.Empty(t, r.out)
			require.Contains(t, r.err, c.want)
		})
	}
}

func TestVersion(t *testing.T) {
	var v struct{ Version, Platform string }
	require.NoError(t, json.Unmarshal([]byte(newMachine(t).run(nil, "version")), &v))
	require.NotEmpty(t, v.Version)
	require.Contains(t, v.Platform, "linux/")
}

func TestRun_EndsWithItsContext(t *testing.T) {
	m := newMachine(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var errs bytes.Buffer
	require.Equal(t, 1, node.Run(ctx, []string{"--root", m.root, "content", "receive"}, node.Streams{In: strings.NewReader(""), Out: io.Discard, Err: &errs}))
}
