// SPDX-License-Identifier: Apache-2.0

// Command components builds the programs and container images of a real Kubernetes cluster out of Go modules, and
// pushes the images to a registry, so that the end-to-end tests need nothing but a module proxy and Debian.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/sealerio/sealer/test/components/internal/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the first Ctrl-C cancels, a second one kills
	os.Exit(cli.Run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}
