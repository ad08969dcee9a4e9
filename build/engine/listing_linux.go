// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"

	"github.com/tonistiigi/fsutil"
	fstypes "github.com/tonistiigi/fsutil/types"
)

// listing is what a copy of a folder holds: the metadata of every file, in the order of a walk. It is what a folder is
// compared with, so that the copy itself need not be walked. It holds for as long as the machine runs: what was not on
// the disk when it stopped is not in the copy.
type listing struct {
	boot    string
	entries []byte // each a length and a Stat, both as in protobuf
	loose   bool   // extended attributes say nothing: the file system of the copy may have its own
}

var errListing = errors.New("the listing of a folder's copy is broken")

func parseListing(data []byte) (*listing, error) {
	boot, entries, ok := bytes.Cut(data, []byte("\n"))
	if !ok {
		return nil, errListing
	}
	return &listing{boot: string(boot), entries: entries}, nil
}

func (l *listing) bytes() []byte { return append([]byte(l.boot+"\n"), l.entries...) }

// add appends an entry and returns its encoded form.
func (l *listing) add(st *fstypes.Stat) ([]byte, error) {
	size := st.SizeVT()
	l.entries = binary.AppendUvarint(l.entries, uint64(size))
	at := len(l.entries)
	l.entries = append(l.entries, make([]byte, size)...)
	if _, err := st.MarshalToSizedBufferVT(l.entries[at:]); err != nil {
		return nil, fmt.Errorf("listing %q: %w", st.Path, err)
	}
	return l.entries[at:], nil
}

// cursor reads a listing.
type cursor struct {
	rest  []byte
	raw   []byte
	entry *fstypes.Stat // nil at the end
}

// next goes to the next entry.
func (c *cursor) next() error {
	c.raw, c.entry = nil, nil
	if len(c.rest) == 0 {
		return nil
	}
	size, n := binary.Uvarint(c.rest)
	if n <= 0 || size > uint64(len(c.rest)-n) {
		return errListing
	}
	c.raw, c.rest = c.rest[n:n+int(size)], c.rest[n+int(size):]
	c.entry = &fstypes.Stat{}
	return c.entry.UnmarshalVT(c.raw)
}

// same compares an entry with a file of the folder; times tells whether the times are the same, too, where nothing else
// differs. Those of a folder are no change.
func (c *cursor) same(raw []byte, st *fstypes.Stat, loose bool) (same, times bool) {
	if bytes.Equal(c.raw, raw) {
		return true, true
	}
	e := c.entry
	same = e.Mode == st.Mode && e.Uid == st.Uid && e.Gid == st.Gid && e.Size == st.Size && e.Linkname == st.Linkname &&
		e.Devmajor == st.Devmajor && e.Devminor == st.Devminor &&
		(loose || maps.EqualFunc(e.Xattrs, st.Xattrs, bytes.Equal))
	times = e.ModTime == st.ModTime
	return same && (times || st.IsDir()), times
}

// listFolder makes the listing of a copy by a walk.
func listFolder(ctx context.Context, dir string) (*listing, error) {
	files, err := fsutil.NewFS(dir)
	if err != nil {
		return nil, fmt.Errorf("listing %q: %w", dir, err)
	}
	l := &listing{loose: true}
	err = files.Walk(ctx, "/", func(_ string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := statOf(entry)
		if err != nil {
			return err
		}
		_, err = l.add(st)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listing %q: %w", dir, err)
	}
	return l, nil
}

func statOf(entry fs.DirEntry) (*fstypes.Stat, error) {
	info, err := entry.Info()
	if err != nil {
		return nil, err
	}
	st, ok := info.Sys().(*fstypes.Stat)
	if !ok {
		return nil, fmt.Errorf("%q has no metadata", entry.Name())
	}
	return st, nil
}

// bootID is another one after each start of the machine; "" where it cannot be known.
func bootID() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return string(bytes.TrimSpace(id))
}
