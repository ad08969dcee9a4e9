// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/sealerio/sealer/registry"
	"github.com/sealerio/sealer/signature"
	"github.com/sealerio/sealer/store"
)

func newPush(a *app) *cobra.Command {
	var as string
	var signatures bool
	var wanted []string
	cmd := &cobra.Command{
		Use:   "push IMAGE",
		Short: "Send an image of the local store to its registry",
		Long: `push sends an image of the local store to the registry in its name, or to
another reference with --as. What the registry already has is not sent again, and what it has
in another repository is taken over from there. The digest of the image is printed; with --platform
it is that of an image of these platforms alone.`,
		Example: `  sealer push registry.example.com/team/shop:v1
  sealer push shop:v1 --as registry.example.com/team/shop:v1
  sealer push shop:v1 --platform linux/amd64 --as registry.example.com/team/shop:v1-amd64`,
		Args: exactArgs("IMAGE"),
	}
	cmd.Flags().StringSliceVar(&wanted, "platform", nil, "only these platforms, such as linux/amd64 (default: all that the image has)")
	cmd.Flags().StringVar(&as, "as", "", "push under this reference instead of the image's name")
	cmd.Flags().BoolVar(&signatures, "signatures", true, "send the image's signatures too")
	a.addJobs(cmd)
	a.addRegistryFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		list, err := parsePlatforms(cmd, wanted)
		if err != nil {
			return err
		}
		defer a.close(&err)
		st, err := a.openWork(cmd)
		if err != nil {
			return err
		}
		ctx := cmd.Context()
		image, err := st.Resolve(ctx, args[0])
		if err != nil {
			return err
		}
		target := image.Name
		if as != "" {
			target = as
		}
		desc, err := a.push(ctx, cmd, st, image, list, target, signatures)
		if err != nil {
			return err
		}
		return a.printDigest(desc)
	}
	return cmd
}

// push sends an image, of these platforms alone if there are any, and its signatures where they are asked for.
func (a *app) push(ctx context.Context, cmd *cobra.Command, st *store.Store, image store.Tagged, list []ocispec.Platform, target string, signatures bool) (desc ocispec.Descriptor, err error) {
	task := a.display.Task("push " + target)
	defer func() { task.Done(err) }()
	client, err := a.openRegistry(cmd, task)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if desc, err = pushImage(ctx, client, st, image, list, target); err != nil || !signatures {
		return desc, err
	}
	_, err = signature.Push(ctx, client, st, desc, target)
	return desc, err
}

func newPull(a *app) *cobra.Command {
	var wanted []string
	var signatures bool
	cmd := &cobra.Command{
		Use:   "pull IMAGE",
		Short: "Fetch an image from a registry into the local store",
		Long: `pull fetches a ClusterImage, or any OCI image, into the local store. Blobs that
are there are not fetched again, and a pull that was cut continues where it stopped.
The digest of the image is printed.`,
		Example: `  sealer pull registry.example.com/team/shop:v1
  sealer pull registry.example.com/team/shop:v1 --platform linux/arm64`,
		Args: exactArgs("IMAGE"),
	}
	cmd.Flags().StringSliceVar(&wanted, "platform", nil, "only these platforms, such as linux/amd64 (default: all that the image has)")
	cmd.Flags().BoolVar(&signatures, "signatures", true, "bring the image's signatures too")
	a.addJobs(cmd)
	a.addRegistryFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		list, err := parsePlatforms(cmd, wanted)
		if err != nil {
			return err
		}
		defer a.close(&err)
		st, err := a.openWork(cmd)
		if err != nil {
			return err
		}
		desc, err := a.pull(cmd.Context(), cmd, st, args[0], list)
		if err != nil {
			return err
		}
		if signatures {
			if err := a.pullSignatures(cmd.Context(), cmd, st, args[0], desc); err != nil {
				return err
			}
		}
		return a.printDigest(desc)
	}
	return cmd
}

func (a *app) printDigest(desc ocispec.Descriptor) error {
	_, err := fmt.Fprintln(a.streams.Out, desc.Digest)
	return err
}

func parsePlatforms(cmd *cobra.Command, wanted []string) ([]ocispec.Platform, error) {
	var list []ocispec.Platform
	for _, w := range wanted {
		p, err := platforms.Parse(w)
		if err != nil {
			return nil, usagef(cmd, "--platform %q: %w", w, err)
		}
		list = append(list, platforms.Normalize(p))
	}
	return list, nil
}

func newLogin(a *app) *cobra.Command {
	var user, passwordFile string
	var passwordStdin bool
	cmd := &cobra.Command{
		Use:   "login REGISTRY",
		Short: "Check and keep the credentials of a registry",
		Long: `login asks the registry whether it takes the credentials, and keeps them where
docker keeps them: in a credential helper if one is configured, else in docker's config.json.
The password comes from the terminal, from --password-stdin or from --password-file, never from a flag.`,
		Example: `  sealer login registry.example.com -u me
  cat token | sealer login registry.example.com -u me --password-stdin`,
		Args: exactArgs("REGISTRY"),
	}
	f := cmd.Flags()
	f.StringVarP(&user, "username", "u", "", "user name (asked for on a terminal where it is not given)")
	f.BoolVar(&passwordStdin, "password-stdin", false, "read the password from stdin")
	f.StringVar(&passwordFile, "password-file", "", "read the password from this file")
	cmd.MarkFlagsMutuallyExclusive("password-stdin", "password-file")
	a.addRegistryFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		defer a.close(&err)
		if user == "" {
			if user, err = a.ask(cmd, "Username: "); err != nil {
				return err
			}
		}
		password, err := a.readPassword(cmd, passwordStdin, passwordFile)
		if err != nil {
			return err
		}
		client, err := a.openRegistry(cmd, nil)
		if err != nil {
			return err
		}
		if err := client.Login(cmd.Context(), args[0], user, password); err != nil {
			return err
		}
		_, err = fmt.Fprintf(a.streams.Err, "logged in to %s as %s\n", args[0], user)
		return err
	}
	return cmd
}

func newLogout(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "logout REGISTRY",
		Short:   "Forget the credentials of a registry",
		Example: "  sealer logout registry.example.com",
		Args:    exactArgs("REGISTRY"),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			defer a.close(&err)
			client, err := a.openRegistry(cmd, nil)
			if err != nil {
				return err
			}
			return client.Logout(args[0])
		},
	}
}

// ask prompts on stderr and reads one line.
func (a *app) ask(cmd *cobra.Command, prompt string) (string, error) {
	if !isTerminal(a.streams.In) {
		return "", usagef(cmd, "--username is missing, and there is no terminal to ask on")
	}
	_, _ = fmt.Fprint(a.streams.Err, prompt)
	line, err := orCancelled(cmd.Context(), func() (string, error) { return bufio.NewReader(a.streams.In).ReadString('\n') })
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("reading the answer: %w", err)
	}
	return strings.TrimSpace(line), nil
}

// orCancelled waits for what somebody types, or for the end of ctx. What waits then is given up: the command ends.
func orCancelled[T any](ctx context.Context, read func() (T, error)) (T, error) {
	type answer struct {
		value T
		err   error
	}
	answered := make(chan answer, 1)
	go func() {
		value, err := read()
		answered <- answer{value, err}
	}()
	select {
	case got := <-answered:
		return got.value, got.err
	case <-ctx.Done():
		var none T
		return none, context.Cause(ctx)
	}
}

// maxPassword bounds what is read as a password.
const maxPassword = 64 << 10

// readPassword reads a password from stdin, a file, or the terminal without showing it.
func (a *app) readPassword(cmd *cobra.Command, stdin bool, file string) (string, error) {
	switch {
	case stdin:
		return firstLine(a.streams.In)
	case file != "":
		return passwordFromFile(file)
	}
	return a.askPassword(cmd, "Password: ")
}

// askPassword asks on the terminal, without showing what is typed.
func (a *app) askPassword(cmd *cobra.Command, prompt string) (string, error) {
	f, ok := a.streams.In.(*os.File)
	if !ok || !isTerminal(f) {
		return "", usagef(cmd, "no password was given, and there is no terminal to ask on")
	}
	_, _ = fmt.Fprint(a.streams.Err, prompt)
	fd := int(f.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return "", fmt.Errorf("reading the password: %w", err)
	}
	password, err := orCancelled(cmd.Context(), func() ([]byte, error) { return term.ReadPassword(fd) })
	_, _ = fmt.Fprintln(a.streams.Err)
	if cmd.Context().Err() != nil { // the terminal shows nothing that is typed
		err = errors.Join(err, term.Restore(fd, before))
	}
	if err != nil {
		return "", fmt.Errorf("reading the password: %w", err)
	}
	return string(password), nil
}

func passwordFromFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("reading the password: %w", err)
	}
	password, err := firstLine(f)
	return password, errors.Join(err, f.Close())
}

// readPEM reads a file of certificates or keys.
func readPEM(path string) (_ string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	const most = 1 << 20
	text, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && len(text) > most {
		err = fmt.Errorf("reading %q: it is larger than %d bytes", path, most)
	}
	return string(text), err
}

func firstLine(r io.Reader) (string, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxPassword))
	if err != nil {
		return "", fmt.Errorf("reading the password: %w", err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	return strings.TrimSuffix(line, "\r"), nil
}

func isTerminal(r io.Reader) bool {
	f, ok := r.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// pull fetches ref into the store, shown as one task.
func (a *app) pull(ctx context.Context, cmd *cobra.Command, st *store.Store, ref string, list []ocispec.Platform) (desc ocispec.Descriptor, err error) {
	task := a.display.Task("pull " + ref)
	defer func() { task.Done(err) }()
	client, err := a.openRegistry(cmd, task)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return client.Pull(ctx, st, ref, registry.PullOptions{Platforms: list})
}
