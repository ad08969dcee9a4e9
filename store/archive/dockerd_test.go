// SPDX-License-Identifier: Apache-2.0

//go:build linux

package archive_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/store/archive"
)

// A real docker gives its images, under the names that it has, with the IDs and layers that they came with.
func TestDaemon_Docker(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("docker's daemon needs root")
	}
	host := dockerd(t)
	dir, _, single := multi(t)
	for _, name := range []string{"docker.io/library/shop:v1", "quay.io/x/shop:v2"} {
		out, err := exec.CommandContext(t.Context(), "skopeo", "--insecure-policy", "copy", "-q", "--dest-daemon-host", host,
			"oci:"+dir+":docker.io/library/single:v1", "docker-daemon:"+name).CombinedOutput()
		require.NoError(t, err, string(out))
		work := t.TempDir()
		a, err := archive.OpenDaemon(t.Context(), host, name, work)
		require.NoError(t, err)
		st := newStore(t)
		packed := imported(t, a, st, archive.ImportOptions{})
		require.NoError(t, a.Close())
		require.Len(t, packed, 1)
		require.Equal(t, name, packed[0].Name)
		id, err := single.ConfigName()
		require.NoError(t, err)
		require.Equal(t, id.String(), a.Images[0].Config.Digest.String(), "the image's ID stays")
		ids, _ := diffIDs(t, st, packed[0])
		cfg, err := single.ConfigFile()
		require.NoError(t, err)
		require.Len(t, ids, len(cfg.RootFS.DiffIDs))
		for i, want := range cfg.RootFS.DiffIDs {
			require.Equal(t, want.String(), ids[i].String())
		}
		requireWhole(t, st)
		left, err := os.ReadDir(work)
		require.NoError(t, err)
		require.Empty(t, left)
	}
	_, err := archive.OpenDaemon(t.Context(), host, "docker.io/library/other:v1", t.TempDir())
	var wrong *archive.DaemonError
	require.ErrorAs(t, err, &wrong)
	require.ErrorContains(t, err, "reading docker-daemon:docker.io/library/other:v1: asking the docker daemon at "+host+": ")
}

// dockerd starts docker's daemon, without networks, on a socket and with folders of its own, and returns its address.
func dockerd(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("dockerd")
	if err != nil {
		path = "/usr/sbin/dockerd" // of Debian's docker.io, and not in everybody's PATH
	}
	dir, err := os.MkdirTemp("", "dockerd") //nolint:usetesting // a socket's name holds 107 bytes
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	config := filepath.Join(dir, "daemon.json") // the machine's own is not for us
	require.NoError(t, os.WriteFile(config, []byte("{}\n"), 0o600))
	host := "unix://" + filepath.Join(dir, "docker.sock")
	var log bytes.Buffer
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	cmd := exec.CommandContext(ctx, path,
		"--host", host, "--data-root", filepath.Join(dir, "data"), "--exec-root", filepath.Join(dir, "exec"), "--pidfile", filepath.Join(dir, "pid"),
		"--config-file", config, "--storage-driver", "vfs", "--bridge", "none", "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false")
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) } // it ends its containerd
	cmd.WaitDelay = time.Minute
	require.NoError(t, cmd.Start())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // it is told to end
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
		if t.Failed() {
			t.Log(log.String())
		}
	})
	wait, stop := context.WithTimeout(t.Context(), 2*time.Minute)
	defer stop()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		cmd := exec.CommandContext(wait, "docker", "--host", host, "version")
		if cmd.Run() == nil {
			return host
		}
		select {
		case <-ended:
			t.Fatal("dockerd ended")
		case <-wait.Done():
			t.Fatal("dockerd does not answer")
		case <-tick.C:
		}
	}
}
