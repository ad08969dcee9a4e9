// SPDX-License-Identifier: Apache-2.0

package build

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/pkg/archive"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/build/flatten"
	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/store"
)

// OutputType is a form in which a result leaves the store.
type OutputType string

// The forms.
const (
	OutputOCI      OutputType = "oci"      // the whole ClusterImage, as an archive of an OCI layout
	OutputLocal    OutputType = "local"    // the files of the rootfs, in a folder
	OutputTar      OutputType = "tar"      // the files of the rootfs, as a tar
	OutputRegistry OutputType = "registry" // pushed under its names
)

// Output is where a result goes beside the store.
type Output struct {
	Type OutputType
	Dest string // a file, or a folder for OutputLocal; "-" is standard output; "" for OutputRegistry
}

// ParseOutput reads the value of --output, as docker buildx has it: type=oci,dest=FILE; type=local,dest=FOLDER;
// type=tar,dest=FILE; type=registry. FOLDER alone is type=local, and - is type=tar to standard output.
func ParseOutput(s string) (Output, error) {
	switch {
	case s == "":
		return Output{}, errors.New("it is empty")
	case s == "-":
		return Output{Type: OutputTar, Dest: "-"}, nil
	case !strings.Contains(s, "="):
		return Output{Type: OutputLocal, Dest: s}, nil
	}
	fields, err := parseFields(s)
	if err != nil {
		return Output{}, fmt.Errorf("%q: %w", s, err)
	}
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		if key != "type" && key != "dest" {
			return Output{}, fmt.Errorf("%q: unknown key %q: type and dest are known", s, key)
		}
	}
	o := Output{Type: OutputType(fields["type"]), Dest: fields["dest"]}
	switch o.Type {
	case OutputRegistry:
		if o.Dest != "" {
			return o, fmt.Errorf("%q: what is pushed has the image's names, no dest=", s)
		}
		return o, nil
	case OutputOCI, OutputTar:
		if o.Dest == "" {
			o.Dest = "-"
		}
		return o, nil
	case OutputLocal:
		if o.Dest == "" || o.Dest == "-" {
			return o, fmt.Errorf("%q: dest= is missing: a folder", s)
		}
		return o, nil
	}
	return o, fmt.Errorf("%q: unknown type %q: oci, local, tar and registry are known", s, o.Type)
}

// FolderError says that a folder would be overwritten.
type FolderError struct{ Folder string }

func (e *FolderError) Error() string {
	return fmt.Sprintf("writing the rootfs: %q is not empty", e.Folder)
}

// Hint says what to do.
func (*FolderError) Hint() string { return "name a folder that is empty, or not there yet" }

// WriteTar writes the files of a ClusterImage's rootfs as a tar. With several platforms each has a folder, such as
// linux_amd64, as BuildKit has it. The same image gives the same bytes.
func WriteTar(ctx context.Context, st *store.Store, desc ocispec.Descriptor, w io.Writer) error {
	img, err := clusterimage.Read(ctx, st.Content(), desc)
	if err != nil {
		return err
	}
	out := tar.NewWriter(w)
	for _, r := range img.Rootfs {
		prefix := ""
		if len(img.Rootfs) > 1 {
			prefix = strings.ReplaceAll(platforms.FormatAll(platforms.Normalize(r.Platform)), "/", "_") + "/"
			if err := out.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: prefix, Mode: 0o755}); err != nil {
				return fmt.Errorf("writing the rootfs: %w", err)
			}
		}
		err := flatten.Walk(ctx, st.Content(), r.Manifest.Layers, func(h *tar.Header, r io.Reader) error {
			h.Name = prefix + h.Name
			if h.Typeflag == tar.TypeLink {
				h.Linkname = prefix + h.Linkname
			}
			h.Format = tar.FormatUnknown // as short as it can be
			if err := out.WriteHeader(h); err != nil {
				return err
			}
			_, err := io.Copy(out, r)
			return err
		})
		if err != nil {
			return fmt.Errorf("writing the rootfs: %w", err)
		}
	}
	if err := out.Close(); err != nil {
		return fmt.Errorf("writing the rootfs: %w", err)
	}
	return nil
}

// WriteFolder writes the files of a ClusterImage's rootfs into a folder that is empty or not there. They belong to the
// user who runs sealer. The folder appears whole or not at all.
func WriteFolder(ctx context.Context, st *store.Store, desc ocispec.Descriptor, folder string) (err error) {
	entries, err := os.ReadDir(folder)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("writing the rootfs: %w", err)
	}
	if len(entries) > 0 {
		return &FolderError{Folder: folder}
	}
	folder = filepath.Clean(folder)
	temp, err := os.MkdirTemp(filepath.Dir(folder), "."+filepath.Base(folder)+".*")
	if err != nil {
		return fmt.Errorf("writing the rootfs: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(temp)) }()
	r, w := io.Pipe()
	wrote := make(chan error, 1)
	go func() {
		err := WriteTar(ctx, st, desc, w)
		_ = w.CloseWithError(err) // always nil
		wrote <- err
	}()
	_, err = archive.Apply(ctx, temp, r, archive.WithNoSameOwner())
	_ = r.CloseWithError(io.ErrClosedPipe) // always nil; ends the writer where Apply did not read to the end
	if writing := <-wrote; err == nil && !errors.Is(writing, io.ErrClosedPipe) {
		err = writing
	}
	if err != nil {
		return fmt.Errorf("writing the rootfs to %q: %w", folder, err)
	}
	if err := os.Chmod(temp, 0o755); err != nil {
		return fmt.Errorf("writing the rootfs: %w", err)
	}
	if err := os.Rename(temp, folder); err != nil {
		return fmt.Errorf("writing the rootfs: %w", err)
	}
	return nil
}
