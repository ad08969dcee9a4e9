// SPDX-License-Identifier: Apache-2.0

// sealer-frontend is the build of a Kubefile as BuildKit runs it from an image: `# syntax=REGISTRY/sealer-frontend:v1`.
// `sealer builder frontend` makes that image.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/sealerio/sealer/build/frontend"
	"github.com/sealerio/sealer/imagelist/chart/helm"
	"github.com/sealerio/sealer/internal/version"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "sealer-frontend:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	if len(os.Args) > 1 && os.Args[1] == "--version" {
		_, err := fmt.Println(version.Version())
		return err
	}
	return frontend.Run(ctx, frontend.Options{Version: version.Version(), Charts: helm.Renderer{}})
}
