// SPDX-License-Identifier: Apache-2.0

package engine_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/sys/mountinfo"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"
	"github.com/tonistiigi/fsutil"

	"github.com/sealerio/sealer/build/engine"
)

func TestMain(m *testing.M) {
	engine.Reexec()
	if root := os.Getenv("ENGINE_TEST_ROOT"); root != "" {
		os.Exit(sleepingBuild(root, os.Getenv("ENGINE_TEST_STEP")))
	}
	os.Exit(m.Run())
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("the engine mounts file systems: needs root")
	}
}

func open(t *testing.T, o engine.Options) *engine.Engine {
	t.Helper()
	needRoot(t)
	if o.Root == "" {
		o.Root = t.TempDir()
	}
	e, err := engine.Open(t.Context(), o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, e.Close()) })
	return e
}

// step is a state whose only file is the program testdata/step.
func step(t *testing.T) llb.State {
	t.Helper()
	data, err := os.ReadFile(stepBinary(t))
	require.NoError(t, err)
	return llb.Scratch().File(llb.Mkfile("/step", 0o755, data))
}

func stepBinary(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "step")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "./testdata/step")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	return bin
}

// run runs the step in its own root with a writable folder at /out, and exports that folder.
func run(t *testing.T, e *engine.Engine, args []string, opts ...llb.RunOption) (string, error) {
	t.Helper()
	opts = append([]llb.RunOption{llb.Args(append([]string{"/step"}, args...)), llb.Dir("/out"), llb.AddEnv("FOO", "bar")}, opts...)
	return export(t, e, step(t).Run(opts...).AddMount("/out", llb.Scratch()))
}

func export(t *testing.T, e *engine.Engine, st llb.State) (string, error) {
	t.Helper()
	def, err := st.Marshal(t.Context())
	require.NoError(t, err)
	out := t.TempDir()
	_, err = e.Client().Solve(t.Context(), def, client.SolveOpt{Exports: []client.ExportEntry{{Type: client.ExporterLocal, OutputDir: out}}}, nil)
	return out, err
}

func TestCopy(t *testing.T) {
	t.Parallel()
	for _, snapshotter := range []string{"overlayfs", "native"} {
		t.Run(snapshotter, func(t *testing.T) {
			t.Parallel()
			e := open(t, engine.Options{Snapshotter: snapshotter})
			src := t.TempDir()
			require.NoError(t, os.WriteFile(filepath.Join(src, "a"), []byte("hello"), 0o644))
			local, err := fsutil.NewFS(src)
			require.NoError(t, err)
			def, err := llb.Scratch().File(llb.Copy(llb.Local("src"), "a", "/b/")).Marshal(t.Context())
			require.NoError(t, err)
			out := t.TempDir()
			_, err = e.Client().Solve(t.Context(), def, client.SolveOpt{
				LocalMounts: map[string]fsutil.FS{"src": local},
				Exports:     []client.ExportEntry{{Type: client.ExporterLocal, OutputDir: out}},
			}, nil)
			require.NoError(t, err)
			got, err := os.ReadFile(filepath.Join(out, "b", "a"))
			require.NoError(t, err)
			require.Equal(t, "hello", string(got))
		})
	}
}

func isolations(t *testing.T, f func(*testing.T, engine.Isolation)) {
	t.Helper()
	for _, i := range []engine.Isolation{engine.Chroot, engine.Runc} {
		t.Run(string(i), func(t *testing.T) {
			t.Parallel()
			if _, err := exec.LookPath("runc"); err != nil && i == engine.Runc {
				t.Skip("there is no runc here")
			}
			f(t, i)
		})
	}
}

func TestRun_WhatAStepSees(t *testing.T) {
	t.Parallel()
	isolations(t, func(t *testing.T, i engine.Isolation) {
		e := open(t, engine.Options{Isolation: i})
		for _, network := range []string{"host", "none"} {
			opts := []llb.RunOption{}
			if network == "none" {
				opts = append(opts, llb.Network(llb.NetModeNone))
			}
			out, err := run(t, e, []string{"look", "/out/seen"}, opts...)
			require.NoError(t, err)
			seen, err := os.ReadFile(filepath.Join(out, "seen"))
			require.NoError(t, err)
			for _, want := range []string{"pid 1\n", "wd /out\n", "FOO bar\n", "null true\n", "shadow false\n", "NoNewPrivs: 1\n"} {
				if i == engine.Runc && strings.HasPrefix(want, "NoNewPrivs") {
					continue // BuildKit's specification for runc leaves set-uid files alive
				}
				require.Contains(t, string(seen), want, network)
			}
			require.Contains(t, string(seen), "CapBnd: 00000000a80425fb", "the capabilities of a container, and no others")
			if network == "none" {
				require.Equal(t, 1, strings.Count(string(seen), "link "), string(seen))
			}
			require.Contains(t, string(seen), "link lo\n")
		}
	})
}

func TestRun_ExitCode(t *testing.T) {
	t.Parallel()
	isolations(t, func(t *testing.T, i engine.Isolation) {
		e := open(t, engine.Options{Isolation: i})
		_, err := run(t, e, []string{"exit"})
		require.ErrorContains(t, err, `process "/step exit" did not complete successfully: exit code: 3`)
	})
}

func TestRun_UnknownProgram(t *testing.T) {
	t.Parallel()
	e := open(t, engine.Options{Isolation: engine.Chroot})
	_, err := export(t, e, step(t).Run(llb.Args([]string{"nothere"})).AddMount("/out", llb.Scratch()))
	require.ErrorContains(t, err, `exec "nothere": executable file not found`)
}

func TestCancel_LeavesNothing(t *testing.T) {
	t.Parallel()
	isolations(t, func(t *testing.T, i engine.Isolation) {
		needRoot(t)
		root := t.TempDir()
		e, err := engine.Open(t.Context(), engine.Options{Root: root, Isolation: i})
		require.NoError(t, err)
		def, err := step(t).Run(llb.Args([]string{"/step", "sleep"})).AddMount("/out", llb.Scratch()).Marshal(t.Context())
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		status := make(chan *client.SolveStatus)
		go func() {
			for s := range status {
				for _, l := range s.Logs {
					if strings.Contains(string(l.Data), "sleeping") {
						cancel()
					}
				}
			}
		}()
		_, err = e.Client().Solve(ctx, def, client.SolveOpt{}, status)
		require.ErrorContains(t, err, context.Canceled.Error())
		require.NoError(t, e.Close())
		requireNothing(t, root)
	})
}

// requireNothing looks for mounts below root and processes that run a test's step.
func requireNothing(t *testing.T, root string) {
	t.Helper()
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(root))
	require.NoError(t, err)
	require.Empty(t, mounts)
	require.Empty(t, stepsBelow(t, root))
}

func stepsBelow(t *testing.T, root string) []string {
	t.Helper()
	dirs, err := filepath.Glob("/proc/[0-9]*")
	require.NoError(t, err)
	var found []string
	for _, d := range dirs {
		mounts, _ := os.ReadFile(filepath.Join(d, "mountinfo"))
		line, _ := os.ReadFile(filepath.Join(d, "cmdline"))
		if strings.HasPrefix(string(line), "/step\x00") && strings.Contains(string(mounts), root) {
			found = append(found, d+" "+string(line))
		}
	}
	return found
}

func TestOpen_SecondWaits(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	first := open(t, engine.Options{Root: root, Command: "sealer build -t first"})
	said := make(chan string, 1)
	opened := make(chan error, 1)
	go func() {
		second, err := engine.Open(context.WithoutCancel(t.Context()), engine.Options{Root: root, Notice: func(line string) { said <- line }})
		if err == nil {
			err = second.Close()
		}
		opened <- err
	}()
	line := <-said
	require.Contains(t, line, fmt.Sprintf("waiting for another build in %s: process %d (sealer build -t first), running since ", root, os.Getpid()))
	select {
	case err := <-opened:
		t.Fatal("the second did not wait", err)
	default:
	}
	require.NoError(t, first.Close())
	require.NoError(t, <-opened)
}

func TestOpen_WaitCancelled(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	open(t, engine.Options{Root: root})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := engine.Open(ctx, engine.Options{Root: root})
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

func TestOutput_Links(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	e := open(t, engine.Options{Root: root})
	dir := t.TempDir()
	dst, err := local.NewStore(dir)
	require.NoError(t, err)
	path := func(d digest.Digest) string { return filepath.Join(dir, "blobs", "sha256", d.Encoded()) }
	var linked int
	out := e.Output(dst, func(_ context.Context, desc ocispec.Descriptor, file string) (bool, error) {
		linked++
		require.NoError(t, os.MkdirAll(filepath.Join(dir, "blobs", "sha256"), 0o755))
		return true, os.Link(file, path(desc.Digest))
	})
	def, err := llb.Scratch().File(llb.Mkfile("/a", 0o644, []byte("x"))).Marshal(t.Context())
	require.NoError(t, err)
	resp, err := e.Client().Solve(t.Context(), def, client.SolveOpt{Exports: []client.ExportEntry{{Type: client.ExporterOCI, Attrs: map[string]string{"tar": "false"}, OutputStore: out}}}, nil)
	require.NoError(t, err)
	require.FileExists(t, path(digest.Digest(resp.ExporterResponse["containerimage.digest"])))
	require.GreaterOrEqual(t, linked, 1)
}

func TestImport(t *testing.T) {
	t.Parallel()
	e := open(t, engine.Options{})
	dir := t.TempDir()
	data := []byte("a blob")
	desc := ocispec.Descriptor{Digest: digest.FromBytes(data), Size: int64(len(data))}
	require.NoError(t, os.WriteFile(filepath.Join(dir, desc.Digest.Encoded()), data, 0o644))
	file := func(d digest.Digest) string { return filepath.Join(dir, d.Encoded()) }
	missing := ocispec.Descriptor{Digest: digest.FromString("not there"), Size: 9}
	release, err := e.Import(t.Context(), []ocispec.Descriptor{desc, missing}, file)
	require.NoError(t, err)
	again, err := e.Import(t.Context(), []ocispec.Descriptor{desc}, file)
	require.NoError(t, err)
	require.NoError(t, again(t.Context()))
	require.NoError(t, release(t.Context()))
}

func TestPrune(t *testing.T) {
	t.Parallel()
	e := open(t, engine.Options{})
	_, err := export(t, e, llb.Scratch().File(llb.Mkfile("/a", 0o644, make([]byte, 1<<20))))
	require.NoError(t, err)
	freed, err := e.Prune(t.Context(), engine.PruneOptions{})
	require.NoError(t, err)
	require.Zero(t, freed, "a small cache is kept")
	freed, err = e.Prune(t.Context(), engine.PruneOptions{All: true})
	require.NoError(t, err)
	require.GreaterOrEqual(t, freed, int64(1<<20))
}

// What was used last stays, up to a size; what was used since a time stays, whatever its size.
func TestPrune_Keep(t *testing.T) {
	t.Parallel()
	e := open(t, engine.Options{})
	for i := range 4 {
		_, err := export(t, e, llb.Scratch().File(llb.Mkfile(fmt.Sprintf("/%d", i), 0o644, make([]byte, 1<<20))))
		require.NoError(t, err)
	}
	freed, err := e.Prune(t.Context(), engine.PruneOptions{All: true, Unused: time.Hour})
	require.NoError(t, err)
	require.Zero(t, freed)
	before, err := e.CacheSize(t.Context())
	require.NoError(t, err)
	keep := before / 2
	freed, err = e.Prune(t.Context(), engine.PruneOptions{Keep: &keep})
	require.NoError(t, err)
	after, err := e.CacheSize(t.Context())
	require.NoError(t, err)
	require.LessOrEqual(t, after, keep)
	require.Positive(t, after, "no more than that goes")
	require.Equal(t, before-after, freed)
	none := int64(0)
	_, err = e.Prune(t.Context(), engine.PruneOptions{Keep: &none})
	require.NoError(t, err)
	after, err = e.CacheSize(t.Context())
	require.NoError(t, err)
	require.Zero(t, after)
}
