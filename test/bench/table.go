// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/sealerio/sealer/test/testregistry"
)

// Row is one line of the table: what one program took for one job.
type Row struct {
	Job     string `json:"job"`
	Program string `json:"program"`
	Cost
	Fetched  int64  `json:"fetched,omitempty"`  // bytes that the registry sent
	Pushed   int64  `json:"pushed,omitempty"`   // bytes that the registry was sent
	Requests int    `json:"requests,omitempty"` // to the registry
	Note     string `json:"note,omitempty"`     // a ratio that the columns do not show

	reference bool // the rows of the same job are compared with this one
}

// contender is one program that does a job.
type contender struct {
	program string
	// prepare makes what one measurement needs, and returns the command. It is not measured.
	prepare func() (dir string, argv []string, err error)
	// reference marks the peer or floor that the others are compared with.
	reference bool
}

// compare measures all contenders of a job in turn, so that what else goes on in the machine meets all of them, and
// adds a row with the median of each.
func (b *bench) compare(ctx context.Context, job string, contenders ...contender) error {
	costs := make([][]Cost, len(contenders))
	made := make([][]string, len(contenders))
	for range b.runs {
		for i, c := range contenders {
			if err := removeAll(made[i]); err != nil { // of the run before: disks are small
				return err
			}
			known := len(b.dirs)
			dir, argv, err := c.prepare()
			if err != nil {
				return err
			}
			made[i] = b.dirs[known:]
			cost, err := run(ctx, dir, argv...)
			if err != nil {
				return err
			}
			costs[i] = append(costs[i], cost)
		}
	}
	for i, c := range contenders {
		b.rows = append(b.rows, Row{Job: job, Program: c.program, Cost: median(costs[i]), reference: c.reference})
	}
	return nil
}

// counted runs a contender once more against a proxy, and notes in its row what crossed the network.
func (b *bench) counted(ctx context.Context, job, program string, proxy *testregistry.Proxy, dir string, argv ...string) error {
	proxy.Reset()
	if _, err := run(ctx, dir, argv...); err != nil {
		return err
	}
	for i := range b.rows {
		if row := &b.rows[i]; row.Job == job && row.Program == program {
			row.Fetched, row.Pushed, row.Requests = proxy.Sent(), proxy.Received(), len(proxy.Requests())
		}
	}
	return nil
}

func removeAll(dirs []string) error {
	var err error
	for _, dir := range dirs {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	return err
}

func (b *bench) note(job, program, format string, args ...any) {
	for i := range b.rows {
		if row := &b.rows[i]; row.Job == job && row.Program == program {
			row.Note = fmt.Sprintf(format, args...)
		}
	}
}

// cost returns what a row holds.
func (b *bench) cost(job, program string) Cost {
	for _, row := range b.rows {
		if row.Job == job && row.Program == program {
			return row.Cost
		}
	}
	return Cost{}
}

// median takes each figure's own.
func median(costs []Cost) Cost {
	return Cost{
		Wall:    middle(costs, func(c Cost) time.Duration { return c.Wall }),
		CPU:     middle(costs, func(c Cost) time.Duration { return c.CPU }),
		Peak:    middle(costs, func(c Cost) int64 { return c.Peak }),
		Written: middle(costs, func(c Cost) int64 { return c.Written }),
	}
}

func middle[T cmp.Ordered](costs []Cost, figure func(Cost) T) T {
	figures := make([]T, len(costs))
	for i, c := range costs {
		figures[i] = figure(c)
	}
	slices.Sort(figures)
	return figures[len(figures)/2]
}

// printTable prints the rows; the last columns compare a row with its job's reference.
func printTable(w io.Writer, rows []Row) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "JOB\tPROGRAM\tWALL s\tCPU s\tPEAK MB\tWRITTEN MB\tFETCHED MB\tPUSHED MB\tREQUESTS\t× WALL\t× CPU\tNOTE")
	for _, row := range rows {
		wall, cpu := "", ""
		for _, other := range rows {
			if other.Job == row.Job && other.reference {
				wall, cpu = ratio(row.Wall, other.Wall), ratio(row.CPU, other.CPU)
			}
		}
		fmt.Fprintf(t, "%s\t%s\t%.3f\t%.3f\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", row.Job, row.Program, row.Wall.Seconds(), row.CPU.Seconds(),
			megabytes(row.Peak), megabytes(row.Written), megabytes(row.Fetched), megabytes(row.Pushed), number(row.Requests), wall, cpu, row.Note)
	}
	return t.Flush()
}

func ratio(a, b time.Duration) string {
	if b == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f", float64(a)/float64(b))
}

func megabytes(n int64) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("%.1f", float64(n)/1e6)
}

func number(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

// sizeOf adds up the files below a folder.
func sizeOf(dir string) (int64, error) {
	var total int64
	err := filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		total += info.Size()
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("measuring %q: %w", dir, err)
	}
	return total, nil
}
