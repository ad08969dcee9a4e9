// SPDX-License-Identifier: Apache-2.0

// Command sealer builds a Kubernetes cluster into one OCI image, ships it and
// installs it on hosts that reach no network.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/sealerio/sealer/build/engine"
	"github.com/sealerio/sealer/internal/cli"
	"github.com/sealerio/sealer/rootfs"
)

func main() {
	if rootfs.Init() {
		return // this process was started to unpack a layer, and has done so
	}
	engine.CollectLate()
	engine.Reexec()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the first Ctrl-C cancels and cleans up, a second one kills
	os.Exit(cli.Run(ctx, os.Args[1:], cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}))
}
