// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// K3sVersion and K0sVersion are what tests take where they need no other. Any version may be asked for.
const (
	K3sVersion = "v1.36.1+k3s1"
	K0sVersion = "v1.36.3+k0s.2"
)

// K3sImage is the name of the base image of k3s in a version in the lab's registry; BuildK3s makes it.
func (l *Lab) K3sImage(version string) string { return l.doubleImage("k3s", version) }

// K0sImage is the name of the base image of k0s in a version in the lab's registry; BuildK0s makes it.
func (l *Lab) K0sImage(version string) string { return l.doubleImage("k0s", version) }

func (l *Lab) doubleImage(program, version string) string {
	return l.Registry + "/sealer/" + program + ":" + strings.ReplaceAll(version, "+", "-")
}

// BuildK3s builds K3sImage with the double of k3s, or with the program that K3S_BIN names, which has to be of the version.
func (l *Lab) BuildK3s(ctx context.Context, root, version string) (digest string, err error) {
	return l.buildDouble(ctx, root, "k3s", version)
}

// BuildK0s builds K0sImage with the double of k0s, or with the program that K0S_BIN names, which has to be of the version.
func (l *Lab) BuildK0s(ctx context.Context, root, version string) (digest string, err error) {
	return l.buildDouble(ctx, root, "k0s", version)
}

func (l *Lab) buildDouble(ctx context.Context, root, program, version string) (string, error) {
	dir := filepath.Join(l.Dir, program+"-"+version)
	if err := l.WriteDouble(ctx, program, version, dir); err != nil {
		return "", err
	}
	return l.Run(ctx, root, "build", "-t", l.doubleImage(program, version), "--build-arg", "VERSION="+version, dir)
}

// WriteDouble puts a build context for a base image with the double of k3s or k0s into dir: the repository's template,
// the program, k3s' install script, and the list of its images, which the lab's registry holds afterwards.
func (l *Lab) WriteDouble(ctx context.Context, program, version, dir string) error {
	double, err := l.Double(ctx, program, version)
	if err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("clearing the base image's folder: %w", err)
	}
	for from, to := range map[string]string{
		filepath.Join(l.Source, "rootfs-templates", "shared"): dir,
		filepath.Join(l.Source, "rootfs-templates", program):  dir,
		filepath.Join(double, "bin"):                          filepath.Join(dir, "bin"),
		filepath.Join(double, "scripts"):                      filepath.Join(dir, "scripts"),
	} {
		if err := linkTree(from, to); err != nil {
			return err
		}
	}
	if own := os.Getenv(strings.ToUpper(program) + "_BIN"); own != "" {
		if err := replaceFile(own, filepath.Join(dir, "bin", program)); err != nil {
			return err
		}
	}
	// The program is this machine's own: it lies beside the template, and not in a platform's folder.
	kubefile, err := os.ReadFile(filepath.Join(dir, "Kubefile"))
	if err != nil {
		return fmt.Errorf("writing the Kubefile: %w", err)
	}
	if err := os.Remove(filepath.Join(dir, "Kubefile")); err != nil { // a link to the template
		return fmt.Errorf("writing the Kubefile: %w", err)
	}
	text := strings.Replace(string(kubefile), "COPY ${ARCH} .", "COPY bin bin", 1)
	if err := os.WriteFile(filepath.Join(dir, "Kubefile"), []byte(text), 0o600); err != nil {
		return fmt.Errorf("writing the Kubefile: %w", err)
	}
	if _, err := l.components(ctx, "push", "--dir", double, "--to", "http://"+l.Registry); err != nil {
		return err
	}
	return replaceFile(filepath.Join(double, "images.txt"), filepath.Join(dir, "imageList"))
}

// Double makes the folder of a double, program k3s or k0s, in a version: bin, scripts, images (an OCI layout), images.txt.
func (l *Lab) Double(ctx context.Context, program, version string) (string, error) {
	out, err := l.components(ctx, "double", program, version)
	return strings.TrimSpace(string(out)), err
}

// DoubleArchive writes the images of a double's folder as one archive, as k3s and k0s take it from their images folder.
func DoubleArchive(double, path string) (err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("packing images: %w", err)
	}
	t := tar.NewWriter(f)
	err = t.AddFS(os.DirFS(filepath.Join(double, "images")))
	if err = errors.Join(err, t.Close(), f.Close()); err != nil {
		return fmt.Errorf("packing images: %w", err)
	}
	return nil
}

// replaceFile copies a file, and does not write through a link that stands in its place.
func replaceFile(from, to string) error {
	if err := os.Remove(to); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("copying %s: %w", from, err)
	}
	in, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("copying: %w", err)
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return fmt.Errorf("copying %s: %w", from, err)
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, info.Mode().Perm())
	if err != nil {
		return fmt.Errorf("copying %s: %w", from, err)
	}
	if _, err = io.Copy(out, in); err != nil {
		return fmt.Errorf("copying %s: %w", from, errors.Join(err, out.Close()))
	}
	return out.Close()
}
