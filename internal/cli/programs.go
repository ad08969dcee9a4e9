// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/sealerio/sealer/imagelist/chart"
)

// programFolder is where this program lies, and with it the others of the same release.
func programFolder() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("finding this program's folder: %w", err)
	}
	if resolved, err := filepath.EvalSymlinks(self); err == nil {
		self = resolved
	}
	return filepath.Dir(self), nil
}

// chartsProgram is what renders charts; whether it is there is seen when there is one.
func chartsProgram() (chart.Program, error) {
	dir, err := programFolder()
	if err != nil {
		return "", err
	}
	return chart.Program(filepath.Join(dir, chart.ProgramName)), nil
}
