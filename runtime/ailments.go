// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"strconv"
	"strings"

	"github.com/sealerio/sealer/host"
)

//go:embed ailments.sh
var ailmentsScript []byte

// What is left on a file system that counts as full: a file that did not fit is taken away again.
const (
	fullBytes  = 100 << 20
	fullInodes = 100
)

// Ailments asks a host on which something went wrong for what may be the reason, whatever it was: disks that are full or
// read-only. Each file system is named once.
func Ailments(ctx context.Context, r host.Runner) ([]Problem, error) {
	out, err := host.Output(ctx, r, host.Command{Argv: []string{"sh", "-s"}, Stdin: bytes.NewReader(ailmentsScript)})
	if err != nil {
		return nil, fmt.Errorf("looking for the reason: %w", err)
	}
	var problems []Problem
	told := map[string]bool{}
	lines := bufio.NewScanner(bytes.NewReader(out))
	for lines.Scan() {
		key, value, _ := strings.Cut(lines.Text(), "=")
		words := strings.Fields(value)
		if len(words) < 2 || told[key+words[1]] {
			continue
		}
		dir, left := words[0], int64(-1)
		if len(words) == 3 {
			if left, err = strconv.ParseInt(words[2], 10, 64); err != nil {
				continue
			}
		}
		var p Problem
		switch {
		case key == "read-only":
			p = Problem{r.String(), "read-only", dir + " is mounted read-only", "mount it for writing; where the kernel has made it read-only because of errors, dmesg tells"}
		case key == "free" && left >= 0 && left<<10 < fullBytes:
			p = Problem{r.String(), "disk", fmt.Sprintf("the file system that holds %s is full: %s is free", dir, size(left<<10)), "make room in the file system that holds " + dir}
		case key == "inodes" && left >= 0 && left < fullInodes:
			p = Problem{r.String(), "disk", fmt.Sprintf("the file system that holds %s can take %d more files", dir, left), "remove files from the file system that holds " + dir}
		default:
			continue
		}
		told[key+words[1]] = true
		problems = append(problems, p)
	}
	return problems, lines.Err()
}
