// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/inspect"
	"github.com/sealerio/sealer/store"
)

func newWhy(a *app) *cobra.Command {
	var output string
	var remote bool
	cmd := &cobra.Command{
		Use:   "why IMAGE CONTAINER-IMAGE",
		Short: "Say why a container image is inside",
		Long: `why names what asked for a container image when the ClusterImage was built: file and line, the application, and
the base image that brought it along. CONTAINER-IMAGE is a reference, a repository without tag, or a digest.
` + ofArchives,
		Example: `  sealer why shop:v1 nginx:1.27
  sealer why shop:v1 registry.k8s.io/pause -o json`,
		Args: exactArgs("IMAGE", "CONTAINER-IMAGE"),
	}
	cmd.Flags().BoolVar(&remote, "remote", false, "look at what the registry has instead of the local store")
	a.addRegistryFlags(cmd)
	addOutput(cmd, &output)
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		defer a.close(&err)
		ctx := cmd.Context()
		s, err := a.subject(ctx, cmd, args[0], remote)
		if err != nil {
			return err
		}
		st, err := a.openStore()
		if err != nil {
			return err
		}
		reasons, err := inspect.Why(ctx, s, args[1], func(b clusterimage.Base) (*inspect.Subject, error) {
			t, err := st.Resolve(ctx, b.Digest)
			if err != nil {
				return nil, err
			}
			return inspect.InStore(st, store.Tagged{Name: b.Name, Descriptor: t.Descriptor}), nil
		})
		if err != nil {
			return err
		}
		return a.print(cmd, output, reasons, func(t *table) { writeReasons(t, reasons) })
	}
	return cmd
}

func writeReasons(t *table, reasons []inspect.Reason) {
	t.line("IMAGE", "PLATFORM", "ASKED FOR BY", "APPLICATION", "INHERITED FROM")
	for _, r := range reasons {
		base := ""
		if r.Base != nil {
			base = r.Base.Name
		}
		t.line(r.Name, r.Platform, strings.Join(r.Origins, ", "), r.App, base)
	}
}

func newDiff(a *app) *cobra.Command {
	var output string
	var fromRemote, toRemote, exitCode bool
	cmd := &cobra.Command{
		Use:   "diff FROM TO",
		Short: "Show how two ClusterImages differ, and how much there is to ship",
		Long: `diff shows the container images and the files of the rootfs that were added, removed and changed, and how many
bytes somebody who has FROM still needs to have TO: what 'sealer push' and 'sealer save --since' send. Times of
files do not count. Files are compared where neither image is in a registry.
` + strings.Replace(ofArchives, "IMAGE", "FROM and TO", 1),
		Example: `  sealer diff shop:v1 shop:v2
  sealer diff --remote-from registry.example.com/team/shop:v1 shop:v2 -o json
  sealer diff shop:v1 oci-archive:/media/usb/shop.tar
  sealer diff --exit-code shop:v1 shop:v2`,
		Args: exactArgs("FROM", "TO"),
	}
	f := cmd.Flags()
	f.BoolVar(&fromRemote, "remote-from", false, "FROM is what the registry has, not the local store")
	f.BoolVar(&toRemote, "remote-to", false, "TO is what the registry has, not the local store")
	f.BoolVar(&exitCode, "exit-code", false, "exit with status 1 where the images differ")
	a.addRegistryFlags(cmd)
	addOutput(cmd, &output)
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		defer a.close(&err)
		ctx := cmd.Context()
		from, err := a.subject(ctx, cmd, args[0], fromRemote)
		if err != nil {
			return err
		}
		to, err := a.subject(ctx, cmd, args[1], toRemote)
		if err != nil {
			return err
		}
		d, err := inspect.Compare(ctx, from, to)
		if err != nil {
			return err
		}
		if err := a.print(cmd, output, d, func(t *table) { writeDiff(t, d) }); err != nil {
			return err
		}
		if exitCode && !d.Same {
			return &exitStatusError{code: exitFailed}
		}
		return nil
	}
	return cmd
}

func writeDiff(t *table, d *inspect.Diff) {
	sign := map[string]string{inspect.Added: "+", inspect.Removed: "-", inspect.Changed: "~"}
	for _, i := range d.Images {
		was := ""
		if i.Change == inspect.Changed {
			was = short(i.From) + " → " + short(i.To)
		}
		t.line(sign[i.Change]+" image", i.Name+"  "+i.Platform, size(i.Size), was)
	}
	for _, f := range d.Files {
		t.line(sign[f.Change]+" file", "/"+f.Path, size(f.Size), strings.Join(f.What, ", "))
	}
	if !d.FilesCompared {
		t.line("files are not compared: an image is in a registry")
	}
	t.line(fmt.Sprintf("%d blobs to ship, %s of %s", d.Blobs, size(d.Bytes), size(d.Total)))
}
