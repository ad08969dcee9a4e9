// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sealerio/sealer/contexts"
	templates "github.com/sealerio/sealer/rootfs-templates"
)

func newNew(a *app) *cobra.Command {
	var o contexts.Options
	var parts []string
	var output string
	cmd := &cobra.Command{
		Use:   "new (--runtime NAME --version VERSION | --app) DIR",
		Short: "Write a build context for a base image or an application",
		Long: `new writes a folder that 'sealer build' makes an image of: Kubefile, scripts, settings, the list
of images and a README. Nothing that is there is ever replaced.

The Kubefile of a base image downloads the release's programs, pinned by their checksums: those of
--checksums, or those that the release has. Where the release cannot be reached, the build
compares with the release's checksums itself, and new says so. --from takes programs that are there
already, asks them for their version and their images, and takes archives of images along.`,
		Example: `  sealer new --runtime k3s --version v1.36.1+k3s1 --platform linux/amd64,linux/arm64 k3s
  sealer new --runtime k3s --from Downloads k3s
  sealer new --runtime k0s --version v1.36.3+k0s.2 --checksums sha256sums.txt k0s
  sealer new --runtime kubernetes --version v1.36.3 --component containerd=2.3.6 kube
  sealer new --app --image registry.example.com/team/shop:v1 shop`,
		Args: exactArgs("DIR"),
	}
	f := cmd.Flags()
	f.StringVar(&o.Runtime, "runtime", "", "distribution of Kubernetes: "+strings.Join(templates.Distributions(), ", "))
	f.StringVar(&o.Version, "version", "", "its version, such as v1.36.1+k3s1 (with --from: what the programs say)")
	f.StringSliceVar(&o.Platforms, "platform", nil, "platforms to build for, such as linux/amd64 (default: this machine's)")
	f.StringVar(&o.From, "from", "", "folder with the programs, and perhaps archives or a list of images")
	f.StringArrayVar(&o.Checksums, "checksums", nil, "file of checksums, as sha256sum writes them, for what is downloaded (repeatable)")
	f.StringVar(&o.Mirror, "mirror", "", "URL that goes before host and path of every download")
	f.StringArrayVar(&parts, "component", nil, "version of what is beside Kubernetes: containerd, runc, crictl, cni (NAME=VERSION, repeatable)")
	f.StringVar(&o.ImageList, "image-list", "", "list of the images that the distribution needs")
	f.BoolVar(&o.App, "app", false, "write the context of an application")
	f.StringVar(&o.Base, "base", "", "image that the application is built on (default: scratch, for a cluster that is there)")
	f.StringVar(&o.Image, "image", "", "image of the application's manifest (default: a small one)")
	addOutput(cmd, &output)
	mustComplete(cmd, "runtime", templates.Distributions())
	cmd.MarkFlagsMutuallyExclusive("app", "runtime")
	cmd.MarkFlagsOneRequired("app", "runtime")
	cmd.MarkFlagsMutuallyExclusive("from", "checksums")
	cmd.MarkFlagsMutuallyExclusive("from", "mirror")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		o.Dir = args[0]
		if o.Runtime != "" && !slices.Contains(templates.Distributions(), o.Runtime) {
			return usagef(cmd, "--runtime %q is none of %s", o.Runtime, strings.Join(templates.Distributions(), ", "))
		}
		o.Supported = func(distribution, version string) error {
			if minors := distributions()[distribution].Minors(); !minors.Include(version) {
				return fmt.Errorf("%s %s cannot be installed: this sealer installs %s", distribution, version, minors)
			}
			return nil
		}
		o.Components = map[string]string{}
		for _, part := range parts {
			name, version, ok := strings.Cut(part, "=")
			if !ok || version == "" {
				return usagef(cmd, "--component %q is not NAME=VERSION", part)
			}
			o.Components[name] = version
		}
		result, err := contexts.Write(cmd.Context(), o)
		if err != nil {
			return err
		}
		for _, note := range result.Notes {
			_, _ = fmt.Fprintln(a.streams.Err, "note:", note)
		}
		return a.print(cmd, output, result, func(t *table) {
			for _, file := range result.Files {
				t.line(file)
			}
			for _, d := range result.Downloads {
				t.line("download", d.Platform, d.URL, d.Checksum)
			}
			if result.Images != "" {
				t.line("images: " + result.Images)
			}
			t.line(result.Build)
		})
	}
	return cmd
}
