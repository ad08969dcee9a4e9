// SPDX-License-Identifier: Apache-2.0

// Package build makes the folder with everything a cluster needs: programs for hosts, CNI plugins, images.
package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/sealerio/sealer/test/components/internal/cache"
	"github.com/sealerio/sealer/test/components/internal/compile"
	"github.com/sealerio/sealer/test/components/internal/debian"
	"github.com/sealerio/sealer/test/components/internal/image"
	"github.com/sealerio/sealer/test/components/internal/recipe"
)

// The parts of the folder that Run makes.
const (
	ImagesFolder = "images"
	ImagesList   = "images.txt"
)

const modulePath = "github.com/sealerio/sealer/test/components"

// Options says what to build from and where to put it.
type Options struct {
	Source   string         // folder of the components module
	Release  recipe.Release // default Current
	Out      string         // empty: a folder of the user's cache, named after the key
	Messages io.Writer      // progress and the compiler's messages
}

// builder holds what is known once the sources have been looked at.
type builder struct {
	options   Options
	toolchain compile.Toolchain
	arch      string
	key       string
	dir       string
}

// Locate returns the folder that Run would make for the sources as they are, whether or not it is there.
func Locate(ctx context.Context, o Options) (dir string, built bool, err error) {
	b, err := newBuilder(ctx, o)
	if err != nil {
		return "", false, err
	}
	return b.dir, cache.Has(b.dir, b.key), nil
}

// Run builds what has not been built yet and returns the folder.
func Run(ctx context.Context, o Options) (string, error) {
	b, err := newBuilder(ctx, o)
	if err != nil {
		return "", err
	}
	if cache.Has(b.dir, b.key) {
		return b.dir, nil
	}
	packages, err := debian.ReadList(filepath.Join(b.options.Source, "apt.txt"))
	if err != nil {
		return "", err
	}
	if err := debian.CheckInstalled(ctx, packages); err != nil {
		return "", err
	}
	if err := cache.Make(ctx, b.dir, b.key, o.Messages, b.fill); err != nil {
		return "", err
	}
	if o.Out != "" {
		return b.dir, nil
	}
	return b.dir, cache.Sweep(filepath.Dir(b.dir))
}

func newBuilder(ctx context.Context, o Options) (*builder, error) {
	source, err := filepath.Abs(o.Source)
	if err != nil {
		return nil, fmt.Errorf("finding the sources: %w", err)
	}
	o.Source = source
	if o.Release == "" {
		o.Release = recipe.Current
	}
	b := &builder{options: o, toolchain: compile.New(o.Messages)}
	if path, err := b.toolchain.Path(ctx, source); err != nil {
		return nil, err
	} else if path != modulePath {
		return nil, fmt.Errorf("finding the sources: %s is module %s, not %s", source, path, modulePath)
	}
	settings, err := b.toolchain.Settings(ctx, source)
	if err != nil {
		return nil, err
	}
	if b.arch, err = b.toolchain.Arch(ctx, source); err != nil {
		return nil, err
	}
	if b.key, err = cache.Key(source, recipe.DoublesFolder(source), settings, string(o.Release)); err != nil {
		return nil, err
	}
	if o.Out != "" {
		b.dir, err = filepath.Abs(o.Out)
	} else {
		b.dir, err = cacheFolder(b.key)
	}
	return b, err
}

func cacheFolder(key string) (string, error) {
	root, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("finding the cache folder: %w", err)
	}
	return filepath.Join(root, "sealer-test", "components", key), nil
}

// fill builds everything into the empty folder dir.
func (b *builder) fill(ctx context.Context, dir string) error {
	work := filepath.Join(dir, ".work") // within: a run that is killed leaves nothing that the next does not remove
	if err := os.Mkdir(work, 0o755); err != nil {
		return fmt.Errorf("making a work folder: %w", err)
	}
	return errors.Join(b.fillFrom(ctx, dir, work), os.RemoveAll(work))
}

func (b *builder) fillFrom(ctx context.Context, dir, work string) error {
	folder, release := recipe.ProgramsFolder(b.options.Source), b.options.Release
	versions, err := b.toolchain.Versions(ctx, folder, release.ModFile(), recipe.Modules()...)
	if err != nil {
		return err
	}
	common, err := b.toolchain.Versions(ctx, folder, "", recipe.CommonModules()...)
	if err != nil {
		return err
	}
	source, other := b.options.Source, recipe.OtherArch(b.arch)
	programs, otherPrograms := filepath.Join(work, "programs"), filepath.Join(work, "other")

	var packages, carrier []string
	var references []string
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"downloading Debian packages for kube-proxy", func() (err error) {
			packages, err = debian.Download(ctx, filepath.Join(work, "debs"), b.options.Messages, recipe.ProxyPackages()...)
			return err
		}},
		{"downloading Debian packages for keepalived", func() (err error) {
			carrier, err = debian.Download(ctx, filepath.Join(work, "carrier"), b.options.Messages, recipe.CarrierPackage)
			return err
		}},
		{"compiling runc", func() error { return b.toolchain.Build(ctx, recipe.Runc(source, b.arch), programs) }},
		{"compiling hello for " + other, func() error { return b.toolchain.Build(ctx, recipe.Hello(source, other), otherPrograms) }},
		{"compiling what all releases have alike", func() error { return b.toolchain.Build(ctx, recipe.Common(source, b.arch, common), programs) }},
		{"compiling Kubernetes " + versions[recipe.ModuleKubernetes] + " and what goes with it (ten minutes on two idle cores, half a minute when Go has it cached)", func() error {
			return b.toolchain.Build(ctx, recipe.Programs(source, b.arch, release, versions), programs)
		}},
		{"laying out programs", func() error { return layOut(programs, dir) }},
		{"packing images", func() (err error) {
			kubeadm, err := kubeadmImages(ctx, filepath.Join(dir, "bin", "kubeadm"), versions[recipe.ModuleKubernetes])
			if err != nil {
				return err
			}
			references, err = image.Write(ctx, image.Inputs{
				Programs:   programs,
				Other:      otherPrograms,
				Packages:   packages,
				Carrier:    carrier,
				Kubeadm:    kubeadm,
				Versions:   versions,
				Arch:       b.arch,
				OtherArch:  other,
				LayoutPath: filepath.Join(dir, ImagesFolder),
			})
			return err
		}},
	} {
		start := time.Now()
		fmt.Fprintln(b.options.Messages, step.name)
		if err := step.do(); err != nil {
			return err
		}
		fmt.Fprintf(b.options.Messages, "%s: done in %s\n", step.name, time.Since(start).Round(100*time.Millisecond))
	}
	return b.lists(dir, references, append(packages, carrier...))
}

// lists writes the texts beside the folders, and the manifests for the images of ours.
func (b *builder) lists(dir string, references, packages []string) error {
	names := make([]string, len(packages))
	for i, p := range packages {
		names[i] = filepath.Base(p)
	}
	for name, lines := range map[string][]string{ImagesList: references, "debian-packages.txt": names} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
			return fmt.Errorf("writing a list: %w", err)
		}
	}
	manifests := filepath.Join(dir, "manifests")
	if err := os.Mkdir(manifests, 0o755); err != nil {
		return fmt.Errorf("copying manifests: %w", err)
	}
	for _, program := range []string{"hello", "podnet"} {
		name := program + ".yaml"
		content, err := os.ReadFile(filepath.Join(recipe.ProgramsFolder(b.options.Source), program, name))
		if err != nil {
			return fmt.Errorf("copying manifests: %w", err)
		}
		if err := os.WriteFile(filepath.Join(manifests, name), content, 0o644); err != nil {
			return fmt.Errorf("copying manifests: %w", err)
		}
	}
	return nil
}

// layOut puts what goes onto hosts into bin and cni. Programs are linked, not copied: images need them too.
func layOut(programs, dir string) error {
	for folder, names := range map[string][]string{
		"bin": append([]string{"kube"}, recipe.HostPrograms()...),
		"cni": recipe.Plugins(),
	} {
		if err := os.Mkdir(filepath.Join(dir, folder), 0o755); err != nil {
			return fmt.Errorf("laying out programs: %w", err)
		}
		for _, name := range names {
			if err := os.Link(filepath.Join(programs, name), filepath.Join(dir, folder, name)); err != nil {
				return fmt.Errorf("laying out programs: %w", err)
			}
		}
	}
	for _, name := range recipe.HostNames() {
		if err := os.Symlink("kube", filepath.Join(dir, "bin", name)); err != nil {
			return fmt.Errorf("laying out programs: %w", err)
		}
	}
	return nil
}

// kubeadmImages asks kubeadm for the images of the given version of Kubernetes.
func kubeadmImages(ctx context.Context, kubeadm, version string) ([]string, error) {
	var stderr strings.Builder
	cmd := exec.CommandContext(ctx, kubeadm, "config", "images", "list", "--kubernetes-version", version)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("asking kubeadm for its images: %w: %s", err, strings.TrimSpace(stderr.String()))
	}
	return strings.Fields(string(out)), nil
}
