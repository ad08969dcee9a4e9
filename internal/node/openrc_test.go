// SPDX-License-Identifier: Apache-2.0

package node_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/internal/goldenfile"
)

// fakeOpenRC is rc-service and rc-update as far as they matter here; services run for real, their scripts read by sh as openrc-run does.
const fakeOpenRC = `#!/bin/sh
d=$OPENRC_DIR
echo "${0##*/} $*" >>"$d/log"` + stopPID + `case "$*" in
*restart)
  stop
  . "$OPENRC_SERVICES/sealer-registry"
  eval "exec $command $command_args" >"$d/out" 2>&1 </dev/null &
  echo $! >"$d/pid" ;;
*stop) stop ;;
esac
`

func TestRegistry_OpenRC(t *testing.T) {
	m := newMachine(t)
	dir, services := t.TempDir(), t.TempDir()
	for _, name := range []string{"rc-service", "rc-update"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(fakeOpenRC), 0o755))
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	t.Setenv("OPENRC_DIR", dir)
	t.Setenv("OPENRC_SERVICES", services)
	m.initRegistry("--address", "127.0.0.1", "--port", strconv.Itoa(freePort(t)))
	on := []string{"--init-dir", services, "registry"}
	m.run(nil, append(on, "install", "--timeout", "5m")...) // it answers then
	t.Cleanup(func() { m.run(nil, append(on, "uninstall")...) })

	file := filepath.Join(services, "sealer-registry")
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	program, err := os.Executable()
	require.NoError(t, err)
	quoted := strings.ReplaceAll(strings.ReplaceAll(m.root, "'", `'\''`), "'", `'\''`)
	goldenfile.Equal(t, "testdata/sealer-registry.openrc", strings.NewReplacer(quoted, "ROOT", program, "PROGRAM").Replace(string(text)))
	info, err := os.Stat(file)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o755), info.Mode())

	other := newMachine(t)
	other.run(nil, append(on, "uninstall")...)
	require.FileExists(t, file, "it is that of another root folder")
	m.run(nil, append(on, "uninstall")...)
	require.NoFileExists(t, file)
	log, err := os.ReadFile(filepath.Join(dir, "log"))
	require.NoError(t, err)
	goldenfile.Equal(t, "testdata/sealer-registry.openrc.log", string(log))
}
