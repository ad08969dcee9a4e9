// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"time"
)

// ProgramName is what the program behind Program is called.
const ProgramName = "sealer-charts"

const (
	// maxTime is how long a chart may take: Helm's own charts take well under a second.
	maxTime = 2 * time.Minute
	// maxResult is how much may become of a chart, in bytes of JSON.
	maxResult = 256 << 20
	// maxWords is how much of what the program says last is told.
	maxWords = 4 << 10
)

// Program renders charts in a process of its own, so that a template that takes too long or too much memory can be
// stopped. It is the path of the program, which takes a Request on stdin and answers with a Result.
type Program string

// Request is what the program is asked, as JSON.
type Request struct {
	Files   []File  `json:"files"`
	Options Options `json:"options"`
}

// Render renders a chart. What the chart does to the program is a Problem of the chart; that the program is missing is
// an error, with a hint.
func (p Program) Render(ctx context.Context, files []File, o Options) (Result, error) {
	request, err := json.Marshal(Request{Files: files, Options: o})
	if err != nil {
		return Result{}, fmt.Errorf("asking for a chart: %w", err)
	}
	limited, cancel := context.WithTimeout(ctx, maxTime)
	defer cancel()
	var out, words limitedBuffer
	out.left, words.left = maxResult, maxWords
	run := exec.CommandContext(limited, string(p))
	run.Stdin, run.Stdout, run.Stderr = bytes.NewReader(request), &out, &words
	run.Env = []string{} // a chart has no business with it
	run.WaitDelay = time.Second
	err = run.Run()
	exit := (*exec.ExitError)(nil)
	switch {
	case ctx.Err() != nil:
		return Result{}, ctx.Err()
	case out.full:
		return stopped(fmt.Sprintf("more than %d MiB come of its templates", maxResult>>20)), nil
	case limited.Err() != nil:
		return stopped(fmt.Sprintf("its templates take longer than %s", maxTime)), nil
	case errors.As(err, &exit):
		return stopped("rendering it ended with: " + firstLine(words.Bytes(), exit)), nil
	case err != nil:
		return Result{}, &programError{path: string(p), err: err}
	}
	var result Result
	if err := json.Unmarshal(out.Bytes(), &result); err != nil {
		return Result{}, fmt.Errorf("reading what %q answered: %w", string(p), err)
	}
	return result, nil
}

func stopped(message string) Result {
	return Result{Problems: []Problem{{File: "Chart.yaml", Message: message}}}
}

// firstLine is what a Go program that ends by itself says first.
func firstLine(words []byte, exit *exec.ExitError) string {
	line, _, _ := bytes.Cut(bytes.TrimSpace(words), []byte("\n"))
	if len(line) == 0 {
		return exit.String()
	}
	return string(line)
}

// limitedBuffer keeps the first bytes of what is written and drops the others.
type limitedBuffer struct {
	bytes.Buffer
	left int
	full bool
}

func (b *limitedBuffer) Write(p []byte) (int, error) {
	kept := p[:min(len(p), b.left)]
	b.full = b.full || len(kept) < len(p)
	b.left -= len(kept)
	_, _ = b.Buffer.Write(kept) // it never fails
	return len(p), nil
}

// programError says that charts cannot be rendered on this machine.
type programError struct {
	path string
	err  error
}

func (e *programError) Error() string { return fmt.Sprintf("starting %q: %v", e.path, e.err) }
func (e *programError) Unwrap() error { return e.err }
func (e *programError) Hint() string {
	return "put " + ProgramName + " of the same release into the folder of sealer, or write the charts' images into imageList and their files elsewhere"
}
