// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
)

// Program compiles a program of the Go module in the folder module, one of the folders of this checkout that are modules
// of their own, and returns its path: a cache that the module's go.sum names, since linking takes longest.
func Program(ctx context.Context, module, program string) (string, error) {
	sums, err := os.ReadFile(filepath.Join(module, "go.sum"))
	if err != nil {
		return "", fmt.Errorf("compiling %q: %w", program, err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("compiling %q: %w", program, err)
	}
	key := sha256.Sum256(sums)
	dir := filepath.Join(cache, "sealer-test", filepath.Base(module), hex.EncodeToString(key[:8]))
	file := filepath.Join(dir, path.Base(program))
	if _, err := os.Stat(file); err == nil {
		return file, nil
	}
	work, err := os.MkdirTemp("", "sealer-program-")
	if err != nil {
		return "", fmt.Errorf("compiling %q: %w", program, err)
	}
	defer os.RemoveAll(work)
	made := filepath.Join(work, path.Base(program))
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", made, program)
	cmd.Dir = module
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("compiling %q: %w: %s", program, err, text)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("compiling %q: %w", program, err)
	}
	// Two tests may compile it at once: each puts a whole file there.
	next := filepath.Join(dir, fmt.Sprintf(".%s.%d", path.Base(program), os.Getpid()))
	if err := copyProgram(made, next); err != nil {
		return "", fmt.Errorf("compiling %q: %w", program, err)
	}
	return file, os.Rename(next, file)
}

func copyProgram(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o755)
}
