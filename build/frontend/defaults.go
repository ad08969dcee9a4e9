// SPDX-License-Identifier: Apache-2.0

package frontend

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/sealerio/sealer/build/convert"
	"github.com/sealerio/sealer/clusterfile"
)

// maxDefaults bounds the default Clusterfile of an image with its plugins, in bytes: it travels in the image's config.
const maxDefaults = 256 << 10

// defaults keeps the default Clusterfile and the plugins that the Kubefile added, so that a run need not unpack the rootfs
// for them. Mistakes in them are those of the build.
func defaults(made *convert.Result, files fs.FS) error {
	names := []string{clusterfile.BasePath}
	plugins, err := filesBelow(files, clusterfile.PluginDir)
	if err != nil {
		return fmt.Errorf("looking for plugins: %w", err)
	}
	slices.Sort(plugins)
	for _, name := range plugins {
		if ext := path.Ext(name); ext == ".yaml" || ext == ".yml" {
			names = append(names, path.Join(clusterfile.PluginDir, name))
		}
	}
	var documents []string
	for _, name := range names {
		data, err := fs.ReadFile(files, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("reading %q of the rootfs: %w", name, err)
		}
		f, err := clusterfile.ParseBase(name, data)
		if err != nil {
			return err
		}
		if len(f.ClearText) > 0 {
			return &ClearTextError{f.ClearText[0]}
		}
		documents = append(documents, strings.TrimRight(string(data), "\n")+"\n")
	}
	if len(documents) == 0 {
		return nil
	}
	text := strings.Join(documents, "---\n")
	if len(text) > maxDefaults {
		return fmt.Errorf("the default Clusterfile and the plugins of the image hold %d bytes; %d is the limit", len(text), maxDefaults)
	}
	if _, err := clusterfile.ParseBase("the default Clusterfile and the plugins", []byte(text)); err != nil {
		return err
	}
	made.Extension.Clusterfiles = append(slices.Clone(made.Extension.Clusterfiles), text)
	return nil
}

// ClearTextError is a secret that an image would carry to everyone.
type ClearTextError struct{ Place clusterfile.Place }

func (e *ClearTextError) Error() string {
	return e.Place.String() + ": a secret in clear would be in the image for everyone to read"
}

// Hint says where it belongs.
func (e *ClearTextError) Hint() string {
	return "leave it out of the image: the user's Clusterfile says it"
}
