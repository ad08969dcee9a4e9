// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"fmt"
	"io"
	"strings"

	"github.com/containerd/platforms"
	"github.com/spf13/cobra"

	"github.com/sealerio/sealer/build"
	"github.com/sealerio/sealer/imagelist"
	"github.com/sealerio/sealer/registry"
)

// discoveryFlags say how images are looked for.
type discoveryFlags struct {
	kubeVersion string
	apiVersions []string
	configMaps  bool
}

func (o *discoveryFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.kubeVersion, "kube-version", "", "version of Kubernetes that charts are rendered for (default: that of the base or of the packed kube-apiserver)")
	f.StringSliceVar(&o.apiVersions, "api-versions", nil, "API versions that charts see in the cluster beside Kubernetes' own, such as monitoring.coreos.com/v1")
	f.BoolVar(&o.configMaps, "config-maps", false, "also pack the images that files in ConfigMaps name")
}

func (o *discoveryFlags) apply(cmd *cobra.Command, out *build.Options) error {
	if o.kubeVersion != "" {
		if err := imagelist.CheckKubeVersion(o.kubeVersion); err != nil {
			return usagef(cmd, "--kube-version: %w", err)
		}
	}
	charts, err := chartsProgram()
	if err != nil {
		return err
	}
	out.KubeVersion, out.APIVersions, out.ConfigMaps, out.Charts = o.kubeVersion, o.apiVersions, o.configMaps, charts
	return nil
}

// wantedImage is one line of 'sealer images list'.
type wantedImage struct {
	Name     string `json:"name"`
	Platform string `json:"platform"`
	// Status is wanted, candidate (packed if it exists), ignored (not packed) or inherited (from the base).
	Status    string          `json:"status"`
	App       string          `json:"app,omitempty"`
	Origins   []imageOrigin   `json:"origins,omitempty"`
	IgnoredBy *ignoringOrigin `json:"ignoredBy,omitempty"`
}

// ignoringOrigin is the pattern of --ignored-image-list that leaves an image out.
type ignoringOrigin struct {
	File    string `json:"file"`
	Line    int    `json:"line"`
	Pattern string `json:"pattern"`
}

type imageOrigin struct {
	File  string `json:"file"`
	Line  int    `json:"line,omitempty"`
	Field string `json:"field,omitempty"`
}

// notice is something that the list does not tell.
type notice struct {
	File    string `json:"file"`
	Line    int    `json:"line,omitempty"`
	Message string `json:"message"`
}

// wantedList is what 'sealer images list' prints.
type wantedList struct {
	Images   []wantedImage `json:"images"`
	Problems []notice      `json:"problems"`
	Unseen   []notice      `json:"unseen"`
}

func newImagesList(a *app) *cobra.Command {
	var o struct {
		kubefile, target     string
		platforms, buildArgs []string
		imageLists           []string
		listsWithAuth        []string
		ignoredLists         []string
		output               string
		discovery            discoveryFlags
	}
	cmd := &cobra.Command{
		Use:   "list [CONTEXT]",
		Short: "List the container images that a build would pack, and why",
		Long: `list looks for images where a build would: in the files that the Kubefile copies from
CONTEXT (the current folder by default), in lists, manifests, charts and kustomizations,
and in the base image, if the store has it. Nothing is built and no registry is asked.

A candidate is a text that reads like an image, such as a variable of a container: a
build packs it if it exists. An image is ignored where a pattern of --ignored-image-list fits
its name; the pattern's file and line stand behind it. What could not be read, and lines whose files only a build
makes, are told on stderr.`,
		Example: `  sealer images list
  sealer images list -f deploy/Kubefile .
  sealer images list -o json . | jq -r '.images[].name'`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef(cmd, "unexpected argument %q", args[1])
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.kubefile, "file", "f", "", "path of the Kubefile (default: CONTEXT/Kubefile)")
	f.StringVar(&o.target, "target", "", "list for this stage of the Kubefile (default: the last)")
	f.StringSliceVar(&o.platforms, "platform", nil, "platforms to list for, such as linux/amd64,linux/arm64 (default: this machine's)")
	f.StringArrayVar(&o.buildArgs, "build-arg", nil, "value of an ARG (NAME=VALUE, or NAME to take it from the environment; repeatable)")
	f.StringArrayVar(&o.imageLists, "image-list", nil, "also list the images that this file names (repeatable)")
	f.StringArrayVar(&o.listsWithAuth, "image-list-with-auth", nil, "also list the images of this YAML list; its users and passwords are not used (repeatable)")
	f.StringArrayVar(&o.ignoredLists, "ignored-image-list", nil, "show images whose names fit a pattern of this file as ignored (repeatable)")
	o.discovery.add(cmd)
	addOutput(cmd, &o.output)
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		defer a.close(&err)
		options := build.Options{Kubefile: o.kubefile, Target: o.target, ImageLists: o.imageLists, IgnoredLists: o.ignoredLists}
		if len(args) > 0 {
			options.ContextDir = args[0]
		}
		if options.Platforms, err = parsePlatforms(cmd, o.platforms); err != nil {
			return err
		}
		if options.BuildArgs, err = parseBuildArgs(cmd, o.buildArgs); err != nil {
			return err
		}
		if err := readListsWithAuth(o.listsWithAuth, &options, &registry.Options{}); err != nil {
			return err
		}
		if err := o.discovery.apply(cmd, &options); err != nil {
			return err
		}
		if options.Store, err = a.openStore(); err != nil {
			return err
		}
		previews, err := build.PreviewImages(cmd.Context(), options)
		if err != nil {
			return err
		}
		list := wanted(previews)
		if o.output == "table" {
			list.tell(a.streams.Err)
		}
		return a.print(cmd, o.output, list, list.write)
	}
	return cmd
}

func wanted(previews []build.Preview) wantedList {
	list := wantedList{Images: []wantedImage{}, Problems: []notice{}, Unseen: []notice{}}
	seen := map[notice]bool{}
	note := func(to *[]notice, n notice) {
		if !seen[n] {
			seen[n] = true
			*to = append(*to, n)
		}
	}
	for _, p := range previews {
		platform := platforms.Format(p.Platform)
		for _, image := range p.Images {
			list.Images = append(list.Images, wantedRow(image, platform))
		}
		for _, image := range p.Ignored {
			row := wantedRow(image.Image, platform)
			row.Status, row.IgnoredBy = "ignored", &ignoringOrigin{image.At.File, image.At.Line, image.Pattern}
			list.Images = append(list.Images, row)
		}
		for _, image := range p.Inherited {
			row := wantedImage{Name: image.Name, Platform: image.Platform, Status: "inherited", App: image.App}
			for _, origin := range image.Origins {
				row.Origins = append(row.Origins, imageOrigin{File: origin})
			}
			list.Images = append(list.Images, row)
		}
		for _, problem := range p.Problems {
			note(&list.Problems, notice{problem.File, problem.Line, problem.Message})
		}
		for _, u := range p.Unseen {
			note(&list.Unseen, notice{u.File, u.Line, u.Message})
		}
	}
	return list
}

func wantedRow(image imagelist.Image, platform string) wantedImage {
	row := wantedImage{Name: cmp.Or(image.Name, image.Source), Platform: cmp.Or(image.Platform, platform), Status: "wanted", App: image.App}
	if image.Candidate {
		row.Status = "candidate"
	}
	for _, o := range image.Origins {
		row.Origins = append(row.Origins, imageOrigin{o.File, o.Line, o.Field})
	}
	return row
}

func (l wantedList) write(t *table) {
	t.line("IMAGE", "PLATFORM", "STATUS", "APP", "FROM")
	for _, image := range l.Images {
		origins := make([]string, len(image.Origins))
		for i, o := range image.Origins {
			origins[i] = imagelist.Origin{File: o.File, Line: o.Line}.String()
			if o.Field != "" && o.Field != "image" {
				origins[i] += " (" + o.Field + ")"
			}
		}
		status := image.Status
		if by := image.IgnoredBy; by != nil {
			status = fmt.Sprintf("%s (%s:%d)", status, by.File, by.Line)
		}
		t.line(image.Name, image.Platform, status, image.App, strings.Join(origins, ", "))
	}
}

// tell says what the list leaves out.
func (l wantedList) tell(w io.Writer) {
	for _, p := range l.Problems {
		_, _ = fmt.Fprintf(w, "problem: %s\n", imagelist.Problem{File: p.File, Line: p.Line, Message: p.Message})
	}
	for _, u := range l.Unseen {
		_, _ = fmt.Fprintf(w, "not seen: %s\n", imagelist.Problem{File: u.File, Line: u.Line, Message: u.Message})
	}
}
