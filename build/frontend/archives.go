// SPDX-License-Identifier: Apache-2.0

package frontend

import (
	"context"
	"errors"
	"fmt"

	"github.com/sealerio/sealer/imagelist"
)

// SourceError says that an image lies where a gateway image cannot read it.
type SourceError struct{ Source, Origin string }

func (e *SourceError) Error() string {
	return fmt.Sprintf("%s: %s: only sealer build reads images from archives and daemons", e.Origin, e.Source)
}

// Hint says what works.
func (*SourceError) Hint() string {
	return "push the images to a registry, or build with sealer build (--builder names the same BuildKit)"
}

// fromRegistries leaves out archives that were only found among the files, and what only reads like an image, for nobody can
// be asked whether it is one; it says so. Archives that a list names are errors.
func (b *builder) fromRegistries(ctx context.Context, images []imagelist.Image) ([]imagelist.Image, error) {
	var out []imagelist.Image
	var errs []error
	for _, i := range images {
		switch {
		case i.Candidate:
			b.say(ctx, fmt.Sprintf("%s: %q reads like an image and is not packed: write it into imageList if it is one", i.Origins[0], i.Name))
		case i.Source == "":
			out = append(out, i)
		case i.Source == "archive:"+i.Origins[0].File:
			b.say(ctx, fmt.Sprintf("%s stays a file of the rootfs: only sealer build packs the images of archives", i.Origins[0].File))
		default:
			errs = append(errs, &SourceError{Source: i.Source, Origin: i.Origins[0].String()})
		}
	}
	return out, errors.Join(errs...)
}
