// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/sealerio/sealer/internal/atomicfile"
	"github.com/sealerio/sealer/signature"
	"github.com/sealerio/sealer/store"
)

// envKeyPassword has the password of a private key, as cosign takes it.
const envKeyPassword = "COSIGN_PASSWORD"

type signOptions struct {
	key, passwordFile string
	annotations       []string
	remote, generate  bool
	prefix            string
}

func newSign(a *app) *cobra.Command {
	var o signOptions
	var output string
	cmd := &cobra.Command{
		Use:   "sign IMAGE",
		Short: "Sign an image with a key, as cosign does",
		Long: `sign signs the digest of an image of the local store with a private key of cosign.
For a ClusterImage that covers every image inside. The signature is kept in the store, and
'sealer push' sends it with the image; with --remote the image is signed in its registry.

The key's password is taken from COSIGN_PASSWORD, from --password-file, or asked for.`,
		Example: `  sealer sign --generate-key
  sealer sign --key cosign.key registry.example.com/team/shop:v1
  sealer sign --key cosign.key --remote registry.example.com/team/shop:v1`,
		Args: func(cmd *cobra.Command, args []string) error {
			if o.generate {
				return noArgs(cmd, args)
			}
			return exactArgs("IMAGE")(cmd, args)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.key, "key", "", "private key in cosign's format")
	f.StringVar(&o.passwordFile, "password-file", "", "file whose first line is the key's password")
	f.StringArrayVarP(&o.annotations, "annotation", "a", nil, "sign this KEY=VALUE with the image (repeatable)")
	f.BoolVar(&o.remote, "remote", false, "sign the image that the registry has, and put the signature beside it")
	f.BoolVar(&o.generate, "generate-key", false, "make a key pair, in PREFIX.key and PREFIX.pub, and sign nothing")
	f.StringVar(&o.prefix, "output-key-prefix", "cosign", "with --generate-key, path of the new files without .key and .pub")
	a.addRegistryFlags(cmd)
	addOutput(cmd, &output)
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		defer a.close(&err)
		if o.generate {
			return a.generateKey(cmd, o)
		}
		if o.key == "" {
			return usagef(cmd, "--key is missing")
		}
		s, err := a.sign(cmd, args[0], o)
		if err != nil {
			return err
		}
		return a.print(cmd, output, s, func(t *table) { t.line(s.Image.String()) })
	}
	return cmd
}

func (a *app) sign(cmd *cobra.Command, name string, o signOptions) (signature.Signature, error) {
	var none signature.Signature
	annotations, err := keyValues(cmd, "annotation", o.annotations)
	if err != nil {
		return none, err
	}
	st, err := a.openStore()
	if err != nil {
		return none, err
	}
	ctx := cmd.Context()
	client, err := a.openRegistry(cmd, nil)
	if err != nil {
		return none, err
	}
	defer client.Close()
	var desc ocispec.Descriptor
	if o.remote {
		repo, err := client.Repository(ctx, name)
		if err == nil {
			desc, err = repo.Resolve(ctx, "")
		}
		if err != nil {
			return none, err
		}
	} else {
		image, err := st.Resolve(ctx, name)
		if err != nil {
			return none, err
		}
		name, desc = image.Name, image.Descriptor
	}
	key, err := a.readPrivateKey(cmd, o)
	if err != nil {
		return none, err
	}
	s, err := signature.Sign(ctx, st, name, desc, key, annotations)
	if err == nil && o.remote {
		_, err = signature.Push(ctx, client, st, desc, name)
	}
	return s, err
}

func (a *app) readPrivateKey(cmd *cobra.Command, o signOptions) (*signature.PrivateKey, error) {
	data, err := readKeyFile(o.key)
	if err != nil {
		return nil, err
	}
	password, err := a.keyPassword(cmd, o.passwordFile, false)
	if err != nil {
		return nil, err
	}
	return signature.ReadPrivateKey(o.key, data, password)
}

// maxKeyFile bounds a key's file, in bytes.
const maxKeyFile = 64 << 10

func readKeyFile(path string) (_ []byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading the key: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	data, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err != nil {
		return nil, fmt.Errorf("reading the key %q: %w", path, err)
	}
	if len(data) > maxKeyFile {
		return nil, fmt.Errorf("reading the key %q: it has more than %d bytes", path, maxKeyFile)
	}
	return data, nil
}

// keyPassword takes a key's password from where the user has put it. A new one is asked for twice.
func (a *app) keyPassword(cmd *cobra.Command, file string, fresh bool) ([]byte, error) {
	if file != "" {
		password, err := passwordFromFile(file)
		return []byte(password), err
	}
	if password, ok := os.LookupEnv(envKeyPassword); ok {
		return []byte(password), nil
	}
	if !isTerminal(a.streams.In) {
		return nil, usagef(cmd, "the key's password is neither in %s nor in --password-file, and there is no terminal to ask on", envKeyPassword)
	}
	password, err := a.askPassword(cmd, "Password of the key: ")
	if err != nil || !fresh {
		return []byte(password), err
	}
	again, err := a.askPassword(cmd, "The same again: ")
	if err != nil {
		return nil, err
	}
	if again != password {
		return nil, errors.New("making a key: the two passwords differ")
	}
	return []byte(password), nil
}

// generateKey writes a key pair. Files that are there are left alone.
func (a *app) generateKey(cmd *cobra.Command, o signOptions) error {
	private, public := o.prefix+".key", o.prefix+".pub"
	for _, path := range []string{private, public} {
		if _, err := os.Lstat(path); err == nil {
			return fmt.Errorf("making a key: writing %q: %w", path, fs.ErrExist)
		}
	}
	password, err := a.keyPassword(cmd, o.passwordFile, true)
	if err != nil {
		return err
	}
	pair, err := signature.GenerateKey(password)
	if err != nil {
		return err
	}
	if err := atomicfile.Write(private, pair.Private, 0o600); err != nil {
		return err
	}
	if err := atomicfile.Write(public, pair.Public, 0o644); err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.streams.Out, "%s\n%s\n", private, public)
	return err
}

// keyValues reads KEY=VALUE.
func keyValues(cmd *cobra.Command, flag string, list []string) (map[string]any, error) {
	out := map[string]any{}
	for _, kv := range list {
		k, v, ok := strings.Cut(kv, "=")
		if !ok || k == "" {
			return nil, usagef(cmd, "--%s %q is not KEY=VALUE", flag, kv)
		}
		out[k] = v
	}
	return out, nil
}

// pullSignatures brings what signatures the registry has of an image that was pulled.
func (a *app) pullSignatures(ctx context.Context, cmd *cobra.Command, st *store.Store, ref string, desc ocispec.Descriptor) error {
	client, err := a.openRegistry(cmd, nil)
	if err != nil {
		return err
	}
	defer client.Close()
	_, err = signature.Pull(ctx, client, st, ref, desc)
	return err
}
