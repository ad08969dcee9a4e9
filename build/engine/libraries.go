// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"sync"

	"github.com/containerd/log"
	"google.golang.org/grpc/experimental"
	"google.golang.org/grpc/mem"
)

// quieten keeps the log lines of BuildKit's and containerd's libraries off the screen: what matters there comes as
// errors. (Every start on ext4 without fs-verity would say so twice.)
var quieten = sync.OnceFunc(func() { _ = log.SetLevel("error") }) //nolint:gochecknoglobals // the libraries have one level for the process

// tuneGRPC gives gRPC a pool with a 64 KiB class. Files of the build context travel in messages a little larger than
// 32 KiB; with the default classes each of them takes, and clears, a buffer of 1 MiB: a quarter of the CPU time of a
// large COPY. The classes are powers of two.
var tuneGRPC = sync.OnceFunc(func() { //nolint:gochecknoglobals // gRPC has one pool for the process
	pool, err := mem.NewBinaryTieredBufferPool(8, 12, 14, 15, 16, 20)
	if err == nil {
		experimental.SetDefaultBufferPool(pool)
	}
})
