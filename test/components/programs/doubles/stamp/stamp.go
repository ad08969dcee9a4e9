// SPDX-License-Identifier: Apache-2.0

// Package stamp reads which program, in which version, a copy of the double is. The double is linked once; a line
// behind the end of the file makes it k3s v1.36.1+k3s1 or k0s v1.35.7+k0s.0, so that versions cost a copy each.
package stamp

import (
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// self is the running program, also after its file was replaced.
const self = "/proc/self/exe"

var errNone = errors.New("the program carries no stamp: it was copied by hand, not made by components double")

// Stamp is what the line says.
type Stamp struct {
	Program string // k3s or k0s
	Version string // v1.36.1+k3s1
}

// Line is what has to be appended to the linked program.
func (s Stamp) Line() string { return "\n#double " + s.Program + " " + s.Version + "\n" }

// Minor is the Kubernetes minor version: 36 of v1.36.1+k3s1.
func (s Stamp) Minor() int {
	minor, _ := strconv.Atoi(strings.Split(s.Version+"..", ".")[1])
	return minor
}

// Kubernetes is the version without the distribution's own part.
func (s Stamp) Kubernetes() string {
	v, _, _ := strings.Cut(s.Version, "+")
	return v
}

// AtLeast tells whether the version is the one that a fact names, or later: "v1.32", "1.35", "v1.36.3+k3s1". Of
// several, by commas, the one of the own minor counts, or that the minor is later than all of them.
func (s Stamp) AtLeast(since string) bool {
	if since == "" {
		return true
	}
	own := numbers(s.Version)
	for one := range strings.SplitSeq(since, ",") {
		n := numbers(one)
		if own[1] == n[1] {
			return own[2] >= n[2]
		}
	}
	return own[1] > numbers(since)[1]
}

func numbers(version string) (n [3]int) {
	version = strings.TrimPrefix(strings.TrimSpace(version), "v")
	version, _, _ = strings.Cut(version, "+")
	for i, part := range strings.SplitN(version, ".", 3) {
		part, _, _ = strings.Cut(part, ",")
		n[i], _ = strconv.Atoi(part)
	}
	return n
}

// Read returns the stamp of the running program.
func Read() (Stamp, error) {
	f, err := os.Open(self)
	if err != nil {
		return Stamp{}, fmt.Errorf("reading the stamp: %w", err)
	}
	defer f.Close()
	return read(f)
}

func read(f io.ReadSeeker) (Stamp, error) {
	const length = 128
	if _, err := f.Seek(-length, io.SeekEnd); err != nil {
		return Stamp{}, fmt.Errorf("reading the stamp: %w", err)
	}
	end, err := io.ReadAll(io.LimitReader(f, length))
	if err != nil {
		return Stamp{}, fmt.Errorf("reading the stamp: %w", err)
	}
	m := regexp.MustCompile(`\n#double (k3s|k0s) (v1\.\d+\.\d+\+\S+)\n$`).FindSubmatch(end)
	if m == nil {
		return Stamp{}, errNone
	}
	return Stamp{Program: string(m[1]), Version: string(m[2])}, nil
}

// Compare orders versions.
func Compare(a, b string) int {
	x, y := numbers(a), numbers(b)
	return slices.Compare(x[:], y[:])
}
