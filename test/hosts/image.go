// SPDX-License-Identifier: Apache-2.0

package hosts

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/gofrs/flock"
	"github.com/klauspost/compress/zstd"
)

// The recipe in recipe is for hosts that boot with systemd; of recipe-openrc the files go over it.
//
//go:embed recipe recipe-openrc
var recipe embed.FS

// hostImage is a root file system in a compressed tar archive.
type hostImage struct {
	Path string
	Tag  string // for the engine
}

// buildImage makes the host image from Debian packages, unless one of the same recipe is in the cache.
func buildImage(ctx context.Context, dir string, openRC bool, log *slog.Logger) (hostImage, error) {
	codename, err := debianCodename()
	if err != nil {
		return hostImage{}, fmt.Errorf("building the host image: %w", err)
	}
	folders := []string{"recipe"}
	if openRC {
		folders = append(folders, "recipe-openrc")
	}
	key, err := imageKey(codename, folders)
	if err != nil {
		return hostImage{}, fmt.Errorf("building the host image: %w", err)
	}
	image := hostImage{Path: filepath.Join(dir, "image", key+".tar.zst"), Tag: "sealer-test-host:" + key}
	if exists(image.Path) {
		return image, nil
	}
	if err := os.MkdirAll(filepath.Dir(image.Path), 0o755); err != nil {
		return hostImage{}, fmt.Errorf("building the host image: %w", err)
	}
	lock := flock.New(filepath.Join(dir, "image", "lock"))
	if _, err := lock.TryLockContext(ctx, 200*time.Millisecond); err != nil {
		return hostImage{}, fmt.Errorf("waiting for another process that builds the host image: %w", err)
	}
	defer lock.Close()
	if exists(image.Path) {
		return image, nil
	}
	log.Info("building the host image", "suite", codename, "path", image.Path)
	begin := time.Now()
	if err := bootstrap(ctx, codename, folders[len(folders)-1], image.Path); err != nil {
		return hostImage{}, fmt.Errorf("building the host image: %w", err)
	}
	log.Info("built the host image", "took", time.Since(begin).Round(time.Second))
	return image, nil
}

// imageKey changes with everything that the image is made of, except for the versions of the packages.
func imageKey(codename string, folders []string) (string, error) {
	sum := sha256.New()
	fmt.Fprintln(sum, codename, runtime.GOARCH)
	for _, folder := range folders {
		files, err := recipe.ReadDir(folder)
		if err != nil {
			return "", err
		}
		for _, file := range files {
			data, err := recipe.ReadFile(folder + "/" + file.Name())
			if err != nil {
				return "", err
			}
			fmt.Fprintln(sum, file.Name(), len(data))
			sum.Write(data)
		}
	}
	return hex.EncodeToString(sum.Sum(nil))[:16], nil
}

// bootstrap makes an image of what a folder of recipe lists, and customizes it with the script there.
func bootstrap(ctx context.Context, codename, folder, path string) error {
	program, err := lookSystemPath("mmdebstrap")
	if err != nil {
		return &MissingError{Program: "mmdebstrap"}
	}
	work, err := os.MkdirTemp(filepath.Dir(path), "build-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	for name, mode := range map[string]os.FileMode{"recipe/host-setup.sh": 0o755, "recipe/host-setup.service": 0o644, folder + "/customize.sh": 0o755} {
		data, err := recipe.ReadFile(name)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(work, filepath.Base(name)), data, mode); err != nil {
			return err
		}
	}
	packages, err := recipe.ReadFile(folder + "/packages.txt")
	if err != nil {
		return err
	}
	sources, err := aptSources(ctx, codename)
	if err != nil {
		return err
	}
	options, err := aptOptions(ctx)
	if err != nil {
		return err
	}
	args := []string{
		"--mode=root", "--variant=minbase", "--format=tar",
		"--include=" + strings.Join(strings.Fields(string(packages)), ","),
		"--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*",
		"--dpkgopt=path-exclude=/usr/share/locale/*",
		"--customize-hook=install -D " + quote(filepath.Join(work, "host-setup.sh")) + ` "$1"/usr/local/lib/testhost/setup`,
		"--customize-hook=install -D -m 644 " + quote(filepath.Join(work, "host-setup.service")) + ` "$1"/etc/systemd/system/host-setup.service`, // where there is no systemd it does nothing
		"--customize-hook=" + quote(filepath.Join(work, "customize.sh")) + ` "$1"`,
		"--aptopt=Acquire::Retries \"3\"",
	}
	for _, option := range options {
		args = append(args, "--aptopt="+option)
	}
	args = append(append(args, codename, "-"), sources...)

	file, err := os.Create(filepath.Join(work, "image"))
	if err != nil {
		return err
	}
	defer file.Close()
	packed, err := zstd.NewWriter(file)
	if err != nil {
		return err
	}
	var said bytes.Buffer
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stdout, cmd.Stderr = packed, &said
	// Interrupted, mmdebstrap unmounts and removes its folder; killed, it would not.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 30 * time.Second
	cmd.Env = append(os.Environ(), "PATH="+systemPath(), "TMPDIR="+work)
	if err := cmd.Run(); err != nil {
		text := strings.TrimSpace(said.String())
		return fmt.Errorf("running mmdebstrap: %w: %s", err, text[max(0, len(text)-2000):])
	}
	if err := errors.Join(packed.Close(), file.Close()); err != nil {
		return err
	}
	return os.Rename(file.Name(), path)
}

// aptSources lists the files that tell apt on this machine where Debian's packages are. The project names no server.
func aptSources(ctx context.Context, codename string) ([]string, error) {
	out, err := exec.CommandContext(ctx, "apt-get", "indextargets", "--format",
		"$(CODENAME)\t$(RELEASE)\t$(SOURCESENTRY)", "Created-By: Packages").Output()
	if err != nil {
		return nil, fmt.Errorf("listing the package sources of this machine: %w", err)
	}
	files := sourceFiles(string(out), codename)
	if len(files) == 0 {
		return nil, fmt.Errorf("listing the package sources of this machine: none is for %s", codename)
	}
	return files, nil
}

func sourceFiles(targets, codename string) []string {
	files := map[string]bool{}
	for line := range strings.Lines(targets) {
		fields := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(fields) != 3 {
			continue
		}
		file, _, _ := strings.Cut(fields[2], ":")
		// A suite may be named by its codename or by its rank, such as stable. Before the first "apt-get update" only
		// the name in the file is known.
		if fields[0] == codename || fields[1] == codename {
			files[file] = true
		}
	}
	return slices.Sorted(maps.Keys(files))
}

// aptOptions returns how apt on this machine reaches servers: proxies, certificates, clocks that are off.
func aptOptions(ctx context.Context) ([]string, error) {
	out, err := exec.CommandContext(ctx, "apt-config", "dump").Output()
	if err != nil {
		return nil, fmt.Errorf("reading how apt is configured: %w", err)
	}
	var options []string
	for line := range strings.Lines(string(out)) {
		line = strings.TrimSpace(line)
		for _, prefix := range []string{"Acquire::http:", "Acquire::https:", "Acquire::Check-"} {
			if strings.HasPrefix(line, prefix) && !strings.HasSuffix(line, ` "";`) {
				options = append(options, line)
			}
		}
	}
	return options, nil
}

func debianCodename() (string, error) {
	data, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(data)) {
		if name, found := strings.CutPrefix(strings.TrimSpace(line), "VERSION_CODENAME="); found {
			return strings.Trim(name, `"'`), nil
		}
	}
	return "", errors.New("this machine does not run a release of Debian")
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// tarOf packs files for root's eyes into one folder.
func tarOf(dir string, files map[string]string) (io.Reader, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	if err := w.WriteHeader(&tar.Header{Name: dir + "/", Typeflag: tar.TypeDir, Mode: 0o700}); err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		header := &tar.Header{Name: dir + "/" + name, Mode: 0o600, Size: int64(len(files[name]))}
		if err := w.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := io.WriteString(w, files[name]); err != nil {
			return nil, err
		}
	}
	return &out, w.Close()
}
