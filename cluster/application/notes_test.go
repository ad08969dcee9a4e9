// SPDX-License-Identifier: Apache-2.0

package application_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// recorder is kubectl that tells of its calls and inputs, and helm that makes a release of each name it is given.
const recorder = `#!/bin/sh
case "$0 $*" in
*kubectl*owner=helm*) cat "$BED/releases" ;;
*kubectl*--dry-run*go-template*)
	printf 'O\tv1\tConfigMap\tns\t%s\n' "$(cat | tr -d '\n')" ;;
*)
	echo "${0##*/} $*"
	case "$*" in
	*" -"|*"=-") echo "input $(cat)" ;;
	*fails*) exit 7 ;;
	esac
	case "$0 $*" in *helm\ upgrade*) printf 'ns\tweb\t2\nns\tothers\t5\n' >"$BED/releases" ;; esac ;;
esac
`

// What launched commands make is noted; what they print, read and end with stays theirs.
func TestNoteScript(t *testing.T) {
	bed, noting, programs := t.TempDir(), t.TempDir(), t.TempDir()
	script, err := os.ReadFile("scripts/note.sh")
	require.NoError(t, err)
	for _, name := range []string{"kubectl", "helm"} {
		require.NoError(t, os.WriteFile(filepath.Join(noting, name), script, 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(programs, name), []byte(recorder), 0o700))
	}
	notes := filepath.Join(bed, "notes")
	for _, c := range []struct {
		command, out, noted string
		code                int
	}{
		{"kubectl get pods -o json", "kubectl get pods -o json\n", "", 0},
		{"kubectl -n apply get x", "kubectl -n apply get x\n", "", 0},
		{"kubectl apply -f a.yaml", "kubectl apply -f a.yaml\n", "O\tv1\tConfigMap\tns\t\n", 0},
		{"echo hello | kubectl -n ns apply -f -", "kubectl -n ns apply -f -\ninput hello\n", "O\tv1\tConfigMap\tns\thello\n", 0},
		{"echo hello | kubectl create --filename=-", "kubectl create --filename=-\ninput hello\n", "O\tv1\tConfigMap\tns\thello\n", 0},
		{"kubectl create configmap x --dry-run=client -o yaml", "kubectl create configmap x --dry-run=client -o yaml\n", "", 0},
		{"kubectl apply -f fails.yaml", "kubectl apply -f fails.yaml\n", "O\tv1\tConfigMap\tns\t\n", 7},
		{"kubectl run x --image=y -- sh -c 'a b'", "kubectl run x --image=y -- sh -c a b\n", "O\tv1\tConfigMap\tns\t\n", 0},
		{"helm list", "helm list\n", "", 0},
		{"helm upgrade --install web .", "helm upgrade --install web .\n", "R\tns\tweb\n", 0},
		{"helm upgrade --install web . --dry-run", "helm upgrade --install web . --dry-run\n", "", 0},
	} {
		require.NoError(t, os.WriteFile(filepath.Join(bed, "releases"), []byte("ns\tweb\t1\nns\tothers\t4\n"), 0o600))
		require.NoError(t, os.WriteFile(notes, nil, 0o600))
		path := programs + ":" + os.Getenv("PATH")
		cmd := exec.CommandContext(t.Context(), "sh", "-c", c.command)
		cmd.Env = append(os.Environ(), "PATH="+noting+":"+path, "SEALER_PATH="+path, "SEALER_NOTES="+notes, "BED="+bed)
		var out strings.Builder
		cmd.Stdout, cmd.Stderr = &out, os.Stderr
		_ = cmd.Run() // its status is looked at
		require.Equal(t, c.code, cmd.ProcessState.ExitCode(), c.command)
		require.Equal(t, c.out, out.String(), c.command)
		noted, err := os.ReadFile(notes)
		require.NoError(t, err)
		require.Equal(t, c.noted, string(noted), c.command)
	}
}
