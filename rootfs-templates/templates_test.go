// SPDX-License-Identifier: Apache-2.0

package templates_test

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	templates "github.com/sealerio/sealer/rootfs-templates"
)

func written(t *testing.T, distribution string) string {
	t.Helper()
	files, err := templates.Files(distribution)
	require.NoError(t, err)
	dir := filepath.Join(t.TempDir(), "context")
	require.NoError(t, templates.Write(files, dir))
	return dir
}

func TestWrite(t *testing.T) {
	for distribution, wanted := range map[string][]string{
		"kubernetes": {
			"etc/containerd/config.toml.tmpl", "etc/containerd/config-1.7.toml.tmpl",
			"etc/containerd/containerd.service", "etc/kubelet/kubelet.service", "etc/kubelet/10-kubeadm.conf",
			"scripts/containerd.sh", "scripts/uninstall-containerd.sh", "scripts/init-kube.sh", "scripts/clean-kube.sh",
		},
		"k3s": {"scripts/init-k3s.sh", "scripts/clean-k3s.sh"},
		"k0s": {"scripts/init-k0s.sh", "scripts/clean-k0s.sh"},
	} {
		dir := written(t, distribution)
		shared := []string{"Kubefile", "README.md", "etc/modules.conf", "etc/sysctl.conf", "scripts/lib.sh", "scripts/host.sh"}
		for _, want := range append(wanted, shared...) {
			info, err := os.Stat(filepath.Join(dir, want))
			require.NoError(t, err)
			mode := fs.FileMode(0o644)
			if strings.HasSuffix(want, ".sh") {
				mode = 0o755
			}
			require.Equal(t, mode, info.Mode(), want)
		}
	}
	_, err := templates.Files("rke2")
	require.ErrorContains(t, err, `no build context for "rke2", only for k0s, k3s, kubernetes`)
	_, err = templates.Files("shared")
	require.Error(t, err)
}

func TestWrite_KeepsWhatIsThere(t *testing.T) {
	files, err := templates.Files("kubernetes")
	require.NoError(t, err)
	dir := t.TempDir()
	kubefile := filepath.Join(dir, "Kubefile")
	require.NoError(t, os.WriteFile(kubefile, []byte("mine"), 0o600))
	require.ErrorIs(t, templates.Write(files, dir), fs.ErrExist)
	got, err := os.ReadFile(kubefile)
	require.NoError(t, err)
	require.Equal(t, "mine", string(got))
}

func TestScripts(t *testing.T) {
	for distribution, number := range map[string]int{"kubernetes": 6, "k3s": 4, "k0s": 4} {
		t.Run(distribution, func(t *testing.T) {
			dir := written(t, distribution)
			scripts, err := filepath.Glob(filepath.Join(dir, "scripts", "*.sh"))
			require.NoError(t, err)
			require.Len(t, scripts, number)
			for _, script := range scripts {
				out, err := exec.Command("sh", "-n", script).CombinedOutput()
				require.NoError(t, err, "%s", out)
			}
			shellcheck, err := exec.LookPath("shellcheck")
			if err != nil {
				t.Skip("shellcheck is not installed")
			}
			args := append([]string{"-x", "-P", filepath.Join(dir, "scripts")}, scripts...)
			out, err := exec.Command(shellcheck, args...).CombinedOutput()
			require.NoError(t, err, "%s", out)
		})
	}
}

// library runs shell text with lib.sh loaded, its state below dir.
func library(t *testing.T, dir, script string) string {
	t.Helper()
	lib := filepath.Join(written(t, "kubernetes"), "scripts", "lib.sh")
	text := "set -eu\nDISTRIBUTION=test\n. " + lib + "\nSTATE=" + dir + "/state\nHERE=$(dirname " + lib + ")\ncd " + dir + "\n" + script
	out, err := exec.Command("sh", "-c", text, lib).CombinedOutput()
	require.NoError(t, err, "%s", out)
	return string(out)
}

func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		switch {
		case e.IsDir():
			found[rel] = "folder"
		case e.Type() == fs.ModeSymlink:
			target, err := os.Readlink(path)
			found[rel] = "-> " + target
			return err
		default:
			data, err := os.ReadFile(path)
			found[rel] = string(data)
			return err
		}
		return nil
	}))
	return found
}

// What lib.sh places it takes away again, and nothing else; what it replaced comes back.
func TestLibrary_TakesAwayWhatItPlaced(t *testing.T) {
	dir := t.TempDir()
	host := filepath.Join(dir, "host")
	require.NoError(t, os.MkdirAll(filepath.Join(host, "etc", "empty"), 0o755))
	require.NoError(t, os.MkdirAll(filepath.Join(host, "etc", "full"), 0o755))
	for name, data := range map[string]string{"etc/old.conf": "old", "etc/full/theirs": "theirs"} {
		require.NoError(t, os.WriteFile(filepath.Join(host, name), []byte(data), 0o600))
	}
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "bin"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "bin", "kube"), []byte("program"), 0o755))
	require.NoError(t, os.Symlink("kube", filepath.Join(dir, "bin", "kubelet")))
	before := tree(t, host)

	install := `begin x
tree $PWD/host/etc/full; tree $PWD/host/etc/empty; tree $PWD/host/var/data
place bin/kubelet $PWD/host/usr/bin/kubelet 0755
place bin/kube $PWD/host/etc/old.conf 0644
mkdir -p host/var/data && echo made > host/var/data/db
echo made > host/etc/empty/cni.conf
echo CHANGED=$CHANGED
`
	require.Contains(t, library(t, dir, install), "CHANGED=1")
	got := tree(t, host)
	require.Equal(t, "-> kube", got["usr/bin/kubelet"])
	require.Equal(t, "program", got["usr/bin/kube"])
	require.Equal(t, "program", got["etc/old.conf"])

	require.Contains(t, library(t, dir, install), "CHANGED=0", "the second time changes nothing")

	library(t, dir, "take_away x\nfinish\n")
	require.Equal(t, before, tree(t, host))
	require.NoDirExists(t, filepath.Join(dir, "state"))
}
