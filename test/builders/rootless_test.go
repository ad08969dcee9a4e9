//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package builders

import (
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

// account is a user of this machine who is not root.
type account struct {
	id   int
	home string
}

// as runs sealer as that user.
func (a account) as(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	id := strconv.Itoa(a.id)
	return try(t, "setpriv", append([]string{
		"--reuid=" + id, "--regid=" + id, "--clear-groups", "--", "env", "--chdir=/", "HOME=" + a.home, "TMPDIR=" + a.home,
		"XDG_DATA_HOME=", "XDG_CONFIG_HOME=", programs["sealer"],
	}, args...)...)
}

func (a account) run(t *testing.T, args ...string) string {
	t.Helper()
	out, stderr, err := a.as(t, args...)
	require.NoError(t, err, "%q: %s", args, stderr)
	return out
}

func newHome(t *testing.T, id int) string {
	t.Helper()
	home := filepath.Join(openDir(t), "home")
	require.NoError(t, os.Mkdir(home, 0o755))
	require.NoError(t, os.Chown(home, id, id))
	return home
}

// without is a user of whom neither /etc/passwd nor /etc/subuid knows.
func without(t *testing.T) account {
	t.Helper()
	const id = 64321
	return account{id: id, home: newHome(t, id)}
}

// withRange is a user who has ids of /etc/subuid.
func withRange(t *testing.T) account {
	t.Helper()
	const name = "sealer-builders"
	if _, err := user.Lookup(name); err == nil { // of a test that was killed
		run(t, "userdel", name)
	}
	run(t, "useradd", "--no-create-home", "--shell", "/bin/sh", name)
	t.Cleanup(func() {
		cmd := "userdel " + name
		require.NoError(t, shell(cmd), cmd)
	})
	run(t, "usermod", "--add-subuids", "3000000-3065535", "--add-subgids", "3000000-3065535", name)
	u, err := user.Lookup(name)
	require.NoError(t, err)
	id, err := strconv.Atoi(u.Uid)
	require.NoError(t, err)
	return account{id: id, home: newHome(t, id)}
}

// Users who are not root build what root builds: with ids of their own, and with one id only.
func TestRootless(t *testing.T) {
	files := map[string]string{
		"Kubefile": "FROM scratch\nCOPY a etc/a\nADD a.tar opt/\nRUN echo made >etc/made && test $(id -u) = 0\n" +
			"RUN --network=none echo alone >alone\nRUN rm etc/a && mkdir -p x && mv etc/made x\n",
		"a": "a",
	}
	dir := write(t, files)
	run(t, "tar", "-C", dir, "--owner=0", "--group=0", "--mtime=@0", "-cf", filepath.Join(dir, "a.tar"), "a")
	owners := write(t, map[string]string{"Kubefile": "FROM scratch\nCOPY --chown=7:8 a a\nRUN chown 9 a && stat -c %u a\n", "a": "a"})
	root := t.TempDir()
	want := run(t, "sealer", "--root", root, "build", "-t", "a:v1", dir)

	for name, make := range map[string]func(*testing.T) account{"one id": without, "a range of ids": withRange} {
		t.Run(name, func(t *testing.T) {
			me := make(t)
			require.Equal(t, want, me.run(t, "build", "-t", "a:v1", dir))
			require.DirExists(t, filepath.Join(me.home, ".local", "share", "sealer", "store"))
			require.Equal(t, want, me.run(t, "build", "-t", "a:v1", dir), "from the cache")
			require.Equal(t, want, me.run(t, "--root", filepath.Join(me.home, "other"), "build", "-t", "a:v1", dir), "--root")
			out, stderr, err := me.as(t, "build", "-t", "owners:v1", owners)
			if name == "one id" {
				require.Error(t, err)
				require.Contains(t, stderr, "/etc/subuid", "what would help")
			} else {
				require.NoError(t, err, stderr)
				require.Equal(t, run(t, "sealer", "--root", root, "build", "-t", "owners:v1", owners), out)
			}
			me.run(t, "builder", "prune", "--all")
			me.run(t, "rmi", "a:v1")
			me.run(t, "prune", "--all")
			mounts, err := os.ReadFile("/proc/self/mountinfo")
			require.NoError(t, err)
			require.NotContains(t, string(mounts), me.home)
		})
	}
}

// Where the machine allows no namespaces, the setting that forbids them is named. The limit is one of a user namespace.
func TestRootless_Forbidden(t *testing.T) {
	dir := write(t, map[string]string{"Kubefile": "FROM scratch\nCOPY a a\n", "a": "a"})
	_, stderr, err := try(t, "unshare", "--user", "--map-root-user", "sh", "-c",
		`echo 0 >/proc/sys/user/max_user_namespaces && exec setpriv --bounding-set=-all --inh-caps=-all "$@"`, "sh",
		programs["sealer"], "--root", t.TempDir(), "build", "-t", "a:v1", dir)
	require.Error(t, err)
	require.Contains(t, stderr, "user.max_user_namespaces=0")
	require.Contains(t, stderr, "hint: as root: sysctl user.max_user_namespaces")
}
