// SPDX-License-Identifier: Apache-2.0

package debian

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestReadList(t *testing.T) {
	path := filepath.Join(t.TempDir(), "apt.txt")
	if err := os.WriteFile(path, []byte("# why\n\n  gcc\nlibc6-dev\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := ReadList(path)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"gcc", "libc6-dev"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestRename(t *testing.T) {
	for name, want := range map[string]string{
		"lib":                       "",
		"lib/x86_64-linux-gnu/a.so": "usr/lib/x86_64-linux-gnu/a.so",
		"lib64/ld.so":               "usr/lib64/ld.so",
		"libexec/x":                 "libexec/x",
		"usr/sbin/nft":              "usr/sbin/nft",
		"usr/share/doc/nft/README":  "",
		"etc/protocols":             "etc/protocols",
	} {
		if got := rename(name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}
