// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"context"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/imagelist/chart"
	"github.com/sealerio/sealer/imagelist/chart/helm"
)

func files(template string) []chart.File {
	return []chart.File{
		{Name: "Chart.yaml", Data: []byte("apiVersion: v2\nname: shop\nversion: 1.0.0\n")},
		{Name: "templates/a.yaml", Data: []byte(template)},
	}
}

// A chart renders in the program as it does in Helm itself, and can do no more than end the program.
func TestProgram(t *testing.T) {
	path := filepath.Join(t.TempDir(), chart.ProgramName)
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", path, ".").CombinedOutput()
	require.NoError(t, err, "%s", out)
	program := chart.Program(path)

	for name, template := range map[string]string{
		"renders":         "kube: {{ .Capabilities.KubeVersion.Version }}\nvalue: {{ .Values.a }}\n",
		"does not render": "{{ .Values.a.b.c }}",
	} {
		t.Run(name, func(t *testing.T) {
			o := chart.Options{KubeVersion: "v1.36.3", Values: []chart.File{{Name: "shop.values.yaml", Data: []byte("a: b\n")}}}
			want, err := helm.Renderer{}.Render(t.Context(), files(template), o)
			require.NoError(t, err)
			got, err := program.Render(t.Context(), files(template), o)
			require.NoError(t, err)
			require.Equal(t, want, got)
		})
	}
	t.Run("takes all memory", func(t *testing.T) {
		got, err := program.Render(t.Context(), files(`{{ range until 100000 }}{{ range until 100000 }}{{ repeat 100 "x" }}{{ end }}{{ end }}`), chart.Options{})
		require.NoError(t, err)
		require.Empty(t, got.Rendered)
		require.Len(t, got.Problems, 1)
		require.Contains(t, got.Problems[0].Message, "memory")
	})
	t.Run("takes all time", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		context.AfterFunc(t.Context(), cancel)
		done := make(chan error, 1)
		go func() {
			_, err := program.Render(ctx, files(`{{ range until 100000 }}{{ range until 100000 }}{{ end }}{{ end }}`), chart.Options{})
			done <- err
		}()
		cancel()
		require.ErrorIs(t, <-done, context.Canceled)
	})
	t.Run("is missing", func(t *testing.T) {
		_, err := chart.Program(path+"-not").Render(t.Context(), files("a: b"), chart.Options{})
		require.ErrorContains(t, err, "sealer-charts-not")
		var hint interface{ Hint() string }
		require.ErrorAs(t, err, &hint)
		require.Contains(t, hint.Hint(), "the folder of sealer")
	})
}
