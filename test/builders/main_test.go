//go:build e2e

// SPDX-License-Identifier: Apache-2.0

// Package builders runs the built sealer beside the real BuildKit: as a frontend, as its client, without root.
package builders

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"path"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/test/lab"
	"github.com/sealerio/sealer/test/testregistry"
)

// programs are the built ones: sealer, sealer-node, sealer-frontend, buildkitd, buildctl, buildx.
var programs = map[string]string{}

func TestMain(m *testing.M) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	dir, err := os.MkdirTemp("", "sealer-builders-")
	if err == nil {
		err = prepare(ctx, dir)
	}
	code := 1
	if err == nil {
		code = m.Run()
	} else {
		fmt.Fprintln(os.Stderr, "setting up the tests of builders:", err)
	}
	stop()
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

// prepare copies the built sealer into dir, and compiles BuildKit into a cache: linking it takes as long as everything
// else here.
func prepare(ctx context.Context, dir string) error {
	// Others than root run them too, who may not be let into the checkout.
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	for _, program := range []string{"sealer", "sealer-node", "sealer-charts", "sealer-frontend"} {
		data, err := os.ReadFile(filepath.Join("../../bin", program))
		if err != nil {
			return fmt.Errorf("looking for the built sealer (make build makes it): %w", err)
		}
		programs[program] = filepath.Join(dir, program)
		if err := os.WriteFile(programs[program], data, 0o755); err != nil {
			return err
		}
	}
	for _, one := range []struct{ module, path string }{
		{"../buildkit", "github.com/moby/buildkit/cmd/buildkitd"},
		{"../buildkit", "github.com/moby/buildkit/cmd/buildctl"},
		{"../buildx", "github.com/docker/buildx/cmd/buildx"},
	} {
		program, err := lab.Program(ctx, one.module, one.path)
		if err != nil {
			return err
		}
		programs[path.Base(one.path)] = program
	}
	return nil
}

// run runs a program and returns its stdout.
func run(t *testing.T, program string, args ...string) string {
	t.Helper()
	out, stderr, err := try(t, program, args...)
	require.NoError(t, err, "%s %q: %s", program, args, stderr)
	return out
}

func try(t *testing.T, program string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	if path, ok := programs[program]; ok {
		program = path
	}
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 20 * time.Second
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return strings.TrimSpace(out.String()), errs.String(), err
}

// openDir is a temporary folder that others may enter.
func openDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.Chmod(filepath.Dir(dir), 0o755))
	require.NoError(t, os.Chmod(dir, 0o755))
	return dir
}

// write puts a build context into a new folder.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := filepath.Join(openDir(t), "context")
	for file, text := range files {
		path := filepath.Join(dir, file)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	}
	return dir
}

func newRegistry(t *testing.T) *testregistry.Registry {
	t.Helper()
	r, err := testregistry.Start(t.Context(), testregistry.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, r.Close()) })
	return r
}

// pushRandom gives a registry an image of two layers: of one platform with Docker's media types, or an index of OCI's
// for two platforms.
func pushRandom(t *testing.T, ref string, index bool) {
	t.Helper()
	tag, err := name.ParseReference(ref)
	require.NoError(t, err)
	make := func(arch string, media types.MediaType) v1.Image {
		img, err := random.Image(64<<10, 2)
		require.NoError(t, err)
		config, err := img.ConfigFile()
		require.NoError(t, err)
		config.OS, config.Architecture = "linux", arch
		img, err = mutate.ConfigFile(mutate.MediaType(img, media), config)
		require.NoError(t, err)
		if media == types.OCIManifestSchema1 {
			img = mutate.ConfigMediaType(img, types.OCIConfigJSON)
		}
		return img
	}
	if !index {
		require.NoError(t, remote.Write(tag, make("amd64", types.DockerManifestSchema2)))
		return
	}
	list := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, arch := range []string{"amd64", "arm64"} {
		list = mutate.AppendManifests(list, mutate.IndexAddendum{
			Add:        make(arch, types.OCIManifestSchema1),
			Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}},
		})
	}
	require.NoError(t, remote.WriteIndex(tag, list))
}

// startBuildKit starts the real daemon and returns its address.
func startBuildKit(t *testing.T, args ...string) string {
	t.Helper()
	dir := t.TempDir()
	address := "unix://" + filepath.Join(dir, "sock")
	log, err := os.Create(filepath.Join(dir, "log"))
	require.NoError(t, err)
	args = append([]string{
		"--root", filepath.Join(dir, "root"), "--addr", address, "--containerd-worker=false", "--config", filepath.Join(dir, "none.toml"),
	}, args...)
	cmd := exec.Command(programs["buildkitd"], args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(t, cmd.Start())
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(30 * time.Second):
			_ = cmd.Process.Kill()
			<-ended
		}
		text, _ := os.ReadFile(log.Name())
		_ = log.Close()
		if t.Failed() {
			t.Logf("buildkitd: %s", text)
		}
	})
	require.Eventually(t, func() bool {
		_, _, err := try(t, "buildctl", "--addr", address, "debug", "workers")
		return err == nil
	}, time.Minute, 100*time.Millisecond, "buildkitd does not answer")
	return address
}

// gate is a web server that answers with 503 until it is opened.
type gate struct {
	url  string
	open func()
}

func newGate(t *testing.T) gate {
	t.Helper()
	var opened atomic.Bool
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if !opened.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(s.Close)
	return gate{url: s.URL, open: func() { opened.Store(true) }}
}

// shell runs a line when a test's context has ended already.
func shell(line string) error {
	if out, err := exec.Command("sh", "-c", line).CombinedOutput(); err != nil {
		return fmt.Errorf("%q: %w: %s", line, err, out)
	}
	return nil
}
