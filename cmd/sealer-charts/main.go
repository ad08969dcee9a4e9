// SPDX-License-Identifier: Apache-2.0

// Command sealer-charts renders one Helm chart: it takes a chart.Request on stdin and writes a chart.Result. sealer
// runs it for every chart that it looks for images in.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/sealerio/sealer/imagelist/chart"
	"github.com/sealerio/sealer/imagelist/chart/helm"
	"github.com/sealerio/sealer/internal/version"
)

// maxMemory is how much a chart may make this program hold, in bytes.
const maxMemory = 2 << 30

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "sealer-charts:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	if len(os.Args) > 1 {
		if os.Args[1] == "--version" {
			_, err := fmt.Println(version.Version())
			return err
		}
		return fmt.Errorf("unknown argument %q: sealer runs this program", os.Args[1])
	}
	if err := unix.Setrlimit(unix.RLIMIT_DATA, &unix.Rlimit{Cur: maxMemory, Max: maxMemory}); err != nil {
		return fmt.Errorf("bounding the memory: %w", err)
	}
	var request chart.Request
	if err := json.NewDecoder(os.Stdin).Decode(&request); err != nil {
		return fmt.Errorf("reading the request: %w", err)
	}
	result, err := helm.Renderer{}.Render(ctx, request.Files, request.Options)
	if err != nil {
		return err
	}
	if err := json.NewEncoder(os.Stdout).Encode(result); err != nil {
		return fmt.Errorf("writing the result: %w", err)
	}
	return nil
}
