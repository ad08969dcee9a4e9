// SPDX-License-Identifier: Apache-2.0

//go:build linux

package build_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/stretchr/testify/require"
	"github.com/tonistiigi/fsutil"

	"github.com/sealerio/sealer/build/engine"
	"github.com/sealerio/sealer/build/frontend"
)

// The build as a gateway image runs it: Kubefile, ignore file and context come from the builder.
func TestGateway(t *testing.T) {
	t.Parallel()
	b := newBench(t, map[string]string{
		"Kubefile": "FROM scratch\nCOPY . files/\n", "a": "a", "b": "b", ".sealerignore": "b\nKubefile\n.*\n", ".dockerignore": "a\n",
	})
	e, err := engine.Open(t.Context(), engine.Options{Root: b.state})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, e.Close()) })
	solve := func() (string, error) {
		files, err := fsutil.NewFS(b.context)
		require.NoError(t, err)
		out := t.TempDir()
		_, err = e.Client().Build(t.Context(), client.SolveOpt{
			LocalMounts:   map[string]fsutil.FS{"context": files, "dockerfile": files},
			FrontendAttrs: map[string]string{},
			Exports:       []client.ExportEntry{{Type: client.ExporterLocal, OutputDir: out}},
		}, "sealer", frontend.New(frontend.Options{}), nil)
		return out, err
	}
	out, err := solve()
	require.NoError(t, err)
	require.FileExists(t, filepath.Join(out, "Metadata"))
	entries, err := os.ReadDir(filepath.Join(out, "files"))
	require.NoError(t, err)
	require.Len(t, entries, 1)
	require.Equal(t, "a", entries[0].Name())

	b.write(map[string]string{"Kubefile": "FROM scratch\nRUN true\n"})
	_, err = solve()
	require.ErrorContains(t, err, "there is no toolbox to run this in")
	require.NotEmpty(t, errdefs.Sources(err), "the line, for every client of BuildKit")
	b.write(map[string]string{"Kubefile": "FROM scratch\nLUNCH x\n"})
	_, err = solve()
	require.ErrorContains(t, err, "unknown instruction LUNCH")
}
