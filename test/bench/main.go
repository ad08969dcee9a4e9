// SPDX-License-Identifier: Apache-2.0

// Command bench measures sealer as its users meet it, as whole processes, beside its peers (crane, skopeo, buildah)
// and beside floors (curl, sha256sum, cp, tar with zstd) that work on the same bytes in the same run. It is what
// 'make bench' runs. Only the ratios mean something on another machine.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/sealerio/sealer/test/testregistry"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	var o options
	flag.StringVar(&o.only, "only", "", "measure only these, separated by commas: "+strings.Join(slices.Sorted(maps.Keys(cases())), ", "))
	flag.IntVar(&o.runs, "runs", 3, "measure each this many times and show the median")
	flag.IntVar(&o.hosts, "hosts", 16, "bring content to up to so many hosts")
	flag.StringVar(&o.sealer, "sealer", "bin/sealer", "the binary to measure")
	flag.StringVar(&o.crane, "crane", "", "crane's binary")
	makeSet := flag.String("make", "", "push the images of this set to the registry at -address, and print what they are (it is how this program calls itself)")
	address := flag.String("address", "", "host and port of the registry for -make")
	flag.BoolVar(&o.json, "json", false, "print JSON")
	flag.Parse()
	do := func() error { return measure(ctx, o) }
	if *makeSet != "" {
		do = func() error { return printSet(ctx, *address, *makeSet) }
	}
	if err := do(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type options struct {
	only, sealer, crane string
	runs, hosts         int
	json                bool
}

// cases are the groups of figures by name.
func cases() map[string]func(context.Context, *bench) error {
	return map[string]func(context.Context, *bench) error{
		"start":   start,
		"pack":    pack,
		"rootfs":  rootfs,
		"overlap": overlap,
		"ship":    ship,
		"grow":    grow,
		"latency": latency,
		"peers":   peers,
	}
}

// bench is one run: a registry, a folder for everything, and the figures so far.
type bench struct {
	options
	work     string // removed at the end
	registry *testregistry.Registry
	sets     map[string]*Images
	dirs     []string // made so far, within work
	rows     []Row
}

func measure(ctx context.Context, o options) (err error) {
	for _, path := range []*string{&o.sealer, &o.crane} {
		if *path, err = filepath.Abs(*path); err != nil {
			return err
		}
	}
	wanted := slices.Sorted(maps.Keys(cases()))
	if o.only != "" {
		wanted = strings.Split(o.only, ",")
	}
	work, err := os.MkdirTemp("", "sealer-bench-")
	if err != nil {
		return err
	}
	b := &bench{options: o, work: work, sets: map[string]*Images{}}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	b.registry, err = testregistry.Start(ctx, testregistry.Options{Dir: filepath.Join(work, "registry")})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.registry.Close()) }()
	defer func() { err = errors.Join(err, b.print(os.Stdout)) }() // what there is, even if something went wrong
	for _, name := range wanted {
		do, ok := cases()[name]
		if !ok {
			return fmt.Errorf("-only: there is no %q (there are %s)", name, strings.Join(slices.Sorted(maps.Keys(cases())), ", "))
		}
		fmt.Fprintln(os.Stderr, "bench:", name)
		if err := do(ctx, b); err != nil {
			return fmt.Errorf("measuring %s: %w", name, err)
		}
		if err := removeAll(b.dirs); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) print(w io.Writer) error {
	if b.json {
		return json.NewEncoder(w).Encode(b.rows)
	}
	return printTable(w, b.rows)
}

// images returns a set, and pushes it first if this run has not.
func (b *bench) images(ctx context.Context, s shape) (*Images, error) {
	if set, ok := b.sets[s.name]; ok {
		return set, nil
	}
	fmt.Fprintln(os.Stderr, "bench: making the images of", s.name)
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding this program: %w", err)
	}
	// In a process of its own: Linux counts the memory of the parent at the time of the fork as the child's peak, and
	// making images takes more of it than anything that is measured.
	cmd := exec.CommandContext(ctx, self, "-make", s.name, "-address", b.registry.Address)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("making the images of %q: %w", s.name, err)
	}
	set := &Images{}
	if err := json.Unmarshal(out, set); err != nil {
		return nil, fmt.Errorf("reading what the images of %q are: %w", s.name, err)
	}
	b.sets[s.name] = set
	return set, nil
}

// printSet makes and pushes the images of a set.
func printSet(ctx context.Context, address, set string) error {
	for _, s := range []shape{small, wide, many, big} {
		if s.name == set {
			images, err := pushImages(ctx, address, s)
			if err != nil {
				return err
			}
			return json.NewEncoder(os.Stdout).Encode(images)
		}
	}
	return fmt.Errorf("-make: there is no set %q", set)
}

// store is the path of an empty folder for sealer's content; dir is one for anything.
func (b *bench) store() string { return b.dir("store") }

func (b *bench) dir(name string) string {
	dir := filepath.Join(b.work, fmt.Sprintf("%s-%d", name, len(b.dirs)+1))
	b.dirs = append(b.dirs, dir)
	return dir
}

// contextDir writes a build context that packs a set, as the registry at address has it.
func (b *bench) contextDir(address string, set *Images, kubefile string) (string, error) {
	dir := b.dir("context")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	var list strings.Builder
	if set != nil {
		for _, ref := range set.Refs {
			fmt.Fprintf(&list, "%s/%s\n", address, ref)
		}
	}
	return dir, errors.Join(
		os.WriteFile(filepath.Join(dir, "Kubefile"), []byte(kubefile), 0o644),
		os.WriteFile(filepath.Join(dir, "imageList"), []byte(list.String()), 0o644),
	)
}
