// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sealerio/sealer/inspect"
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
		Use:   "verify [IMAGE...]",
		Short: "Check that images are whole, or that they are signed",
		Long: `verify reads every blob of the images, all of the store where none is named, and compares it with its digest;
each bad blob is shown with the images that need it.

With --key it looks for a signature of the image that was made with that public key instead, and prints those that
fit. The digest that is signed covers everything inside the image. With several keys one that fits is
enough. Nothing is asked of any network, except of the image's registry with --remote.
` + ofArchives,
		Example: `  sealer verify
  sealer verify --remote registry.example.com/team/shop:v1
  sealer verify oci-archive:/media/usb/shop.tar
  sealer verify --key cosign.pub registry.example.com/team/shop:v1`,
		Args: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(o.keys) > 0:
				return exactArgs("IMAGE")(cmd, args)
			case len(o.annotations) > 0:
				return usagef(cmd, "--annotation is about signatures, and --key is missing")
			case o.remote && len(args) == 0:
				return usagef(cmd, "IMAGE is missing: --remote does not check whole registries")
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&o.keys, "key", nil, "public key in PEM, commonly cosign.pub (repeatable)")
	f.StringArrayVarP(&o.annotations, "annotation", "a", nil, "take only signatures with this KEY=VALUE (repeatable)")
	f.BoolVar(&o.remote, "remote", false, "look at what the registry has instead of the local store")
	a.addRegistryFlags(cmd)
	addOutput(cmd, &output)
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		if len(o.keys) == 0 {
			if err := a.openDisplay(cmd); err != nil {
				return err
			}
			defer a.close(&err)
			return a.check(cmd, args, o.remote, output)
		}
		defer a.close(&err)
		found, err := a.verifySignatures(cmd, args[0], o)
		if err != nil {
			return err
		}
		return a.print(cmd, output, found, func(t *table) { writeSignatures(t, found) })
	}
	return cmd
}

// check reads and compares everything.
func (a *app) check(cmd *cobra.Command, names []string, remote bool, output string) error {
	r, err := a.checkAll(cmd, names, remote)
	if err != nil {
		return err
	}
	err = a.print(cmd, output, r, func(t *table) {
		for _, p := range r.Problems {
			t.line("bad: "+p.Digest, p.What, strings.Join(p.Images, ", "))
		}
		t.line(fmt.Sprintf("%d blobs of %d images, %s: %d bad", r.Blobs, r.Images, size(r.Bytes), len(r.Problems)))
	})
	if err == nil && len(r.Problems) > 0 {
		err = &inspect.BrokenError{Problems: len(r.Problems)}
	}
	return err
}

func (a *app) checkAll(cmd *cobra.Command, names []string, remote bool) (_ *inspect.Report, err error) {
	task := a.display.Task("checking")
	counter := task.Track("blobs", 0)
	defer func() {
		counter.Done(err)
		task.Done(err)
	}()
	ctx := cmd.Context()
	if len(names) == 0 {
		st, err := a.openStore()
		if err != nil {
			return nil, err
		}
		return inspect.CheckStore(ctx, st, counter.Advance)
	}
	subjects := make([]*inspect.Subject, 0, len(names))
	for _, name := range names {
		s, err := a.subject(ctx, cmd, name, remote)
		if err != nil {
			return nil, err
		}
		subjects = append(subjects, s)
	}
	return inspect.Check(ctx, subjects, counter.Advance)
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
	subject, err := a.subject(cmd.Context(), cmd, name, o.remote)
	if err != nil {
		return nil, err
	}
	found, err := signature.Verify(cmd.Context(), subject.Signatures, subject.Descriptor, keys)
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
