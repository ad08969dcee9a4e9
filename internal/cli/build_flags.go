// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealerio/sealer/build"
	"github.com/sealerio/sealer/build/engine"
	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/internal/version"
)

// buildFlags are the flags of build, as they were typed.
type buildFlags struct {
	kubefile, target     string
	tags                 []string
	platforms, buildArgs []string
	imageLists           []string
	discovery            discoveryFlags
	listsWithAuth        []string
	ignoredLists         []string
	lock, locked         bool
	mode, kind           string
	labels, annotations  []string

	builder, builderCerts string
	toolbox, isolation    string
	compression           string
	noCache, check        bool
	pull                  string
	cacheFrom, cacheTo    []string
	secrets, ssh          []string

	provenance            string
	sbom                  bool
	policy                string
	outputs               []string
	push                  bool
	iidFile, metadataFile string
}

// add declares the flags.
func (o *buildFlags) add(cmd *cobra.Command) {
	o.addInputs(cmd)
	f := cmd.Flags()
	f.StringArrayVarP(&o.tags, "tag", "t", nil, "name of the image, such as registry.example.com/team/shop:v1 (required; repeatable)")
	f.StringVar(&o.mode, "build-mode", string(build.All), "what is packed: all, or lite for no container images")
	f.StringVar(&o.kind, "type", "", "what the image is: kube-installer or app-installer (default: what its files say)")
	f.StringArrayVar(&o.labels, "label", nil, "label of the image, over LABEL lines (KEY=VALUE; repeatable)")
	f.StringArrayVar(&o.annotations, "annotation", nil,
		"annotation of the image index; 'manifest:KEY=VALUE' and 'manifest[PLATFORM]:KEY=VALUE' are of the rootfs (KEY=VALUE; repeatable)")

	f.BoolVar(&o.check, "check", false, "build nothing: look for mistakes, as sealer lint does")
	f.StringVar(&o.pull, "pull", string(build.Missing), "when registries are asked for images of FROM: missing, always, never")
	f.Lookup("pull").NoOptDefVal = string(build.Always)
	f.StringArrayVar(&o.cacheFrom, "cache-from", nil, "read layers from: type=registry,ref=NAME or type=local,src=DIR (repeatable)")
	f.StringArrayVar(&o.cacheTo, "cache-to", nil, "write layers to: type=registry,ref=NAME, type=local,dest=DIR or type=inline; mode=max for all steps (repeatable)")

	f.StringVar(&o.provenance, "provenance", string(build.Min), "what the image says of its making: min, max, false, or mode=max,builder-id=URI")
	f.StringVar(&o.policy, "policy", "", "file that says which images may go in: registries, names, signatures, licences")
	f.BoolVar(&o.sbom, "sbom", false, "add a bill of materials (SPDX) of the rootfs and of the packed images")
	f.StringArrayVarP(&o.outputs, "output", "o", nil,
		"also write: type=oci,dest=FILE the whole image, type=local,dest=FOLDER or type=tar,dest=FILE the rootfs' files; - is standard output (repeatable)")
	f.BoolVar(&o.lock, "lock", false, "write imageList.lock beside the Kubefile: what every image's name stands for")
	f.BoolVar(&o.locked, "locked", false, "take what every image's name stands for from imageList.lock, and ask no registry for it")
	f.BoolVar(&o.push, "push", false, "push the image under all its names (short for --output type=registry)")
	f.StringVar(&o.iidFile, "iidfile", "", "write the image's digest to this file")
	f.StringVar(&o.metadataFile, "metadata-file", "", "write what was built, as JSON, to this file")

	mustComplete(cmd, "build-mode", []string{string(build.All), string(build.Lite)})
	mustComplete(cmd, "type", []string{clusterimage.KubeInstaller, clusterimage.AppInstaller})
	mustComplete(cmd, "provenance", []string{string(build.Min), string(build.Max), "false"})
	mustComplete(cmd, "pull", []string{string(build.Missing), string(build.Always), string(build.Never)})
}

// options checks the flags, and gives them their meaning.
func (o buildFlags) options(cmd *cobra.Command, contextDir string) (build.Options, error) {
	out := build.Options{
		ContextDir:   contextDir,
		Kubefile:     o.kubefile,
		Target:       o.target,
		Tag:          o.tags[0],
		Tags:         o.tags[1:],
		ImageLists:   o.imageLists,
		IgnoredLists: o.ignoredLists,
		Lock:         o.lock,
		Locked:       o.locked,
		Builder:      o.builder,
		BuilderCerts: o.builderCerts,
		Toolbox:      o.toolbox,
		Isolation:    o.isolation,
		NoCache:      o.noCache,
		SSH:          o.ssh,
		SBOM:         o.sbom,
		Version:      version.Version(),
	}
	var err error
	if out.Platforms, err = parsePlatforms(cmd, o.platforms); err != nil {
		return out, err
	}
	if out.BuildArgs, err = parseBuildArgs(cmd, o.buildArgs); err != nil {
		return out, err
	}
	if out.Labels, err = parseLabels(cmd, o.labels); err != nil {
		return out, err
	}
	if out.Epoch, err = sourceDateEpoch(); err != nil {
		return out, err
	}
	for _, step := range []func(*cobra.Command, *build.Options) error{o.kinds, o.lists, o.discovery.apply} {
		if err := step(cmd, &out); err != nil {
			return out, err
		}
	}
	if o.policy != "" {
		if out.Policy, err = build.ReadPolicy(o.policy); err != nil {
			return out, err
		}
	}
	if err := build.CheckBuilder(o.builder, o.builderCerts); err != nil {
		return out, usagef(cmd, "--builder: %w", err)
	}
	return out, nil
}

// kinds reads the flags that have a few known values.
func (o buildFlags) kinds(cmd *cobra.Command, out *build.Options) (err error) {
	if _, err = engine.ParseIsolation(o.isolation); err != nil {
		return usagef(cmd, "--isolation: %w", err)
	}
	if out.Compression, err = build.ParseCompression(o.compression); err != nil {
		return usagef(cmd, "--compression: %w", err)
	}
	if out.Mode, err = build.ParseMode(o.mode); err != nil {
		return usagef(cmd, "--build-mode: %w", err)
	}
	if out.Type, err = build.ParseType(o.kind); err != nil {
		return usagef(cmd, "--type: %w", err)
	}
	if out.Pull, err = build.ParsePull(o.pull); err != nil {
		return usagef(cmd, "--pull: %w", err)
	}
	if out.Provenance, err = build.ParseProvenance(o.provenance); err != nil {
		return usagef(cmd, "--provenance: %w", err)
	}
	return nil
}

// lists reads the flags that are repeated, each with a syntax of its own.
func (o buildFlags) lists(cmd *cobra.Command, out *build.Options) (err error) {
	if out.Annotations, err = parseEach(cmd, "--annotation", o.annotations, build.ParseAnnotation); err != nil {
		return err
	}
	if out.CacheFrom, err = parseEach(cmd, "--cache-from", o.cacheFrom, build.ParseCache); err != nil {
		return err
	}
	if out.CacheTo, err = parseEach(cmd, "--cache-to", o.cacheTo, build.ParseCache); err != nil {
		return err
	}
	out.Secrets, err = parseEach(cmd, "--secret", o.secrets, build.ParseSecret)
	return err
}

func parseEach[T any](cmd *cobra.Command, flag string, values []string, parse func(string) (T, error)) ([]T, error) {
	var out []T
	for _, v := range values {
		one, err := parse(v)
		if err != nil {
			return nil, usagef(cmd, "%s: %w", flag, err)
		}
		out = append(out, one)
	}
	return out, nil
}

func parseLabels(cmd *cobra.Command, labels []string) (map[string]string, error) {
	out := map[string]string{}
	for _, l := range labels {
		key, value, _ := strings.Cut(l, "=")
		if key == "" {
			return nil, usagef(cmd, "--label %q is not KEY=VALUE", l)
		}
		out[key] = value
	}
	return out, nil
}

func parseBuildArgs(cmd *cobra.Command, args []string) (map[string]string, error) {
	values := map[string]string{}
	for _, arg := range args {
		name, value, ok := strings.Cut(arg, "=")
		if name == "" {
			return nil, usagef(cmd, "--build-arg %q has no name", arg)
		}
		if !ok {
			if value, ok = os.LookupEnv(name); !ok {
				return nil, usagef(cmd, "--build-arg %s: it has no value here, nor in the environment", name)
			}
		}
		values[name] = value
	}
	return values, nil
}

// sourceDateEpoch reads SOURCE_DATE_EPOCH (https://reproducible-builds.org/specs/source-date-epoch/);
// nil where it is not set.
func sourceDateEpoch() (*time.Time, error) {
	text := os.Getenv("SOURCE_DATE_EPOCH")
	if text == "" {
		return nil, nil //nolint:nilnil // not set is an answer
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil || seconds < 0 {
		return nil, fmt.Errorf("reading SOURCE_DATE_EPOCH: %q is not a number of seconds since 1970", text)
	}
	t := time.Unix(seconds, 0).UTC()
	return &t, nil
}
