// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/rootfs"
)

// openRootfs opens where rootfs are unpacked to be looked at.
func (a *app) openRootfs() (*rootfs.Storage, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("mounting a rootfs: that takes root")
	}
	return rootfs.Open(rootfs.Options{Dir: filepath.Join(a.root, "rootfs"), RunDir: filepath.Join(a.root, "rootfs-run"), Logger: a.log})
}

func newMount(a *app) *cobra.Command {
	var output, platform string
	var writable bool
	cmd := &cobra.Command{
		Use:   "mount [IMAGE [DIR]]",
		Short: "Mount the rootfs of an image to look at it",
		Long: `mount unpacks the rootfs of an image of the local store and mounts it, read-only, in DIR or in a folder of sealer's own,
and prints the folder. With --writable what is written stays until 'sealer umount'; it never becomes a part of the image.
Without IMAGE, what is mounted is listed. It takes root.`,
		Example: `  sealer mount shop:v1
  sealer mount shop:v1 /mnt/shop --writable
  sealer mount`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 2 {
				return usagef(cmd, "unexpected argument %q", args[2])
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&platform, "platform", "", "platform, such as linux/arm64 (default: this machine's, or the only one that is there)")
	cmd.Flags().BoolVarP(&writable, "writable", "w", false, "let files be changed")
	addOutput(cmd, &output)
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		storage, err := a.openRootfs()
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, storage.Close()) }()
		if len(args) == 0 {
			return a.listViews(cmd, storage, output)
		}
		v, err := a.mount(cmd, storage, args, platform, writable)
		if err != nil {
			return err
		}
		return a.print(cmd, output, v, func(t *table) { t.line(v.Dir) })
	}
	return cmd
}

func (a *app) listViews(cmd *cobra.Command, storage *rootfs.Storage, output string) error {
	views, err := storage.Views(cmd.Context())
	if err != nil {
		return err
	}
	if views == nil {
		views = []rootfs.View{}
	}
	return a.print(cmd, output, views, func(t *table) {
		t.line("DIR", "IMAGE", "DIGEST", "PLATFORM", "STATE")
		for _, v := range views {
			state := "read-only"
			if v.Writable {
				state = "writable"
			}
			if !v.Mounted {
				state = "no longer mounted"
			}
			t.line(v.Dir, v.Image, short(v.Digest), v.Platform, state)
		}
	})
}

func (a *app) mount(cmd *cobra.Command, storage *rootfs.Storage, args []string, platform string, writable bool) (v rootfs.View, err error) {
	ctx := cmd.Context()
	st, err := a.openStore()
	if err != nil {
		return v, err
	}
	release, err := st.Hold(ctx)
	if err != nil {
		return v, err
	}
	defer func() { err = errors.Join(err, release()) }()
	tagged, err := st.Resolve(ctx, args[0])
	if err != nil {
		return v, err
	}
	img, err := clusterimage.Read(ctx, st.Content(), tagged.Descriptor)
	if err != nil {
		return v, fmt.Errorf("reading image %q: %w", tagged.Name, err)
	}
	chosen, err := choosePlatform(cmd, img, platform)
	if err != nil {
		return v, err
	}
	v = rootfs.View{
		Image: tagged.Name, Digest: tagged.Descriptor.Digest.String(), Platform: platforms.Format(chosen.Platform), Writable: writable,
	}
	v.Dir = filepath.Join(a.root, "mounts", short(v.Digest)+"-"+strings.ReplaceAll(v.Platform, "/", "-"))
	if len(args) == 2 {
		v.Dir = args[1]
	}
	if already, err := mountedAs(ctx, storage, v); err != nil || already {
		return v, err
	}
	return storage.Show(ctx, st.Content(), chosen.Descriptor, v)
}

// mountedAs tells whether the very same is mounted there.
func mountedAs(ctx context.Context, storage *rootfs.Storage, want rootfs.View) (bool, error) {
	dir, err := filepath.Abs(want.Dir)
	if err != nil {
		return false, fmt.Errorf("finding the folder %q: %w", want.Dir, err)
	}
	views, err := storage.Views(ctx)
	if err != nil {
		return false, err
	}
	for _, v := range views {
		if v.Dir == dir && v.Mounted && v.Digest == want.Digest && v.Platform == want.Platform && v.Writable == want.Writable {
			return true, nil
		}
	}
	return false, nil
}

func choosePlatform(cmd *cobra.Command, img *clusterimage.Image, text string) (clusterimage.Rootfs, error) {
	want := []ocispec.Platform{platforms.DefaultSpec()}
	if text != "" {
		p, err := platforms.Parse(text)
		if err != nil {
			return clusterimage.Rootfs{}, usagef(cmd, "--platform %q: %w", text, err)
		}
		want[0] = p
	} else {
		for _, r := range img.Rootfs {
			if !r.Absent {
				want = append(want, r.Platform)
			}
		}
	}
	r, err := img.Platform(want[0])
	if err != nil || r.Absent {
		if len(want) == 2 { // the only one
			return img.Platform(want[1])
		}
		if err == nil {
			err = fmt.Errorf("%s is not here for %s: pull it", img.Descriptor.Digest, platforms.Format(want[0]))
		}
	}
	return r, err
}

func newUmount(a *app) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:     "umount DIR|IMAGE...",
		Aliases: []string{"unmount"},
		Short:   "Take away what 'sealer mount' has mounted",
		Long: `umount ends mounts, by their folder or by the image, and deletes what was written to those that are writable.
The folders are printed.`,
		Example: "  sealer umount /mnt/shop\n  sealer umount --all",
		Args: func(cmd *cobra.Command, args []string) error {
			if all != (len(args) == 0) {
				return usagef(cmd, "give DIR or IMAGE, or --all")
			}
			return nil
		},
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "everything that is mounted")
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		defer a.close(&err)
		storage, err := a.openRootfs()
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, storage.Close()) }()
		ctx := cmd.Context()
		views, err := storage.Views(ctx)
		if err != nil {
			return err
		}
		var errs []error
		found := map[string]bool{}
		for _, v := range views {
			arg, ok := names(v, args)
			if !all && !ok {
				continue
			}
			found[arg] = true
			err := storage.Hide(ctx, v)
			if err == nil {
				_, err = fmt.Fprintln(a.streams.Out, v.Dir)
			}
			errs = append(errs, err)
		}
		for _, arg := range args {
			if !found[arg] {
				errs = append(errs, fmt.Errorf("unmounting %q: nothing of that folder or name is mounted", arg))
			}
		}
		return errors.Join(errs...)
	}
	return cmd
}

// names finds the argument that means a view: its folder, its image, or the first digits of the digest.
func names(v rootfs.View, args []string) (string, bool) {
	for _, arg := range args {
		dir, err := filepath.Abs(arg)
		_, hex, _ := strings.Cut(v.Digest, ":")
		if err == nil && dir == v.Dir || arg == v.Image || arg == v.Digest || len(arg) >= 4 && strings.HasPrefix(hex, arg) {
			return arg, true
		}
		if named, err := familiar(arg); err == nil && named == v.Image {
			return arg, true
		}
	}
	return "", false
}
