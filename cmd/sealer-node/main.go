// SPDX-License-Identifier: Apache-2.0

// Command sealer-node is the part of sealer that runs on hosts: it keeps what
// was sent, unpacks the cluster rootfs and serves the packed images.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/sirupsen/logrus"

	"github.com/sealerio/sealer/internal/node"
)

func main() {
	if node.Init() {
		return // this process was started to unpack a layer, and has done so
	}
	logrus.SetOutput(io.Discard) // libraries log there what they also return, or what is of no concern
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the first signal cancels and cleans up, a second one kills
	os.Exit(node.Run(ctx, os.Args[1:], node.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}))
}
