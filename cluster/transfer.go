// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"io"

	"github.com/sealerio/sealer/internal/progress"
)

// advancer is a progress counter.
type advancer interface {
	Advance(n int64)
	Done(err error)
}

// counterOf is a counter below the task that log is, or one that counts for nobody.
func counterOf(log io.Writer, name string, total int64) advancer {
	task, _ := log.(*progress.Task)
	return task.Track(name, total)
}

// counting tells a counter what is read.
type counting struct {
	r io.Reader
	c advancer
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.c.Advance(int64(n))
	return n, err
}
