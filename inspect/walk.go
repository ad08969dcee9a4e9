// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/opencontainers/go-digest"

	"github.com/sealerio/sealer/store"
)

// walkBlobs goes through the blobs of a store. One that Prune removes meanwhile is left out.
func walkBlobs(ctx context.Context, st *store.Store, fn func(d digest.Digest, size int64)) error {
	top := filepath.Join(st.Dir(), "blobs")
	err := filepath.WalkDir(top, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		d := digest.NewDigestFromEncoded(digest.Algorithm(filepath.Base(filepath.Dir(path))), e.Name())
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) || err == nil && d.Validate() != nil {
			return ctx.Err()
		}
		if err != nil {
			return err
		}
		fn(d, info.Size())
		return ctx.Err()
	})
	if err != nil {
		return fmt.Errorf("reading the store %q: %w", st.Dir(), err)
	}
	return nil
}
