// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Cost is what one command took, with all the processes that it started and waited for.
type Cost struct {
	Wall    time.Duration `json:"wall"`    // nanoseconds
	CPU     time.Duration `json:"cpu"`     // nanoseconds, user and system
	Peak    int64         `json:"peak"`    // bytes of memory of the largest process
	Written int64         `json:"written"` // bytes handed to a file system that has a disk
}

// grace is how long an interrupted command may clean up before it is killed.
const grace = 30 * time.Second

// run runs a command to its end and returns what it took. Its output is shown only if it fails.
func run(ctx context.Context, dir string, argv ...string) (Cost, error) {
	var output bytes.Buffer
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = dir
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.Env = append(os.Environ(), "TMPDIR="+os.TempDir())
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = grace
	began := time.Now()
	err := cmd.Run()
	wall := time.Since(began)
	if err != nil {
		return Cost{}, fmt.Errorf("running %s: %w\n%s", strings.Join(argv, " "), err, tail(output.Bytes()))
	}
	cost := Cost{Wall: wall, CPU: cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()}
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		cost.Peak = usage.Maxrss << 10    // getrusage(2): kilobytes
		cost.Written = usage.Oublock << 9 // blocks of 512 bytes, counted when a page becomes dirty
	}
	return cost, nil
}

// tail is the end of a long output.
func tail(output []byte) []byte {
	const limit = 4 << 10
	if len(output) > limit {
		output = output[len(output)-limit:]
	}
	return bytes.TrimSpace(output)
}
