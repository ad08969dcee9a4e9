// SPDX-License-Identifier: Apache-2.0

package build

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/util/suggest"
	"github.com/moby/patternmatcher"

	"github.com/sealerio/sealer/build/convert"
	"github.com/sealerio/sealer/build/frontend"
	"github.com/sealerio/sealer/kubefile"
)

// explain turns what a solve returned into what the user has to know: our own error where it was ours, else the line of
// the Kubefile that failed, with the innermost reason. own is the error of our build function, err that of the solve.
func explain(ctx context.Context, o Options, in *inputs, own, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if positioned, ok := errors.AsType[*kubefile.PositionError](own); ok {
		return positioned
	}
	for _, one := range []error{own, err} {
		for _, s := range errdefs.Sources(one) {
			if s.Info == nil || s.Info.Filename != in.file.Name || len(s.Ranges) == 0 {
				continue
			}
			line := int(s.Ranges[0].Start.Line)
			if missing := notGiven(o, in, line); missing != nil {
				return convert.At(in.file, line, missing)
			}
			if missing := missingSource(o, in, line); missing != nil {
				return convert.At(in.file, line, missing)
			}
			if failed, ok := errors.AsType[*frontend.DownloadError](one); ok {
				short := *failed
				short.Err = innermost(failed.Err)
				return convert.At(in.file, line, &short)
			}
			return convert.At(in.file, line, innermost(one))
		}
	}
	if own != nil {
		return own
	}
	return err
}

// innermost is the first cause: what stands around it repeats it with the solver's own digests.
func innermost(err error) error {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err
		}
		err = next
	}
}

// MissingSourceError says that COPY or ADD names a file that the build context does not have.
type MissingSourceError struct {
	Source  string // as written
	Near    string // a name beside it that looks like it; "" where there is none
	Ignored bool   // it is there, and the ignore file leaves it out
}

func (e *MissingSourceError) Error() string {
	switch {
	case e.Ignored:
		return fmt.Sprintf("%q is left out of the build context by the ignore file", e.Source)
	case e.Near != "":
		return fmt.Sprintf("%q is not in the build context (did you mean %q?)", e.Source, e.Near)
	}
	return fmt.Sprintf("%q is not in the build context", e.Source)
}

// Hint says where sources are looked for.
func (e *MissingSourceError) Hint() string {
	if e.Ignored {
		return "see .sealerignore, .dockerignore or the ignore file beside the Kubefile"
	}
	return "sources are relative to the folder that is built: the last argument of sealer build"
}

// NotGivenError says that a line needs a secret or an SSH agent that the command line does not give.
type NotGivenError struct{ What, Flag string }

func (e *NotGivenError) Error() string { return "it needs " + e.What + ", and none was given" }

// Hint says how it is given.
func (e *NotGivenError) Hint() string { return "give it with " + e.Flag }

// notGiven looks for what a line cannot do without; nil where it is all there.
func notGiven(o Options, in *inputs, line int) error {
	noAgent := func(id string) error {
		if slices.ContainsFunc(o.SSH, func(s string) bool { have, _, _ := strings.Cut(s, "="); return have == id }) {
			return nil
		}
		return &NotGivenError{What: fmt.Sprintf("the SSH agent %q", id), Flag: "--ssh " + id}
	}
	for _, stage := range in.file.Stages {
		for _, one := range stage.Instructions {
			if r := one.Lines(); line < r.First || line > r.Last {
				continue
			}
			switch one := one.(type) {
			case *kubefile.Add:
				for _, source := range one.Sources {
					if strings.HasPrefix(source, "git@") || strings.HasPrefix(source, "ssh://") {
						return noAgent("default")
					}
				}
			case *kubefile.Run:
				for _, m := range one.Mounts {
					id := cmp.Or(m.CacheID, path.Base(m.Target))
					switch {
					case m.Required && m.Type == instructions.MountTypeSSH:
						if err := noAgent(cmp.Or(m.CacheID, "default")); err != nil {
							return err
						}
					case m.Required && m.Type == instructions.MountTypeSecret &&
						!slices.ContainsFunc(o.Secrets, func(s Secret) bool { return s.ID == id }):
						return &NotGivenError{What: fmt.Sprintf("the secret %q", id), Flag: "--secret id=" + id + ",src=FILE"}
					}
				}
			}
		}
	}
	return nil
}

// missingSource looks for the source that made a COPY fail; nil where it was something else. The solver says it too, but
// among its own words.
func missingSource(o Options, in *inputs, line int) error {
	for _, c := range in.contexts {
		if r := c.Lines(); line >= r.First && line <= r.Last {
			if err := missingOf(o, in, c.Sources); err != nil {
				return err
			}
		}
	}
	for _, app := range in.apps {
		if r := app.Lines(); line < r.First || line > r.Last {
			continue
		}
		var sources []string
		for _, source := range app.Sources {
			if local, ok := kubefile.LocalSource(source); ok {
				sources = append(sources, local)
			}
		}
		if err := missingOf(o, in, sources); err != nil {
			return err
		}
	}
	return nil
}

func missingOf(o Options, in *inputs, sources []string) error {
	for _, source := range sources {
		if strings.ContainsAny(source, "$*?[") || strings.Contains(source, "://") {
			continue
		}
		rel := strings.TrimPrefix(path.Join("/", source), "/")
		if _, err := os.Lstat(filepath.Join(o.ContextDir, rel)); err != nil {
			return &MissingSourceError{Source: source, Near: nearName(o.ContextDir, rel)}
		}
		if ignored, err := patternmatcher.Matches(rel, in.ignore); err == nil && ignored {
			return &MissingSourceError{Source: source, Ignored: true}
		}
	}
	return nil
}

func nearName(dir, rel string) string {
	parent := path.Dir(rel)
	entries, err := os.ReadDir(filepath.Join(dir, parent))
	if err != nil {
		return ""
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	near, ok := suggest.Search(path.Base(rel), names, true)
	if !ok {
		return ""
	}
	return path.Join(parent, near)
}
