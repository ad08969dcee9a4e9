// SPDX-License-Identifier: Apache-2.0

package layer

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
)

// CheckLibraries reports every program and library in the tree that is linked to a library, or to a loader, which
// the tree does not have. Plugins are opened by name while a program runs, so that nothing but this notices a
// library of theirs that was left out.
func (t *Tree) CheckLibraries() error {
	have := make(map[string]bool)
	for name := range t.entries {
		if dir := path.Dir(name); strings.HasPrefix(dir, "usr/lib") || strings.HasPrefix(dir, "lib") {
			have[path.Base(name)] = true
		}
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(t.entries)) {
		needed, err := t.entries[name].needs()
		if err != nil {
			errs = append(errs, fmt.Errorf("checking the libraries of /%s: %w", name, err))
		}
		for _, library := range needed {
			if !have[library] {
				errs = append(errs, fmt.Errorf("checking the libraries of /%s: %s is missing", name, library))
			}
		}
	}
	return errors.Join(errs...)
}

// needs returns the base names of the libraries and the loader that the entry is linked to: none if it is no ELF file.
func (e entry) needs() ([]string, error) {
	if e.kind != tar.TypeReg {
		return nil, nil
	}
	r, err := e.open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	magic := make([]byte, len(elf.ELFMAG))
	if _, err := io.ReadFull(r, magic); err != nil || string(magic) != elf.ELFMAG {
		return nil, nil // shorter than the magic number, or something else
	}
	rest, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	file, err := elf.NewFile(bytes.NewReader(append(magic, rest...)))
	if err != nil {
		return nil, err
	}
	needed, err := file.ImportedLibraries()
	if err != nil {
		return nil, err
	}
	for _, segment := range file.Progs {
		if segment.Type != elf.PT_INTERP {
			continue
		}
		loader, err := io.ReadAll(segment.Open())
		if err != nil {
			return nil, err
		}
		needed = append(needed, path.Base(strings.TrimRight(string(loader), "\x00")))
	}
	return needed, nil
}

// Only keeps the programs, what they are linked to, and what leads there: of a system as a whole a program needs little.
func (t *Tree) Only(programs ...string) error {
	byName := make(map[string][]string) // a library by the end of its path, and the links that lead to it
	for name := range t.entries {
		byName[path.Base(name)] = append(byName[path.Base(name)], name)
	}
	keep := make(map[string]bool)
	for queue := slices.Clone(programs); len(queue) > 0; {
		name := queue[0]
		queue = queue[1:]
		e, ok := t.entries[name]
		if !ok || keep[name] {
			continue
		}
		keep[name] = true
		if e.kind == tar.TypeSymlink {
			queue = append(queue, byName[path.Base(e.link)]...)
			continue
		}
		needed, err := e.needs()
		if err != nil {
			return fmt.Errorf("looking for the libraries of /%s: %w", name, err)
		}
		for _, library := range needed {
			queue = append(queue, byName[library]...)
		}
	}
	for _, name := range programs {
		if !keep[name] {
			return fmt.Errorf("looking for /%s: no package has it", name)
		}
	}
	maps.DeleteFunc(t.entries, func(name string, e entry) bool {
		return !keep[name] && (e.kind != tar.TypeSymlink || strings.Contains(name, "/")) // links at the root are those of a merged system
	})
	return t.CheckLibraries()
}
