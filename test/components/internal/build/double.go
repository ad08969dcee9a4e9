// SPDX-License-Identifier: Apache-2.0

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

	"github.com/sealerio/sealer/test/components/internal/cache"
	"github.com/sealerio/sealer/test/components/internal/image"
	"github.com/sealerio/sealer/test/components/internal/recipe"
)

// linked is the name of the program that every double is a copy of.
const linked = "doubles"

// Double makes the folder of a double, program k3s or k0s, in a version: bin/, scripts/, images/ and images.txt. The
// program is linked once for all versions.
func Double(ctx context.Context, o Options, program, version string) (string, error) {
	dir := o.Out
	o.Out = "" // the linked program's place does not follow it
	b, err := newBuilder(ctx, o)
	if err != nil {
		return "", err
	}
	settings, err := b.toolchain.Settings(ctx, b.options.Source)
	if err != nil {
		return "", err
	}
	key, err := doublesKey(b.options.Source, settings)
	if err != nil {
		return "", err
	}
	root := filepath.Join(filepath.Dir(filepath.Dir(b.dir)), linked)
	base := filepath.Join(root, key)
	if err := cache.Make(ctx, base, key, o.Messages, func(ctx context.Context, dir string) error {
		versions, err := b.toolchain.Versions(ctx, recipe.ProgramsFolder(b.options.Source), "", recipe.Modules()...)
		if err != nil {
			return err
		}
		fmt.Fprintln(o.Messages, "linking the doubles of k3s and k0s")
		if err := cache.Sweep(root); err != nil {
			return err
		}
		return b.toolchain.Build(ctx, recipe.Doubles(b.options.Source, b.arch, versions), dir)
	}); err != nil {
		return "", err
	}
	if dir == "" {
		dir = filepath.Join(root, key+"-"+program+"-"+version)
	}
	return dir, cache.Make(ctx, dir, key+"-"+program+"-"+version, o.Messages, func(ctx context.Context, dir string) error {
		return b.double(ctx, base, dir, program, version)
	})
}

// doublesKey stands for the doubles' sources and for the versions of the modules that they are made of.
func doublesKey(source, settings string) (string, error) {
	for _, name := range []string{"go.mod", "go.sum"} {
		text, err := os.ReadFile(filepath.Join(recipe.ProgramsFolder(source), name))
		if err != nil {
			return "", fmt.Errorf("hashing the doubles' sources: %w", err)
		}
		settings += string(text)
	}
	return cache.Key(recipe.DoublesFolder(source), "", settings)
}

func (b *builder) double(ctx context.Context, base, dir, program, version string) error {
	for _, folder := range []string{"bin", "scripts"} {
		if err := os.Mkdir(filepath.Join(dir, folder), 0o755); err != nil {
			return fmt.Errorf("making the double: %w", err)
		}
	}
	name := filepath.Join(dir, "bin", program)
	if err := stampCopy(filepath.Join(base, linked), name, "\n#double "+program+" "+version+"\n"); err != nil {
		return fmt.Errorf("making the double: %w", err)
	}
	if program == "k3s" {
		script, err := os.ReadFile(filepath.Join(recipe.DoublesFolder(b.options.Source), "install", "k3s-install.sh"))
		if err != nil {
			return fmt.Errorf("making the double: %w", err)
		}
		if err := os.WriteFile(filepath.Join(dir, "scripts", "k3s-install.sh"), script, 0o755); err != nil {
			return fmt.Errorf("making the double: %w", err)
		}
	}
	out, err := exec.CommandContext(ctx, name, "double-images").Output()
	if err != nil {
		return fmt.Errorf("asking the double for its images: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, ImagesList), out, 0o644); err != nil {
		return fmt.Errorf("making the double: %w", err)
	}
	return image.Doubles(ctx, filepath.Join(dir, ImagesFolder), base, b.arch, strings.Fields(string(out)))
}

// stampCopy copies a program and puts a line behind its end.
func stampCopy(from, to, line string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, io.MultiReader(in, strings.NewReader(line)))
	return errors.Join(err, out.Close())
}
