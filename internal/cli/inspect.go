// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"text/template"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/inspect"
	"github.com/sealerio/sealer/ship"
	"github.com/sealerio/sealer/store"
)

// ofArchives is what commands that take archives say of them.
const ofArchives = `
IMAGE may be in an archive that 'sealer save' or another tool has written, and that is looked at where it lies:
oci-archive:FILE, or oci-archive:FILE:NAME where it has several. Of a split one, FILE is the name that was given to save.`

// subject finds an image to look at, in the store, in its registry, or in an archive.
func (a *app) subject(ctx context.Context, cmd *cobra.Command, name string, remote bool) (*inspect.Subject, error) {
	if file, ok := strings.CutPrefix(name, "oci-archive:"); ok {
		if remote {
			return nil, usagef(cmd, "%s is not in a registry", name)
		}
		return a.inArchive(file)
	}
	if remote {
		client, err := a.openRegistry(cmd, nil)
		if err != nil {
			return nil, err
		}
		return inspect.InRegistry(ctx, client, name)
	}
	st, err := a.openStore()
	if err != nil {
		return nil, err
	}
	t, err := st.Resolve(ctx, name)
	if errdefs.IsNotFound(err) || err != nil && isFile(name) {
		return nil, &notHereError{name: name, err: err}
	}
	if err != nil {
		return nil, err
	}
	return inspect.InStore(st, t), nil
}

// inArchive finds an image in an archive: FILE or FILE:NAME. a.close closes it.
func (a *app) inArchive(file string) (*inspect.Subject, error) {
	st, err := a.openStore()
	if err != nil {
		return nil, err
	}
	path, name, ok := strings.Cut(file, ":")
	if _, err := os.Stat(file); ok && err == nil {
		path, name = file, "" // the colon is the file's
	}
	archive, err := ship.OpenArchive(path, st.Content())
	if err != nil {
		return nil, err
	}
	a.closers = append(a.closers, archive)
	return inspect.InArchive(archive, name)
}

// notHereError is a name that a registry may have, or that is a file's.
type notHereError struct {
	name string
	err  error
}

func (e *notHereError) Error() string { return e.err.Error() }
func (e *notHereError) Unwrap() error { return e.err }
func (e *notHereError) Hint() string {
	if isFile(e.name) {
		return "there is a file of this name: oci-archive:" + e.name + " looks into it"
	}
	return "--remote looks in the registry"
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

func newInspect(a *app) *cobra.Command {
	var output, format string
	var remote bool
	cmd := &cobra.Command{
		Use:   "inspect IMAGE",
		Short: "Show what an image holds",
		Long: `inspect shows what a ClusterImage says of itself: platforms, runtime, applications, what is launched, the
environment, its base, the container images inside with the place that asked for each, attestations and
signatures (which 'sealer verify' checks); of an ordinary image, its platforms and their configs. With --remote the image stays in its registry, and only its
documents are fetched. --format is a Go template over the fields that -o json shows, with their names in Go's
spelling (.Images, .Rootfs); the function json prints a part as JSON.
` + ofArchives,
		Example: `  sealer inspect shop:v1
  sealer inspect oci-archive:shop.tar
  sealer inspect shop:v1 -o json | jq '.images[].name'
  sealer inspect --remote registry.example.com/team/shop:v1 --format '{{range .Images}}{{.Name}}{{"\n"}}{{end}}'`,
		Args: exactArgs("IMAGE"),
	}
	cmd.Flags().StringVarP(&format, "format", "f", "", "print through this Go template")
	cmd.Flags().BoolVar(&remote, "remote", false, "look at what the registry has instead of the local store")
	a.addRegistryFlags(cmd)
	addOutput(cmd, &output)
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		defer a.close(&err)
		show, err := parseFormat(cmd, format)
		if err != nil {
			return err
		}
		s, err := a.subject(cmd.Context(), cmd, args[0], remote)
		if err != nil {
			return err
		}
		d, err := inspect.Describe(cmd.Context(), s)
		if err != nil {
			return err
		}
		if show != nil {
			if err := show.Execute(a.streams.Out, d); err != nil {
				return fmt.Errorf("printing through --format: %w", err)
			}
			_, err = fmt.Fprintln(a.streams.Out)
			return err
		}
		return a.print(cmd, output, d, func(t *table) { writeDescription(t, d) })
	}
	return cmd
}

func parseFormat(cmd *cobra.Command, format string) (*template.Template, error) {
	if format == "" {
		return nil, nil //nolint:nilnil // none was asked for
	}
	t, err := template.New("format").Funcs(template.FuncMap{"json": func(v any) (string, error) {
		text, err := json.Marshal(v)
		return string(text), err
	}}).Parse(format)
	if err != nil {
		return nil, usagef(cmd, "--format: %w", err)
	}
	return t, nil
}

func writeDescription(t *table, d *inspect.Description) {
	t.line("Name:", d.Name)
	t.line("Digest:", d.Digest)
	t.line("Kind:", d.Kind)
	t.line("Size:", size(d.Size))
	writePairs(t, "Annotation:", d.Annotations)
	for _, r := range d.Rootfs {
		writeRootfs(t, r, d.Kind == inspect.KindImage)
	}
	for _, at := range d.Attested {
		t.line("Attestation:", short(at.Digest)+"  "+strings.Join(at.Predicates, ", "))
	}
	for _, s := range d.Signatures {
		t.line("Signature:", "by "+s.Repository+", not verified")
	}
	if len(d.Images) == 0 {
		return
	}
	t.line()
	t.line("IMAGE", "PLATFORM", "DIGEST", "SIZE", "FROM")
	for _, image := range d.Images {
		t.line(image.Name, image.Platform, short(image.Digest), size(image.Size), strings.Join(image.Origins, ", "))
	}
}

func writeRootfs(t *table, r inspect.Rootfs, plain bool) {
	title := "Rootfs:"
	if plain {
		title = "Platform:"
	}
	if r.Absent {
		t.line(title, r.Platform+"  "+r.Digest+"  (not here)")
		return
	}
	t.line(title, r.Platform+"  "+r.Digest)
	if !plain {
		t.line("  Runtime:", strings.TrimSpace(r.Labels[clusterimage.LabelClusterRuntime]+" "+r.Labels[clusterimage.LabelClusterRuntimeVersion]))
		t.line("  Type:", r.Extension.Type)
	}
	t.line("  Size:", fmt.Sprintf("%s in %d layers", size(r.Size), len(r.Layers)))
	writePairs(t, "  Annotation:", r.Annotations)
	if plain {
		writeProcess(t, r.Config.Config)
	}
	if b := r.Extension.Base; b != nil {
		t.line("  Base:", b.Name+"  "+short(b.Digest))
	}
	for _, app := range r.Extension.Applications {
		t.line("  Application:", strings.TrimSpace(app.Name+"  "+app.Type+"  "+app.Version))
	}
	if names := r.Extension.Launch.AppNames; len(names) > 0 {
		t.line("  Launch:", strings.Join(names, ", "))
	}
	for _, c := range r.Extension.Launch.Cmds {
		t.line("  Command:", c)
	}
	writePairs(t, "  Env:", r.Extension.Env)
}

// writeProcess prints what a container of the image runs.
func writeProcess(t *table, c ocispec.ImageConfig) {
	if words := slices.Concat(c.Entrypoint, c.Cmd); len(words) > 0 {
		t.line("  Command:", strings.Join(words, " "))
	}
	if c.User != "" {
		t.line("  User:", c.User)
	}
	for _, kv := range c.Env {
		t.line("  Env:", kv)
	}
}

func writePairs(t *table, title string, pairs map[string]string) {
	for _, k := range slices.Sorted(maps.Keys(pairs)) {
		t.line(title, k+"="+pairs[k])
	}
}

func newTree(a *app) *cobra.Command {
	var output string
	var remote, layers bool
	cmd := &cobra.Command{
		Use:   "tree IMAGE",
		Short: "Show what is inside an image, with sizes, and what is shared",
		Long: `tree shows the rootfs and the container images inside a ClusterImage. OWN is what would go with an image: what
nothing else inside has. With --layers, each layer and who else has it. Other images of the local store
that have blobs in common are listed too.
` + ofArchives,
		Example: `  sealer tree shop:v1
  sealer tree shop:v1 --layers
  sealer tree --remote registry.example.com/team/shop:v1 -o json`,
		Args: exactArgs("IMAGE"),
	}
	cmd.Flags().BoolVar(&layers, "layers", false, "show layers, too (-o json always has them)")
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
		others, err := a.allSubjects(ctx)
		if err != nil {
			return err
		}
		tree, err := inspect.MakeTree(ctx, s, others)
		if err != nil {
			return err
		}
		return a.print(cmd, output, tree, func(t *table) { writeTree(t, tree, layers) })
	}
	return cmd
}

// allSubjects are the images of the store, without signatures.
func (a *app) allSubjects(ctx context.Context) ([]*inspect.Subject, error) {
	st, err := a.openStore()
	if err != nil {
		return nil, err
	}
	tags, err := st.List(ctx)
	if err != nil {
		return nil, err
	}
	var out []*inspect.Subject
	for _, t := range tags {
		if _, ok := store.Signed(t.Name); !ok {
			out = append(out, inspect.InStore(st, t))
		}
	}
	return out, nil
}

func writeTree(t *table, tree *inspect.Tree, layers bool) {
	t.line(tree.Name, short(tree.Digest), size(tree.Size), "", fmt.Sprintf("%d blobs", tree.Blobs))
	t.line()
	t.line("INSIDE", "DIGEST", "SIZE", "OWN", "SHARED WITH")
	for _, n := range slices.Concat(tree.Rootfs, tree.Images) {
		name := n.Name
		if !strings.HasPrefix(name, "rootfs ") {
			name += "  " + n.Platform
		}
		t.line(name, short(n.Digest), size(n.Size), size(n.Own), "")
		for _, l := range n.Layers {
			if layers {
				t.line("  layer", short(l.Digest), size(l.Size), "", strings.Join(l.SharedWith, ", "))
			}
		}
	}
	for _, o := range tree.Others {
		t.line("also in "+o.Name, "", size(o.Size), "", fmt.Sprintf("%d blobs", o.Blobs))
	}
}
