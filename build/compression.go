// SPDX-License-Identifier: Apache-2.0

package build

import "fmt"

// Compression is how the layers that a build makes are compressed. What an image inherits, and the images it packs, stay
// as they are.
type Compression string

// The compressions. Zstd is the default: it is smaller and quicker. Gzip is for tools that unpack nothing else, such as
// the full validator of go-containerregistry.
const (
	Zstd Compression = "zstd"
	Gzip Compression = "gzip"
)

// ParseCompression reads the value of --compression; empty means Zstd.
func ParseCompression(s string) (Compression, error) {
	switch c := Compression(s); c {
	case "":
		return Zstd, nil
	case Zstd, Gzip:
		return c, nil
	}
	return "", fmt.Errorf("unknown compression %q: zstd and gzip are known", s)
}

// stateDir is the state of the BuildKit that compresses like this. A cache gives a layer as it was compressed first, so
// one cache for both would make the digest depend on what was built before.
func (c Compression) stateDir(dir string) string {
	if c == Gzip {
		return dir + "-gzip"
	}
	return dir
}

// StateDirs are the folders that builds with Options.StateDir dir keep BuildKit's state in; they need not be there.
func StateDirs(dir string) []string {
	return []string{Zstd.stateDir(dir), Gzip.stateDir(dir)}
}
