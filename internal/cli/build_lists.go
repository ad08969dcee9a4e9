// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"io"
	"os"

	"github.com/sealerio/sealer/build"
	"github.com/sealerio/sealer/imagelist"
	"github.com/sealerio/sealer/registry"
)

// readListsWithAuth reads lists with credentials: the images go to the build, the credentials to the registry client alone.
func readListsWithAuth(files []string, options *build.Options, client *registry.Options) error {
	for _, file := range files {
		data, err := readLimited(file)
		if err != nil {
			return fmt.Errorf("reading the image list: %w", err)
		}
		images, logins, err := imagelist.ParseListWithAuth(file, data)
		if err != nil {
			return err
		}
		options.Images = append(options.Images, images...)
		for _, l := range logins {
			client.Logins = append(client.Logins, registry.Login{
				Host: l.Host, Repositories: l.Repositories, Username: l.Username, Password: l.Password,
			})
		}
	}
	return nil
}

func readLimited(file string) (_ []byte, err error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return io.ReadAll(io.LimitReader(f, imagelist.MaxFile+1))
}
