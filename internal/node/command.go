// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	goruntime "runtime"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/sealerio/sealer/internal/version"
	"github.com/sealerio/sealer/registry"
)

// Exit statuses.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// Streams are what a command reads and writes: JSON in and out, all else on Err.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// usageError is a command line that makes no sense.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// commands is one run of the program.
type commands struct {
	Streams
	node Options
}

// Run runs sealer-node with the arguments after the program's name and returns its exit status.
func Run(ctx context.Context, args []string, s Streams) int {
	c := &commands{Streams: s}
	root := c.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitDone
	}
	_, _ = fmt.Fprintf(s.Err, "sealer-node: %v\n", err) // there is nowhere else to say that this failed
	var hint interface{ Hint() string }
	if errors.As(err, &hint) {
		_, _ = fmt.Fprintf(s.Err, "hint: %s\n", hint.Hint())
	}
	if _, ok := errors.AsType[usageError](err); ok {
		return exitUsage
	}
	return exitFailed
}

func (c *commands) root() *cobra.Command {
	cmd := group("sealer-node", "What sealer does on a host; sealer itself runs it",
		c.version(), c.content(), c.rootfs(), c.render(), c.registry(), c.dockerImages(), c.etcd(), c.endpoint(), c.clean())
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetIn(c.In)
	cmd.SetOut(c.Out)
	cmd.SetErr(c.Err)
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	cmd.CompletionOptions.DisableDefaultCmd = true
	cmd.PersistentFlags().StringVar(&c.node.Root, "root", DefaultRoot, "folder of everything that is kept")
	cmd.PersistentFlags().StringVar(&c.node.UnitDir, "unit-dir", "", "folder of systemd units (default /etc/systemd/system)")
	cmd.PersistentFlags().StringVar(&c.node.DockerSocket, "docker-socket", "", "where the host's own docker listens (default "+dockerSocket+")")
	cmd.PersistentFlags().StringVar(&c.node.DockerCerts, "docker-certs", "", "where it looks for CAs of registries (default "+dockerCerts+")")
	cmd.PersistentFlags().StringVar(&c.node.InitDir, "init-dir", "", "folder of OpenRC's services (default /etc/init.d on a host that it has booted)")
	return cmd
}

// leaf is a command without arguments that prints one JSON document, or nothing where that is nil.
func (c *commands) leaf(use, short string, run func(context.Context, *Node) (any, error)) *cobra.Command {
	return &cobra.Command{
		Use:   use,
		Short: short,
		Args: func(cmd *cobra.Command, args []string) error {
			if err := cobra.NoArgs(cmd, args); err != nil {
				return usageError{err}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			c.node.Logger = slog.New(slog.NewTextHandler(c.Err, nil))
			n, err := New(c.node)
			if err != nil {
				return err
			}
			out, err := run(cmd.Context(), n)
			if err != nil || out == nil {
				return err
			}
			return json.NewEncoder(c.Out).Encode(out)
		},
	}
}

// group is a command that only has others below it.
func group(use, short string, below ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use:   use,
		Short: short,
		Args:  cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("unknown command %q of %q", args[0], cmd.CommandPath())}
			}
			return usageError{fmt.Errorf("%q needs a command", cmd.CommandPath())}
		},
	}
	cmd.AddCommand(below...)
	return cmd
}

func (c *commands) version() *cobra.Command {
	return c.leaf("version", "Print the version", func(context.Context, *Node) (any, error) {
		return struct {
			Version  string `json:"version"`
			Platform string `json:"platform"`
		}{version.Version(), goruntime.GOOS + "/" + goruntime.GOARCH}, nil
	})
}

func (c *commands) content() *cobra.Command {
	missing := c.leaf("missing", "Tell which of the blobs on standard input the host lacks", func(ctx context.Context, n *Node) (any, error) {
		var wanted []Wanted
		if err := readJSON(c.In, "the list of blobs", &wanted); err != nil {
			return nil, err
		}
		return n.Missing(ctx, wanted)
	})
	receive := c.leaf("receive", "Store the blob stream on standard input", func(ctx context.Context, n *Node) (any, error) {
		return n.Receive(ctx, c.In)
	})
	share := c.leaf("share", "Get blobs from other hosts, and give them to others, as the orders on standard input say", func(ctx context.Context, n *Node) (any, error) {
		return nil, n.Share(ctx, c.In, c.Out)
	})
	var name, mediaType string
	var id string
	var size int64
	tag := c.leaf("tag", "Name an image, so that it is kept", func(ctx context.Context, n *Node) (any, error) {
		d, err := digest.Parse(id)
		if err != nil {
			return nil, usageError{fmt.Errorf("--digest %q: %w", id, err)}
		}
		return nil, n.Tag(ctx, name, ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: size})
	})
	tag.Flags().StringVar(&name, "name", "", "name of the image")
	tag.Flags().StringVar(&id, "digest", "", "digest of its index")
	tag.Flags().Int64Var(&size, "size", 0, "size of its index in bytes")
	tag.Flags().StringVar(&mediaType, "media-type", ocispec.MediaTypeImageIndex, "media type of its index")
	require(tag, "name", "digest", "size")
	var gone string
	untag := c.leaf("untag", "Take a name away", func(ctx context.Context, n *Node) (any, error) { return nil, n.Untag(ctx, gone) })
	untag.Flags().StringVar(&gone, "name", "", "name of the image")
	require(untag, "name")
	prune := c.leaf("prune", "Delete the blobs that no named image needs", func(ctx context.Context, n *Node) (any, error) {
		res, err := n.Prune(ctx)
		if err != nil {
			return nil, err
		}
		return Received{Blobs: res.Blobs, Bytes: res.Bytes}, nil
	})
	return group("content", "Blobs and images that the host has", missing, receive, share, tag, untag, prune)
}

func (c *commands) rootfs() *cobra.Command {
	var image, platform string
	parse := func() (digest.Digest, error) {
		d, err := digest.Parse(image)
		if err != nil {
			return "", usageError{fmt.Errorf("--image %q: %w", image, err)}
		}
		return d, nil
	}
	mount := c.leaf("mount", "Unpack and mount the cluster rootfs of an image, writable", func(ctx context.Context, n *Node) (any, error) {
		d, err := parse()
		if err != nil {
			return nil, err
		}
		path, err := n.Mount(ctx, d, platform)
		if err != nil {
			return nil, err
		}
		return struct {
			Path string `json:"path"`
		}{path}, nil
	})
	mount.Flags().StringVar(&platform, "platform", "", "platform, such as linux/arm64 (default: this host's)")
	umount := c.leaf("umount", "Unmount it; what was written to it stays", func(ctx context.Context, n *Node) (any, error) {
		d, err := parse()
		if err != nil {
			return nil, err
		}
		return nil, n.Unmount(ctx, d, false)
	})
	remove := c.leaf("remove", "Unmount it, and delete what was written to it and unpacked for it alone", func(ctx context.Context, n *Node) (any, error) {
		d, err := parse()
		if err != nil {
			return nil, err
		}
		return nil, n.Unmount(ctx, d, true)
	})
	for _, cmd := range []*cobra.Command{mount, umount, remove} {
		cmd.Flags().StringVar(&image, "image", "", "digest of the ClusterImage")
		require(cmd, "image")
	}
	return group("rootfs", "The cluster rootfs", mount, umount, remove)
}

func (c *commands) render() *cobra.Command {
	var dir string
	cmd := c.leaf("render", "Fill in the templates of a mounted rootfs with the values on standard input", func(context.Context, *Node) (any, error) {
		values, err := ReadRendering(c.In)
		if err != nil {
			return nil, err
		}
		files, err := Render(dir, values)
		if err != nil {
			return nil, err
		}
		return struct {
			Files []string `json:"files"`
		}{append([]string{}, files...)}, nil
	})
	cmd.Flags().StringVar(&dir, "dir", "", "folder of the rootfs")
	require(cmd, "dir")
	return cmd
}

func (c *commands) registry() *cobra.Command {
	var config RegistryConfig
	var adopt, share bool
	var changed bool
	prepare := c.leaf("init", "Make certificates and credentials, or keep those that are there", func(_ context.Context, n *Node) (any, error) {
		if adopt {
			var other RegistryAccess
			if err := readJSON(c.In, "the credentials to adopt", &other); err != nil {
				return nil, err
			}
			var err error
			if changed, err = n.AdoptRegistry(other); err != nil {
				return nil, err
			}
		}
		access, err := n.InitRegistry(config)
		access.Changed = changed
		if err == nil && share {
			access, err = n.ShareRegistry(access)
		}
		if err != nil {
			return nil, err
		}
		return access, nil
	})
	prepare.Flags().StringSliceVar(&config.Peers, "peer", nil, "IP address of another host that serves the same images; may be given again")
	prepare.Flags().BoolVar(&adopt, "adopt", false, "take the CA, its key and the credentials on standard input, which another host shares")
	prepare.Flags().BoolVar(&share, "share", false, "also print the CA's key")
	prepare.Flags().StringVar(&config.Name, "name", "sea.hub", "host name of the registry")
	prepare.Flags().StringSliceVar(&config.Addresses, "address", nil, "IP address of the host; may be given again")
	prepare.Flags().StringSliceVar(&config.Names, "alt-name", nil, "further host name or IP address for the certificate; may be given again")
	prepare.Flags().IntVar(&config.Port, "port", 5000, "port")
	prepare.Flags().BoolVar(&config.Writable, "writable", false, "allow pushes")
	require(prepare, "address")

	var image string
	publish := c.leaf("publish", "Make the packed images of a ClusterImage available", func(ctx context.Context, n *Node) (any, error) {
		d, err := digest.Parse(image)
		if err != nil {
			return nil, usageError{fmt.Errorf("--image %q: %w", image, err)}
		}
		return nil, n.Publish(ctx, d)
	})
	publish.Flags().StringVar(&image, "image", "", "digest of the ClusterImage")
	require(publish, "image")

	unpublish := c.leaf("unpublish", "Take away the packed images of a ClusterImage that no other named image packs", func(ctx context.Context, n *Node) (any, error) {
		d, err := digest.Parse(image)
		if err != nil {
			return nil, usageError{fmt.Errorf("--image %q: %w", image, err)}
		}
		return nil, n.Unpublish(ctx, d)
	})
	unpublish.Flags().StringVar(&image, "image", "", "digest of the ClusterImage")
	require(unpublish, "image")
	lacks := c.leaf("lacks", "Tell which of the images on standard input the registry does not have", func(_ context.Context, n *Node) (any, error) {
		var names []string
		if err := readJSON(c.In, "the list of images", &names); err != nil {
			return nil, err
		}
		return registry.Lacks(n.registryDir(), names)
	})

	serve := c.leaf("serve", "Serve images until told to stop; the systemd unit runs it", func(ctx context.Context, n *Node) (any, error) {
		return nil, n.Serve(ctx, c.Err)
	})
	var unit UnitOptions
	install := c.leaf("install", "Run the registry as a systemd unit and wait until it answers", func(ctx context.Context, n *Node) (any, error) {
		return nil, n.InstallRegistry(ctx, unit)
	})
	install.Flags().DurationVar(&unit.Timeout, "timeout", time.Minute, "how long to wait for an answer")
	uninstall := c.leaf("uninstall", "Stop the registry and remove its unit; images stay", func(ctx context.Context, n *Node) (any, error) {
		return nil, n.UninstallRegistry(ctx)
	})
	var server string
	ask := c.leaf("ask", "Ask another registry whether it takes the credentials on standard input", func(ctx context.Context, n *Node) (any, error) {
		var access RegistryAccess
		if err := readJSON(c.In, "the registry's credentials", &access); err != nil {
			return nil, err
		}
		return nil, n.AskRegistry(ctx, server, access)
	})
	ask.Flags().StringVar(&server, "server", "", "host:port of the registry")
	require(ask, "server")
	return group("registry", "The registry on this host", append(c.registryMoves(), prepare, publish, unpublish, lacks, serve, install, uninstall, ask)...)
}

func (c *commands) clean() *cobra.Command {
	return c.leaf("clean", "Take away everything that sealer-node has made on this host", func(ctx context.Context, n *Node) (any, error) {
		return nil, n.Clean(ctx)
	})
}

// require makes flags mandatory; a missing one is a usage error.
func require(cmd *cobra.Command, flags ...string) {
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		for _, f := range flags {
			if !cmd.Flags().Changed(f) {
				return usageError{fmt.Errorf("%q needs --%s", cmd.CommandPath(), f)}
			}
		}
		return nil
	}
}
