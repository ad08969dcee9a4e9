// SPDX-License-Identifier: Apache-2.0

// Command doubles stands in for k3s or k0s on a real host, under a real systemd: which of them, and in which version,
// is said by the stamp behind the program. See the README for what is modelled.
package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/sealerio/sealer/test/components/programs/doubles/facts"
	"github.com/sealerio/sealer/test/components/programs/doubles/k0s"
	"github.com/sealerio/sealer/test/components/programs/doubles/k3s"
	"github.com/sealerio/sealer/test/components/programs/doubles/stamp"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx))
}

func run(ctx context.Context) int {
	s, err := stamp.Read()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	if len(os.Args) > 1 && os.Args[1] == "double-images" { // for who makes an image with the double in it
		return listImages(s)
	}
	if s.Program == "k0s" {
		return k0s.Run(ctx, s, os.Args, os.Stdout, os.Stderr)
	}
	return k3s.Run(ctx, s, os.Args, os.Stdout, os.Stderr)
}

// listImages prints the images that the program may ask for, one a line.
func listImages(s stamp.Stamp) int {
	images, err := facts.Images(s)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for _, i := range slices.Sorted(maps.Values(images)) {
		fmt.Fprintln(os.Stdout, i)
	}
	return 0
}
