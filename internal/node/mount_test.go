// SPDX-License-Identifier: Apache-2.0

package node_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
}

func (m *machine) mount(args ...string) string {
	m.t.Helper()
	var out struct{ Path string }
	require.NoError(m.t, json.Unmarshal([]byte(m.run(nil, append([]string{"rootfs", "mount"}, args...)...)), &out))
	return out.Path
}

func TestRootfs_MountRenderUmountRemove(t *testing.T) {
	needRoot(t)
	m := newMachine(t)
	st, desc, blobs := clusterImage(t, map[string]string{
		"etc/kubeadm.yaml.tmpl": "name: {{ .name }}\n", "scripts/init.sh.tmpl": "#!/bin/sh\necho {{ .name | quote }}\n", "bin/kubelet": "elf",
	})
	m.load(st, desc, blobs)
	t.Cleanup(func() { m.run(nil, "clean") })
	id := desc.Digest.String()
	dir := m.mount("--image", id)
	require.Equal(t, "elf", string(must(os.ReadFile(filepath.Join(dir, "bin/kubelet")))))
	require.Equal(t, dir, m.mount("--image", id))
	m.run(toJSON(map[string]any{"values": map[string]any{"name": "prod"}}), "render", "--dir", dir)
	require.Equal(t, "name: prod\n", string(must(os.ReadFile(filepath.Join(dir, "etc/kubeadm.yaml")))))

	m.run(nil, "rootfs", "umount", "--image", id)
	m.run(nil, "rootfs", "umount", "--image", id)
	require.NoDirExists(t, filepath.Join(dir, "bin"))
	require.Equal(t, dir, m.mount("--image", id))
	require.FileExists(t, filepath.Join(dir, "etc/kubeadm.yaml"), "what was written stays")
	m.run(nil, "rootfs", "remove", "--image", id)
	dir = m.mount("--image", id)
	require.NoFileExists(t, filepath.Join(dir, "etc/kubeadm.yaml"))

	r := m.try(nil, "rootfs", "mount", "--image", id, "--platform", "linux/s390x")
	require.Equal(t, 1, r.code)
	require.Contains(t, r.err, "linux/s390x")
}

func TestClean_TakesAwayWhatItMadeAndNothingElse(t *testing.T) {
	needRoot(t)
	m := newMachine(t)
	m.run(nil, "clean") // nothing there, nothing done
	require.NoDirExists(t, m.root)
	st, desc, blobs := clusterImage(t, map[string]string{"a": "b"})
	m.load(st, desc, blobs)
	dir := m.mount("--image", desc.Digest.String())
	m.run(nil, "registry", "init", "--address", "10.0.0.7")
	m.run(nil, "registry", "publish", "--image", desc.Digest.String())
	mine := filepath.Join(m.root, "mine")
	require.NoError(t, os.WriteFile(mine, nil, 0o600))

	m.run(nil, "clean")
	require.NotContains(t, string(must(os.ReadFile("/proc/self/mountinfo"))), dir)
	entries := must(os.ReadDir(m.root))
	require.Len(t, entries, 1)
	require.NoError(t, os.Remove(mine))
	m.run(nil, "clean")
	require.NoDirExists(t, m.root)
}
