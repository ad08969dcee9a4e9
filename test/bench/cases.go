// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sealerio/sealer/test/testregistry"
)

// target is the name that is built everywhere.
const target = "example.com/bench:1"

const copyAll = "FROM scratch\nCOPY . .\n"

func (b *bench) sealerBuild(store, dir string) []string {
	return []string{b.sealer, "--root", store, "--progress", "none", "build", "-t", target, dir}
}

func (b *bench) in(store string, args ...string) []string {
	return append([]string{b.sealer, "--root", store, "--progress", "none"}, args...)
}

// command is a contender whose command needs nothing prepared.
func command(program string, reference bool, argv func() []string) contender {
	return contender{program, func() (string, []string, error) { return "", argv(), nil }, reference}
}

func shell(script string) []string { return []string{"sh", "-euc", script} }

// start: what a command costs that does nothing.
func start(ctx context.Context, b *bench) error {
	store := b.store()
	return b.compare(ctx, "start",
		command("sealer version", false, func() []string { return b.in(store, "version") }),
		command("sealer images", false, func() []string { return b.in(store, "images") }),
		command("crane version", true, func() []string { return []string{b.crane, "version"} }),
	)
}

func (b *bench) cranePull(address string, set *Images, dir string) []string {
	argv := []string{b.crane, "pull", "--format=oci"}
	for _, ref := range set.Refs {
		argv = append(argv, address+"/"+ref)
	}
	return append(argv, dir)
}

func skopeoPull(address string, set *Images, dir string) []string {
	var script strings.Builder
	for _, ref := range set.Refs {
		fmt.Fprintf(&script, "skopeo copy -q --src-tls-verify=false docker://%s/%s oci:%s:%s\n", address, ref, dir, strings.ReplaceAll(ref, "/", "-"))
	}
	return shell(script.String())
}

// curlAll fetches each blob once, over one connection, and hashes it: nothing can take less.
func (b *bench) curlAll(set *Images, dir string) ([]string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	var config strings.Builder // many have more of them than a command line may be long
	for _, blob := range set.Blobs {
		fmt.Fprintf(&config, "url = \"%s/v2/%s/blobs/%s\"\noutput = \"%s/%s\"\n",
			b.registry.URL, blob.Repository, blob.Digest, dir, strings.TrimPrefix(blob.Digest, "sha256:"))
	}
	file := dir + ".curl"
	b.dirs = append(b.dirs, file)
	if err := os.WriteFile(file, []byte(config.String()), 0o644); err != nil {
		return nil, err
	}
	return shell(fmt.Sprintf("curl -sSf -K %s; find %s -type f -print0 | xargs -0 sha256sum >/dev/null", file, dir)), nil
}

// pack: the images of a list into one image, cold and with nothing changed.
func pack(ctx context.Context, b *bench) error {
	proxy, err := testregistry.NewProxy(ctx, b.registry.URL, testregistry.ProxyOptions{})
	if err != nil {
		return err
	}
	for _, s := range []shape{small, wide, many, big} {
		if err := b.pack(ctx, s, proxy); err != nil {
			return errors.Join(err, proxy.Close())
		}
	}
	return proxy.Close()
}

func (b *bench) pack(ctx context.Context, s shape, proxy *testregistry.Proxy) error {
	set, err := b.images(ctx, s)
	if err != nil {
		return err
	}
	dir, err := b.contextDir(b.registry.Address, set, copyAll)
	if err != nil {
		return err
	}
	through, err := b.contextDir(proxy.Address, set, copyAll)
	if err != nil {
		return err
	}
	job := "pack " + s.name
	store := b.store()
	contenders := []contender{
		command("sealer", false, func() []string { store = b.store(); return b.sealerBuild(store, dir) }),
		command("crane", true, func() []string { return b.cranePull(b.registry.Address, set, b.dir("crane")) }),
		command("skopeo in turn", false, func() []string { return skopeoPull(b.registry.Address, set, b.dir("skopeo")) }),
		{program: "curl + sha256sum", prepare: func() (string, []string, error) {
			argv, err := b.curlAll(set, b.dir("curl"))
			return "", argv, err
		}},
	}
	if err := b.compare(ctx, job, contenders...); err != nil {
		return err
	}
	written := float64(b.cost(job, "sealer").Written) / float64(set.Unique)
	size, err := sizeOf(filepath.Join(store, "store", "blobs"))
	if err != nil {
		return err
	}
	b.note(job, "sealer", "unique %.1f MB, written × %.3f, artifact × %.4f", float64(set.Unique)/1e6, written, float64(size)/float64(set.Unique))
	again := "pack " + s.name + ", nothing changed"
	if err := b.compare(ctx, again, command("sealer", false, func() []string { return b.sealerBuild(store, dir) })); err != nil {
		return err
	}
	b.note(again, "sealer", "%.1f %% of cold CPU", 100*float64(b.cost(again, "sealer").CPU)/float64(b.cost(job, "sealer").CPU))
	fresh := b.store()
	if err := b.counted(ctx, job, "sealer", proxy, "", b.sealerBuild(fresh, through)...); err != nil {
		return err
	}
	if err := b.counted(ctx, again, "sealer", proxy, "", b.sealerBuild(fresh, through)...); err != nil {
		return err
	}
	return b.counted(ctx, job, "crane", proxy, "", b.cranePull(proxy.Address, set, b.dir("crane"))...)
}

// buildah builds the same in a store of its own, and writes an OCI layout.
func buildah(context, dir string) []string {
	return shell(fmt.Sprintf(`mkdir -p %[2]s
b() { buildah --root %[2]s/root --runroot %[2]s/runroot --storage-driver vfs "$@"; }
b bud -q -f %[1]s/Kubefile -t bench %[1]s
b push -q --compression-format zstd bench oci:%[2]s/layout
b rmi -a -f >/dev/null`, context, dir))
}

// The rootfs of the figures: files that do not compress.
const (
	treeLarge = 1 << 30
	treeSmall = 10_000
)

// rootfs: a large tree into a layer, cold and warm, and one file on top of it.
func rootfs(ctx context.Context, b *bench) error {
	dir, err := b.contextDir("", nil, copyAll)
	if err != nil {
		return err
	}
	if err := writeTree(filepath.Join(dir, "tree"), treeLarge, treeSmall); err != nil {
		return err
	}
	store := b.store()
	job := fmt.Sprintf("rootfs 1 GiB + %d files", treeSmall)
	if err := b.compare(ctx, job,
		command("sealer", false, func() []string { store = b.store(); return b.sealerBuild(store, dir) }),
		command("tar | zstd -1 beside sha256sum", true, func() []string {
			return shell(fmt.Sprintf("(find %[1]s/tree -type f -print0 | xargs -0 sha256sum >/dev/null) & tar -C %[1]s -c tree | zstd -q -1 -o %[2]s; wait", dir, b.dir("tar")))
		}),
	); err != nil {
		return err
	}
	slow := *b // buildah takes a minute
	slow.runs, slow.rows = 1, nil
	if err := slow.compare(ctx, job, command("buildah bud + push", false, func() []string { return buildah(dir, b.dir("buildah")) })); err != nil {
		return err
	}
	b.rows, b.dirs = append(b.rows, slow.rows...), slow.dirs
	if err := b.compare(ctx, job+", nothing changed", command("sealer", false, func() []string { return b.sealerBuild(store, dir) })); err != nil {
		return err
	}
	over, err := b.contextDir("", nil, "FROM "+target+"\nCOPY one .\n")
	if err != nil {
		return err
	}
	turn := 0
	return b.compare(ctx, "one file on top of 1 GiB", contender{program: "sealer", prepare: func() (string, []string, error) {
		turn++ // another content each time: else it would be in the build cache
		argv := append(b.in(store, "build", "-t", "example.com/over:1"), over)
		return "", argv, os.WriteFile(filepath.Join(over, "one"), []byte(fmt.Sprint("content ", turn)), 0o644)
	}})
}

// overlap: a build with a rootfs and images, beside each of its halves alone.
func overlap(ctx context.Context, b *bench) error {
	set, err := b.images(ctx, wide)
	if err != nil {
		return err
	}
	const large = 400 << 20
	var dirs []string
	for _, half := range []struct {
		set  *Images
		tree bool
	}{{set, true}, {nil, true}, {set, false}} {
		dir, err := b.contextDir(b.registry.Address, half.set, copyAll)
		if err != nil {
			return err
		}
		if half.tree {
			if err := writeTree(filepath.Join(dir, "tree"), large, 1000); err != nil {
				return err
			}
		}
		dirs = append(dirs, dir)
	}
	const job = "whole build"
	names := []string{"both", "rootfs alone", "images alone"}
	var contenders []contender
	for i, dir := range dirs {
		contenders = append(contenders, command(names[i], false, func() []string { return b.sealerBuild(b.store(), dir) }))
	}
	if err := b.compare(ctx, job, contenders...); err != nil {
		return err
	}
	slower := max(b.cost(job, names[1]).Wall, b.cost(job, names[2]).Wall)
	b.note(job, "both", "× %s of the slower half", ratio(b.cost(job, "both").Wall, slower))
	return nil
}

// ship: push, pull, save and load of one ClusterImage.
func ship(ctx context.Context, b *bench) error {
	set, err := b.images(ctx, wide)
	if err != nil {
		return err
	}
	dir, err := b.contextDir(b.registry.Address, set, copyAll)
	if err != nil {
		return err
	}
	store, layout, archive := b.store(), b.dir("layout"), filepath.Join(b.work, "archive.tar")
	if _, err := run(ctx, "", b.sealerBuild(store, dir)...); err != nil {
		return err
	}
	const seed = "/seed:1"
	push := func(name string) ([]string, error) {
		_, err := run(ctx, "", b.in(store, "tag", target, name)...)
		return b.in(store, "push", name), err
	}
	argv, err := push(b.registry.Address + seed)
	if err != nil {
		return err
	}
	if _, err := run(ctx, "", argv...); err != nil {
		return err
	}
	if _, err := run(ctx, "", b.crane, "pull", "--format=oci", b.registry.Address+seed, layout); err != nil {
		return err
	}
	var empty *testregistry.Registry // blobs in another repository of it would be taken over
	fresh := func() (name string, err error) {
		if empty != nil {
			err = empty.Close()
		}
		if err == nil {
			empty, err = testregistry.Start(ctx, testregistry.Options{Dir: b.dir("registry")})
		}
		if err != nil {
			return "", err
		}
		return empty.Address + "/bench:1", nil
	}
	err = b.compare(ctx, "push wide to an empty registry",
		contender{program: "sealer", prepare: func() (string, []string, error) {
			name, err := fresh()
			if err != nil {
				return "", nil, err
			}
			argv, err := push(name)
			return "", argv, err
		}},
		contender{program: "crane", reference: true, prepare: func() (string, []string, error) {
			name, err := fresh()
			return "", []string{b.crane, "push", "--index", layout, name}, err
		}},
	)
	if empty != nil {
		err = errors.Join(err, empty.Close())
	}
	if err != nil {
		return err
	}
	if err := b.compare(ctx, "pull wide",
		command("sealer", false, func() []string { return b.in(b.store(), "pull", b.registry.Address+seed) }),
		command("crane", true, func() []string {
			return []string{b.crane, "pull", "--format=oci", b.registry.Address + seed, b.dir("crane")}
		}),
	); err != nil {
		return err
	}
	if err := b.compare(ctx, "save wide",
		command("sealer", false, func() []string { return b.in(store, "save", "-o", archive, target) }),
		command("cp -r + sha256sum", true, func() []string {
			copied := b.dir("copy")
			return shell(fmt.Sprintf("cp -r %[1]s %[2]s; find %[2]s -type f -print0 | xargs -0 sha256sum >/dev/null", layout, copied))
		}),
	); err != nil {
		return err
	}
	if err := b.compare(ctx, "load wide",
		command("sealer", false, func() []string { return b.in(b.store(), "load", "-i", archive) }),
		command("tar x + sha256sum", true, func() []string {
			out := b.dir("tar")
			return shell(fmt.Sprintf("mkdir %[2]s; tar -C %[2]s -xf %[1]s; find %[2]s -type f -print0 | xargs -0 sha256sum >/dev/null", archive, out))
		}),
	); err != nil {
		return err
	}
	info, err := os.Stat(archive)
	if err != nil {
		return fmt.Errorf("measuring the archive: %w", err)
	}
	b.note("save wide", "sealer", "archive × %.4f of the unique bytes", float64(info.Size())/float64(set.Unique))
	return nil
}

// grow: one image of many gets another layer of 1 MiB.
func grow(ctx context.Context, b *bench) error {
	set, err := b.images(ctx, wide)
	if err != nil {
		return err
	}
	proxy, err := testregistry.NewProxy(ctx, b.registry.URL, testregistry.ProxyOptions{})
	if err != nil {
		return err
	}
	return errors.Join(b.grow(ctx, set, proxy), proxy.Close())
}

func (b *bench) grow(ctx context.Context, set *Images, proxy *testregistry.Proxy) error {
	dir, err := b.contextDir(proxy.Address, set, copyAll)
	if err != nil {
		return err
	}
	store, remote := b.store(), proxy.Address+"/grow:1"
	build := append(b.in(store, "build", "-t", remote), dir)
	push := b.in(store, "push", remote)
	for _, argv := range [][]string{build, push} {
		if _, err := run(ctx, "", argv...); err != nil {
			return err
		}
	}
	if err := addLayer(ctx, b.registry.Address+"/"+set.Refs[0], 1<<20); err != nil {
		return err
	}
	const job = "one image of wide grows by 1 MiB"
	for _, step := range []struct {
		program string
		argv    []string
	}{
		{"sealer build", build},
		{"sealer push", push},
	} {
		proxy.Reset()
		cost, err := run(ctx, "", step.argv...)
		if err != nil {
			return err
		}
		b.rows = append(b.rows, Row{Job: job, Program: step.program, Cost: cost,
			Fetched: proxy.Sent(), Pushed: proxy.Received(), Requests: len(proxy.Requests())})
	}
	return nil
}

// latency: many small blobs behind a network that answers late.
func latency(ctx context.Context, b *bench) error {
	set, err := b.images(ctx, many)
	if err != nil {
		return err
	}
	proxy, err := testregistry.NewProxy(ctx, b.registry.URL, testregistry.ProxyOptions{})
	if err != nil {
		return err
	}
	proxy.Inject(testregistry.Fault{Effect: testregistry.Delay(20 * time.Millisecond)})
	dir, err := b.contextDir(proxy.Address, set, copyAll)
	if err != nil {
		return errors.Join(err, proxy.Close())
	}
	once := *b // skopeo takes minutes
	once.runs, once.rows = 1, nil
	err = once.compare(ctx, "pack many, 20 ms away",
		command("sealer", false, func() []string { return b.sealerBuild(b.store(), dir) }),
		command("crane", true, func() []string { return b.cranePull(proxy.Address, set, b.dir("crane")) }),
		command("skopeo in turn", false, func() []string { return skopeoPull(proxy.Address, set, b.dir("skopeo")) }),
	)
	b.rows, b.dirs = append(b.rows, once.rows...), once.dirs
	return errors.Join(err, proxy.Close())
}
