// SPDX-License-Identifier: Apache-2.0

package layer

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// sample returns the same tree, filled in the given order.
func sample(t *testing.T, reversed bool) *Tree {
	t.Helper()
	source := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(source, []byte("a program"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(source, time.Now(), time.Now()); err != nil {
		t.Fatal(err)
	}
	tree := NewTree()
	adds := []func(){
		func() { tree.Link("usr/local/bin/link", "program") },
		func() {
			if err := tree.File("/usr/local/bin/program", 0o755, source); err != nil {
				t.Fatal(err)
			}
		},
		func() { tree.Bytes("etc/passwd", 0o644, []byte("root:x:0:0::/:\n")) },
		func() { tree.Dir("tmp", 0o777|os.ModeSticky) },
	}
	for i := range adds {
		if reversed {
			i = len(adds) - 1 - i
		}
		adds[i]()
	}
	return tree
}

func TestWrite_SameTreeSameDigest(t *testing.T) {
	first, err := Write(t.Context(), sample(t, false), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	second, err := Write(t.Context(), sample(t, true), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if first.digest != second.digest || first.diffID != second.diffID {
		t.Errorf("digests differ: %s and %s, %s and %s", first.digest, second.digest, first.diffID, second.diffID)
	}
	if err := validate.Layer(first); err != nil {
		t.Error(err)
	}
	if mediaType, _ := first.As(types.OCILayer).MediaType(); mediaType != types.OCILayer {
		t.Errorf("As: got media type %s", mediaType)
	}
}

func TestWrite_LeavesOnlyTheBlob(t *testing.T) {
	dir := t.TempDir()
	l, err := Write(t.Context(), sample(t, false), dir)
	if err != nil {
		t.Fatal(err)
	}
	broken := NewTree()
	broken.Bytes("file", 0o644, nil)
	broken.Bytes("file/below", 0o644, nil)
	if _, err := Write(t.Context(), broken, dir); err == nil {
		t.Error("a file below a file has to be an error")
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 || entries[0].Name() != l.digest.Hex {
		t.Errorf("got %v, want the one blob", entries)
	}
}

func TestTree_Pack(t *testing.T) {
	var packed bytes.Buffer
	if err := sample(t, false).Pack(t.Context(), &packed); err != nil {
		t.Fatal(err)
	}
	var names []string
	archive := tar.NewReader(&packed)
	for {
		header, err := archive.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, header.Name)
		if !header.ModTime.Equal(Epoch()) || header.Uid != 0 || header.Gid != 0 {
			t.Errorf("%s: time %s, owner %d:%d", header.Name, header.ModTime, header.Uid, header.Gid)
		}
		if header.Name == "tmp/" && header.Mode != 0o1777 {
			t.Errorf("tmp/: mode %o", header.Mode)
		}
	}
	want := "[etc/ etc/passwd tmp/ usr/ usr/local/ usr/local/bin/ usr/local/bin/link usr/local/bin/program]"
	if got := fmt.Sprint(names); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestTree_Tar(t *testing.T) {
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for _, h := range []*tar.Header{
		{Name: "./lib/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "./lib/a.so", Typeflag: tar.TypeReg, Mode: 0o644, Size: 1},
		{Name: "./lib/b.so", Typeflag: tar.TypeLink, Linkname: "./lib/a.so", Mode: 0o644},
		{Name: "./lib/c.so", Typeflag: tar.TypeSymlink, Linkname: "a.so"},
		{Name: "./doc", Typeflag: tar.TypeReg, Mode: 0o644},
	} {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := w.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	tree := NewTree()
	err := tree.Tar(&archive, func(name string) string {
		if name == "doc" {
			return ""
		}
		return "usr/" + name
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(tree.entries) != 4 {
		t.Errorf("got %d entries, want 4", len(tree.entries))
	}
	if e := tree.entries["usr/lib/b.so"]; e.kind != tar.TypeReg || e.size != 1 {
		t.Errorf("the hard link became %+v, want a copy", e)
	}
}

// The test's own program is dynamically linked or not, depending on how it was built; a program of Debian's always is.
func TestTree_CheckLibraries(t *testing.T) {
	tree := NewTree()
	if err := tree.File("usr/bin/true", 0o755, "/bin/true"); err != nil {
		t.Skip(err)
	}
	needed, err := tree.entries["usr/bin/true"].needs()
	if err != nil {
		t.Fatal(err)
	}
	if len(needed) == 0 {
		t.Skip("this system's programs are static")
	}
	if tree.CheckLibraries() == nil {
		t.Error("a program without its libraries has to be an error")
	}
	for _, library := range needed {
		tree.Bytes("usr/lib/somewhere/"+library, 0o644, []byte("not looked into"))
	}
	if err := tree.CheckLibraries(); err != nil {
		t.Error(err)
	}
}
