// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/sealerio/sealer/build"
	"github.com/sealerio/sealer/internal/atomicfile"
	"github.com/sealerio/sealer/store"
)

// deliver does what the flags ask for with an image that is built and tagged, and prints its digest.
func (a *app) deliver(cmd *cobra.Command, o buildFlags, st *store.Store, result build.Result) error {
	if o.push {
		for _, name := range result.Names {
			if err := a.pushBuilt(cmd, st, result.Descriptor, name); err != nil {
				return err
			}
		}
	}
	if o.iidFile != "" {
		if err := writeResult(o.iidFile, []byte(result.Descriptor.Digest)); err != nil {
			return err
		}
	}
	if o.metadataFile != "" {
		data, err := json.MarshalIndent(newBuildMetadata(result), "", "  ")
		if err == nil {
			err = writeResult(o.metadataFile, append(data, '\n'))
		}
		if err != nil {
			return err
		}
	}
	return a.printDigest(result.Descriptor)
}

func (a *app) pushBuilt(cmd *cobra.Command, st *store.Store, desc ocispec.Descriptor, name string) (err error) {
	task := a.display.Task("push " + name)
	defer func() { task.Done(err) }()
	client, err := a.openRegistry(cmd, task)
	if err != nil {
		return err
	}
	_, err = client.Push(cmd.Context(), st, desc, name)
	return err
}

// buildMetadata is what --metadata-file holds; the keys with a dot are docker buildx's.
type buildMetadata struct {
	Digest     string             `json:"containerimage.digest"`
	Descriptor ocispec.Descriptor `json:"containerimage.descriptor"`
	Names      string             `json:"image.name"` // with commas between
}

func newBuildMetadata(r build.Result) buildMetadata {
	return buildMetadata{Digest: r.Descriptor.Digest.String(), Descriptor: r.Descriptor, Names: strings.Join(r.Names, ",")}
}

// writeResult writes a file for the program that called sealer.
func writeResult(path string, data []byte) error {
	if err := atomicfile.Write(path, data, os.FileMode(0o644)); err != nil {
		return fmt.Errorf("writing the result: %w", err)
	}
	return nil
}
