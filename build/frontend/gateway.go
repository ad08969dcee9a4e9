// SPDX-License-Identifier: Apache-2.0

package frontend

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/moby/buildkit/frontend/gateway/grpcclient"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/build/convert"
)

const (
	// LabelToolbox stands on a gateway image's config and says that the image can serve as the toolbox, too. Any value.
	LabelToolbox = "io.sealer.toolbox"

	// keySource is the attribute in which BuildKit tells a frontend which image it runs from.
	keySource = "source"
)

// ErrNoBuildKit is returned by Run in a process that BuildKit did not start.
var ErrNoBuildKit = errors.New("only BuildKit can start this program: write `# syntax=IMAGE` at the top of a Kubefile")

// Run builds for the BuildKit that started this process, and speaks with it over stdin and stdout.
func Run(ctx context.Context, o Options) error {
	if os.Getenv("BUILDKIT_SESSION_ID") == "" {
		return ErrNoBuildKit
	}
	return grpcclient.RunFromEnvironment(ctx, New(o))
}

// ownToolbox is the image that this frontend runs from, where that brings what RUN needs.
func (b *builder) ownToolbox(ctx context.Context, p ocispec.Platform) (convert.Toolbox, error) {
	source := b.ui.BuildOpts().Opts[keySource]
	if source == "" {
		return convert.Toolbox{}, &NoToolboxError{}
	}
	base, err := b.image(ctx, source, p)
	if err != nil {
		return convert.Toolbox{}, fmt.Errorf("toolbox: %w", err)
	}
	if base.Config.Config.Labels[LabelToolbox] == "" {
		return convert.Toolbox{}, &NoToolboxError{}
	}
	return convert.Toolbox{State: base.State, Env: base.Config.Config.Env}, nil
}
