// SPDX-License-Identifier: Apache-2.0

package kubefile

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ScopeOptions are what a build knows before it reads the file.
type ScopeOptions struct {
	BuildArgs map[string]string // of --build-arg
	Target    ocispec.Platform  // what is built
	Build     ocispec.Platform  // what builds
}

// Scope holds the variables of a file for one target platform: the platform
// variables, the build arguments and the ARG lines before the first FROM. It
// does not change once it is made.
type Scope struct {
	file       *File
	buildArgs  map[string]string
	predefined *variables
	global     *variables
}

// NewScope evaluates the ARG lines before the first FROM. An error is Errors.
func NewScope(f *File, o ScopeOptions) (*Scope, error) {
	s := &Scope{file: f, buildArgs: o.BuildArgs, predefined: predefine(o), global: &variables{}}
	var errs Errors
	for _, arg := range f.Args {
		for _, v := range arg.Vars {
			value, err := s.argValue(v, s.inFrom)
			switch {
			case err != nil:
				errs = append(errs, f.errorAt(arg.Range.First, v.Name, err))
			case value != nil:
				s.global.set(v.Name, *value)
			default:
				s.global.declare(v.Name)
			}
		}
	}
	if len(errs) > 0 {
		return nil, errs
	}
	return s, nil
}

// predefine returns the variables that need no ARG line:
// https://docs.docker.com/reference/dockerfile/#automatic-platform-args-in-the-global-scope,
// and ARCH, which sealer has always had.
func predefine(o ScopeOptions) *variables {
	target, build := platforms.Normalize(o.Target), platforms.Normalize(o.Build)
	vars := &variables{}
	for _, v := range []KeyValue{
		{"ARCH", target.Architecture},
		{"BUILDARCH", build.Architecture},
		{"BUILDOS", build.OS},
		{"BUILDPLATFORM", platforms.Format(build)},
		{"BUILDVARIANT", build.Variant},
		{"TARGETARCH", target.Architecture},
		{"TARGETOS", target.OS},
		{"TARGETPLATFORM", platforms.Format(target)},
		{"TARGETVARIANT", target.Variant},
	} {
		if given, ok := o.BuildArgs[v.Key]; ok {
			v.Value = given
		}
		vars.set(v.Key, v.Value)
	}
	return vars
}

func predefinedNames() []string { return predefine(ScopeOptions{}).names }

// inFrom is what FROM lines and the ARG lines above them see.
func (s *Scope) inFrom(name string) (string, bool) {
	if value, ok := s.global.get(name); ok {
		return value, true
	}
	return s.predefined.get(name)
}

// argValue is the value of an ARG: from the command line, else its default;
// nil: neither.
func (s *Scope) argValue(v ArgVar, get lookup) (*string, error) {
	if given, ok := s.buildArgs[v.Name]; ok {
		return &given, checkValue(v.Name, given)
	}
	if v.Value == nil {
		return nil, nil
	}
	value, _, err := expandWord(*v.Value, s.file.Directives.Escape, get)
	if err != nil {
		return nil, err
	}
	return &value, checkValue(v.Name, value)
}

// From returns the image of a stage's FROM line and its --platform, "" where
// it has none, both expanded. The image is scratch, the name of an earlier
// stage (File.LookupName), or an image. An error is a *PositionError.
func (s *Scope) From(stage *Stage) (image, platform string, err error) {
	from := stage.From
	fail := func(mark string, err error) (string, string, error) {
		return "", "", s.file.errorAt(from.Range.First, mark, err)
	}
	escape := s.file.Directives.Escape
	image, unset, err := expandWord(from.Image, escape, s.inFrom)
	if err != nil {
		return fail(from.Image, err)
	}
	if err := s.file.checkBase(stage, image); err != nil {
		return fail(from.Image, s.explainUnset(err, unset))
	}
	platform, unset, err = expandWord(from.Platform, escape, s.inFrom)
	if err != nil {
		return fail(from.Platform, err)
	}
	if from.Platform == "" {
		return image, "", nil
	}
	if _, err := platforms.Parse(platform); err != nil {
		err = fmt.Errorf("FROM --platform=%s: %q has not the form os/arch[/variant]", from.Platform, platform)
		return fail(from.Platform, s.explainUnset(err, unset))
	}
	return image, platform, nil
}

// checkBase says what is wrong with what a FROM line names, once expanded.
func (f *File) checkBase(stage *Stage, image string) error {
	if image == "" {
		return fmt.Errorf("FROM %s names no image", stage.From.Image)
	}
	if image == "scratch" {
		return nil
	}
	if _, ok := f.LookupName(image, stage.Index); ok {
		return nil
	}
	if err := checkReference(image); err != nil {
		return fmt.Errorf("FROM: %w", err)
	}
	return nil
}

// explainUnset adds to an error of a FROM line which of its variables have no
// value.
func (s *Scope) explainUnset(err error, unset []string) error {
	if len(unset) == 0 {
		return err
	}
	known := append(slices.Clone(s.global.names), s.predefined.names...)
	near := ""
	if len(unset) == 1 {
		near = didYouMean(unset[0], known)
	}
	return fmt.Errorf("%w; not set above the first FROM: %s%s", err, strings.Join(unset, ", "), near)
}

// UnusedBuildArgs returns the build arguments that no ARG line of the file asks
// for, sorted.
func (s *Scope) UnusedBuildArgs() []string {
	asked := map[string]bool{"SOURCE_DATE_EPOCH": true}
	for _, name := range slices.Concat(s.predefined.names, proxyNames()) {
		asked[name] = true
	}
	for _, arg := range s.file.everyArg() {
		for _, v := range arg.Vars {
			asked[v.Name] = true
		}
	}
	var unused []string
	for _, name := range slices.Sorted(maps.Keys(s.buildArgs)) {
		if !asked[name] && !strings.HasPrefix(name, "BUILDKIT_") {
			unused = append(unused, name)
		}
	}
	return unused
}

func (f *File) everyArg() []*Arg {
	all := slices.Clone(f.Args)
	for _, stage := range f.Stages {
		for _, instruction := range stage.Instructions {
			if arg, ok := instruction.(*Arg); ok {
				all = append(all, arg)
			}
		}
	}
	return all
}

// Proxy returns the build arguments that set proxies. They need no ARG line,
// are meant for RUN alone, and belong neither to the cache key nor to the image:
// https://docs.docker.com/reference/dockerfile/#predefined-args.
func (s *Scope) Proxy() map[string]string {
	proxy := map[string]string{}
	for _, name := range proxyNames() {
		if value, ok := s.buildArgs[name]; ok {
			proxy[name] = value
		}
	}
	return proxy
}

func proxyNames() []string {
	names := []string{"ALL_PROXY", "FTP_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"}
	for _, name := range names {
		names = append(names, strings.ToLower(name))
	}
	return names
}
