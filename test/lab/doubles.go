// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// The versions of the doubles that tests take. Any may be asked for.
const (
	K3sVersion         = "v1.36.1+k3s1"
	K3sNextVersion     = "v1.36.2+k3s1"
	K0sVersion         = "v1.36.3+k0s.2"
	K0sPreviousVersion = "v1.35.7+k0s.0"
)

// Release is k3s or k0s in one version, to be packed into a base image.
type Release struct {
	// Program is k3s or k0s.
	Program, Version string
	// Bin is the path of a real program, Images that of an archive of its images, and Install that of k3s' install script; all empty
	// for a double. Without Install sealer makes the service itself.
	Bin, Images, Install string
}

// Releases are two versions of k3s or k0s, the second newer than the first: doubles of the versions, or else what the environment names,
// K3S_BIN with K3S_IMAGES and K3S_INSTALL and, where there is another one to upgrade to, K3S_NEXT_BIN with K3S_NEXT_IMAGES and K3S_NEXT_INSTALL.
// For k0s the names begin with K0S. A program whose images are not named has to be a double, and gets a double's.
func Releases(ctx context.Context, program, version, next string) ([]Release, error) {
	prefix := strings.ToUpper(program)
	if os.Getenv(prefix+"_BIN") == "" {
		return []Release{{Program: program, Version: version}, {Program: program, Version: next}}, nil
	}
	var all []Release
	for _, p := range []string{prefix, prefix + "_NEXT"} {
		r := Release{Program: program, Bin: os.Getenv(p + "_BIN"), Images: os.Getenv(p + "_IMAGES"), Install: os.Getenv(p + "_INSTALL")}
		if r.Bin == "" {
			break
		}
		argv := map[string][]string{"k3s": {"--version"}, "k0s": {"version"}}[program]
		out, err := exec.CommandContext(ctx, r.Bin, argv...).Output()
		if err != nil {
			return nil, fmt.Errorf("asking %s for its version: %w", r.Bin, err)
		}
		if r.Version = regexp.MustCompile(`v1\.\d+\.\d+\+k[03]s[.\d]+`).FindString(string(out)); r.Version == "" {
			return nil, fmt.Errorf("asking %s for its version: it says %q", r.Bin, out)
		}
		all = append(all, r)
	}
	return all, nil
}

// ReleaseImage is the name of the release's base image in the lab's registry; BuildRelease makes it.
func (l *Lab) ReleaseImage(r Release) string {
	return l.Registry + "/sealer/" + r.Program + ":" + strings.ReplaceAll(r.Version, "+", "-")
}

// BuildRelease builds ReleaseImage.
func (l *Lab) BuildRelease(ctx context.Context, root string, r Release) (digest string, err error) {
	dir := filepath.Join(l.Dir, r.Program+"-"+r.Version)
	if err := l.WriteRelease(ctx, r, dir); err != nil {
		return "", err
	}
	return l.Run(ctx, root, "build", "-t", l.ReleaseImage(r), "--build-arg", "VERSION="+r.Version, dir)
}

// WriteRelease puts a build context for a base image into dir: the repository's template, the program, k3s' install script, and the list of
// its images, which the lab's registry holds afterwards, or the archive of them.
func (l *Lab) WriteRelease(ctx context.Context, r Release, dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("clearing the base image's folder: %w", err)
	}
	for _, from := range []string{"shared", r.Program} {
		if err := linkTree(filepath.Join(l.Source, "rootfs-templates", from), dir); err != nil {
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
	files := map[string]string{"bin/" + r.Program: r.Bin, "scripts/k3s-install.sh": r.Install}
	if r.Images == "" {
		double, err := l.Double(ctx, r.Program, r.Version)
		if err != nil {
			return err
		}
		if r.Bin == "" {
			if err := linkTree(filepath.Join(double, "scripts"), filepath.Join(dir, "scripts")); err != nil {
				return err
			}
			files["bin/"+r.Program] = filepath.Join(double, "bin", r.Program)
		}
		files["imageList"] = filepath.Join(double, "images.txt")
		if _, err := l.components(ctx, "push", "--dir", double, "--to", "http://"+l.Registry); err != nil {
			return err
		}
	} else {
		archive := "images/" + filepath.Base(r.Images)
		files[archive] = r.Images
		if err := os.WriteFile(filepath.Join(dir, "imageList"), []byte("archive:"+archive+"\n"), 0o600); err != nil {
			return fmt.Errorf("listing the images: %w", err)
		}
	}
	for to, from := range files {
		if from == "" {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, to)), 0o755); err != nil {
			return fmt.Errorf("making the base image's folder: %w", err)
		}
		if err := replaceFile(from, filepath.Join(dir, to)); err != nil {
			return err
		}
	}
	return nil
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
