// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/sealerio/sealer/signature"
)

type verifyOptions struct {
	keys, annotations []string
	remote            bool
}

func newVerify(a *app) *cobra.Command {
	var o verifyOptions
	var output string
	cmd := &cobra.Command{
		Use:   "verify IMAGE",
		Short: "Check the signatures of an image",
		Long: `verify looks for a signature of the image that was made with the given public key, and
prints the signatures that fit. The digest that is signed covers everything inside the image.
With several keys one that fits is enough. Nothing is asked of any network, except of the
image's registry with --remote.`,
		Example: `  sealer verify --key cosign.pub registry.example.com/team/shop:v1
  sealer verify --key cosign.pub --remote registry.example.com/team/shop:v1`,
		Args: exactArgs("IMAGE"),
	}
	f := cmd.Flags()
	f.StringArrayVar(&o.keys, "key", nil, "public key in PEM, commonly cosign.pub (repeatable)")
	f.StringArrayVarP(&o.annotations, "annotation", "a", nil, "take only signatures with this KEY=VALUE (repeatable)")
	f.BoolVar(&o.remote, "remote", false, "look at what the registry has instead of the local store")
	a.addRegistryFlags(cmd)
	addOutput(cmd, &output)
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		defer a.close(&err)
		if len(o.keys) == 0 {
			return usagef(cmd, "--key is missing")
		}
		found, err := a.verifySignatures(cmd, args[0], o)
		if err != nil {
			return err
		}
		return a.print(cmd, output, found, func(t *table) { writeSignatures(t, found) })
	}
	return cmd
}

func writeSignatures(t *table, found []signature.Signature) {
	t.line("IMAGE", "KEY", "REPOSITORY", "ANNOTATIONS")
	for _, s := range found {
		var annotations []string
		for k, v := range s.Annotations {
			annotations = append(annotations, fmt.Sprintf("%s=%v", k, v))
		}
		slices.Sort(annotations)
		t.line(short(s.Image.String()), s.Key, s.Repository, strings.Join(annotations, ","))
	}
}

func (a *app) verifySignatures(cmd *cobra.Command, name string, o verifyOptions) ([]signature.Signature, error) {
	want, err := keyValues(cmd, "annotation", o.annotations)
	if err != nil {
		return nil, err
	}
	keys, err := readPublicKeys(o.keys)
	if err != nil {
		return nil, err
	}
	desc, source, err := a.signatureSource(cmd, name, o.remote)
	if err != nil {
		return nil, err
	}
	found, err := signature.Verify(cmd.Context(), source, desc, keys)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	fit := slices.DeleteFunc(found, func(s signature.Signature) bool {
		for k, v := range want {
			if fmt.Sprint(s.Annotations[k]) != v {
				return true
			}
		}
		return false
	})
	if len(fit) == 0 {
		return nil, fmt.Errorf("%s: no signature by the given keys has %s", name, strings.Join(o.annotations, " and "))
	}
	return fit, nil
}

func readPublicKeys(files []string) ([]*signature.PublicKey, error) {
	keys := make([]*signature.PublicKey, 0, len(files))
	for _, file := range files {
		data, err := readKeyFile(file)
		if err != nil {
			return nil, err
		}
		key, err := signature.ReadPublicKey(file, data)
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// signatureSource finds an image, and where its signatures are.
func (a *app) signatureSource(cmd *cobra.Command, name string, remote bool) (ocispec.Descriptor, signature.Source, error) {
	if !remote {
		st, err := a.openStore()
		if err != nil {
			return ocispec.Descriptor{}, nil, err
		}
		image, err := st.Resolve(cmd.Context(), name)
		return image.Descriptor, signature.InStore(st), err
	}
	client, err := a.openRegistry(cmd, nil)
	if err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	repo, err := client.Repository(cmd.Context(), name)
	if err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	desc, err := repo.Resolve(cmd.Context(), "")
	return desc, signature.InRegistry(repo), err
}
