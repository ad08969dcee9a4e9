// SPDX-License-Identifier: Apache-2.0

// Package sbom lists what a rootfs and its container images are made of, as SPDX 2.3.
//
// It knows what can be known without guessing: every file by its digest, the modules that Go writes into its programs, the
// databases of dpkg and apk, and Helm charts. What is inside of the packed images is for their own bills of materials.
package sbom

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/sha1" //nolint:gosec // SPDX wants it beside SHA-256
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/build/flatten"
)

// Limits of what is looked into, in bytes. Larger files are listed, not read for packages.
const (
	maxProgram  = 1 << 30
	maxDatabase = 64 << 20
	maxChart    = 32 << 20
)

// File is a regular file of the rootfs.
type File struct {
	Path         string // relative
	SHA1, SHA256 string // hex
}

// Package is something that has a name and a version.
type Package struct {
	Name, Version string
	PURL          string // https://github.com/package-url/purl-spec
	License       string // an SPDX expression, or what the package calls it; "" where it is not known
	In            string // the file that says so; "" for packed images
}

// Contents are what a rootfs holds, sorted.
type Contents struct {
	Files    []File
	Packages []Package
}

// Scan reads the files of a rootfs.
func Scan(ctx context.Context, p content.Provider, layers []ocispec.Descriptor) (Contents, error) {
	s := &scanner{}
	if err := flatten.Walk(ctx, p, layers, s.file); err != nil {
		return Contents{}, fmt.Errorf("listing the rootfs: %w", err)
	}
	for _, d := range s.databases {
		s.found = append(s.found, d.packages(s.distribution)...)
	}
	slices.SortFunc(s.files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	slices.SortFunc(s.found, func(a, b Package) int {
		return strings.Compare(a.PURL+"\x00"+a.In, b.PURL+"\x00"+b.In)
	})
	return Contents{Files: s.files, Packages: slices.Compact(s.found)}, nil
}

type scanner struct {
	files        []File
	found        []Package
	databases    []database
	distribution string // ID of os-release
}

func (s *scanner) file(h *tar.Header, r io.Reader) error {
	if h.Typeflag != tar.TypeReg {
		return nil
	}
	one, all := sha1.New(), sha256.New() //nolint:gosec // as above
	in := bufio.NewReaderSize(io.TeeReader(r, io.MultiWriter(one, all)), 32<<10)
	if err := s.look(h, in); err != nil {
		return fmt.Errorf("%s: %w", h.Name, err)
	}
	if _, err := io.Copy(io.Discard, in); err != nil {
		return err
	}
	s.files = append(s.files, File{Path: h.Name, SHA1: hex.EncodeToString(one.Sum(nil)), SHA256: hex.EncodeToString(all.Sum(nil))})
	return nil
}

// look reads what may name packages; what it cannot read names none.
func (s *scanner) look(h *tar.Header, in *bufio.Reader) error {
	switch base := path.Base(h.Name); {
	case h.Name == "etc/os-release" || h.Name == "usr/lib/os-release":
		return whole(h, in, maxChart, func(data []byte) {
			if id := osRelease(data); id != "" {
				s.distribution = id
			}
		})
	case h.Name == "var/lib/dpkg/status" || path.Dir(h.Name) == "var/lib/dpkg/status.d" && !strings.HasSuffix(base, ".md5sums"):
		return whole(h, in, maxDatabase, func(data []byte) { s.databases = append(s.databases, database{dpkg, h.Name, data}) })
	case h.Name == "lib/apk/db/installed" || h.Name == "usr/lib/apk/db/installed":
		return whole(h, in, maxDatabase, func(data []byte) { s.databases = append(s.databases, database{apk, h.Name, data}) })
	case base == "Chart.yaml":
		return whole(h, in, maxChart, func(data []byte) { s.found = append(s.found, chart(h.Name, data)...) })
	case strings.HasSuffix(base, ".tgz"):
		return whole(h, in, maxChart, func(data []byte) { s.found = append(s.found, chartArchive(h.Name, data)...) })
	}
	if magic, err := in.Peek(4); err != nil || !bytes.Equal(magic, []byte("\x7fELF")) || h.Size > maxProgram {
		return nil //nolint:nilerr // shorter than that, or nothing to look at
	}
	return s.program(h, in)
}

func whole(h *tar.Header, in io.Reader, limit int64, use func([]byte)) error {
	if h.Size > limit {
		return nil
	}
	data, err := io.ReadAll(io.LimitReader(in, limit))
	if err == nil {
		use(data)
	}
	return err
}

// program looks for the modules of a Go program, which needs a file that can be read in any order.
func (s *scanner) program(h *tar.Header, in io.Reader) (err error) {
	f, err := os.CreateTemp("", "sealer-program-*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := os.Remove(f.Name()); err != nil {
		return err
	}
	if _, err := io.Copy(f, in); err != nil {
		return err
	}
	s.found = append(s.found, modules(h.Name, f)...)
	return nil
}
