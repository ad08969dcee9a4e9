// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/sealerio/sealer/build"
	"github.com/sealerio/sealer/build/engine"
	"github.com/sealerio/sealer/imagelist"
	"github.com/sealerio/sealer/registry"
)

// addInputs declares the flags that say what goes into an image.
func (o *buildFlags) addInputs(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVarP(&o.kubefile, "file", "f", "", "path of the Kubefile (default: CONTEXT/Kubefile)")
	f.StringVar(&o.target, "target", "", "build this stage of the Kubefile (default: the last)")
	f.StringSliceVar(&o.platforms, "platform", nil, "platforms to build for, such as linux/amd64,linux/arm64 (default: this machine's)")
	f.StringArrayVar(&o.buildArgs, "build-arg", nil, "value of an ARG (NAME=VALUE, or NAME to take it from the environment; repeatable)")
	f.StringArrayVar(&o.imageLists, "image-list", nil, "also pack the images that this file names (repeatable)")
	f.StringArrayVar(&o.listsWithAuth, "image-list-with-auth", nil, "also pack the images of this YAML list, with its users and passwords (repeatable)")
	f.StringArrayVar(&o.ignoredLists, "ignored-image-list", nil, "do not pack images whose names fit a pattern of this file (repeatable)")
	o.discovery.add(cmd)
	f.StringVar(&o.builder, "builder", os.Getenv("BUILDKIT_HOST"), "address of a BuildKit daemon (env BUILDKIT_HOST; default: inside this command)")
	f.StringVar(&o.builderCerts, "builder-certs", "", "folder with ca.pem, cert.pem and key.pem for a builder at tcp://")
	f.StringVar(&o.toolbox, "toolbox", "", "image that RUN instructions run in (default: a small one that comes with sealer)")
	f.StringVar(&o.isolation, "isolation", string(engine.Auto), "how RUN is kept apart from this machine: auto, runc, chroot")
	f.StringVar(&o.compression, "compression", string(build.Zstd), "compression of the rootfs layers: zstd, gzip")
	f.BoolVar(&o.noCache, "no-cache", false, "run every instruction again")
	f.StringArrayVar(&o.secrets, "secret", nil, "secret for RUN --mount=type=secret: id=ID,src=FILE or id=ID,env=NAME (repeatable)")
	f.StringArrayVar(&o.ssh, "ssh", nil, "SSH agent or keys for RUN --mount=type=ssh: default, or ID=SOCKET or ID=KEY[,KEY] (repeatable)")
	mustComplete(cmd, "isolation", []string{"auto", "runc", "chroot"})
	mustComplete(cmd, "compression", []string{string(build.Zstd), string(build.Gzip)})
}

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
