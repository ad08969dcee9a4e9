// SPDX-License-Identifier: Apache-2.0

package frontend

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/sealerio/sealer/build/convert"
	"github.com/sealerio/sealer/clusterimage"
)

// applications finds what the Kubefile's applications are by the files that they came to have, and how they are launched.
func (b *builder) applications(ctx context.Context, made *convert.Result, files fs.FS) error {
	for _, found := range made.Apps {
		at := slices.IndexFunc(made.Extension.Applications, func(a clusterimage.Application) bool { return a.Name == found.Name })
		if at < 0 {
			continue
		}
		app := &made.Extension.Applications[at]
		names, err := filesBelow(files, clusterimage.ApplicationDir(found.Name))
		if err != nil {
			return fmt.Errorf("looking at the application %q: %w", found.Name, err)
		}
		app.Type, app.Files = clusterimage.ApplicationType(names, found.First)
		_, err = app.LaunchCommand()
		if !errors.Is(err, clusterimage.ErrNoLaunch) {
			continue
		}
		unknown := &AppTypeError{Word: found.Word, Name: found.Name, Files: names}
		if slices.Contains(made.Extension.Launch.AppNames, found.Name) {
			return convert.At(b.file, found.Line, unknown)
		}
		b.say(ctx, convert.At(b.file, found.Line, unknown).Error())
	}
	if cmd := convert.Command(made.Extension); cmd != nil {
		made.Config.Config.Entrypoint, made.Config.Config.Cmd = nil, cmd
	}
	return nil
}

// filesBelow are the paths of all files below a folder, relative to it; none where it is not there.
func filesBelow(fsys fs.FS, dir string) ([]string, error) {
	var names []string
	err := fs.WalkDir(fsys, dir, func(name string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist) && name == dir:
			return fs.SkipAll
		case err != nil:
			return err
		case !entry.IsDir():
			names = append(names, strings.TrimPrefix(name, dir+"/"))
		}
		return nil
	})
	return names, err
}

// AppTypeError is an application that cannot be launched.
type AppTypeError struct {
	Word, Name string   // of the line, as in APP web
	Files      []string // relative to its folder
}

func (e *AppTypeError) Error() string {
	if len(e.Files) == 0 {
		return fmt.Sprintf("%s %s has no files", e.Word, e.Name)
	}
	const shown = 5
	list := strings.Join(e.Files[:min(shown, len(e.Files))], ", ")
	if len(e.Files) > shown {
		list += ", …"
	}
	return fmt.Sprintf("%s %s: its files are neither all manifests (.yaml, .yml), nor all scripts (.sh), nor a chart (Chart.yaml, values.yaml, templates), so it is not known how to launch it: %s",
		e.Word, e.Name, list)
}

// Hint says what tells sealer.
func (e *AppTypeError) Hint() string {
	return fmt.Sprintf(`say what launches it: APPCMDS %s ["command", …]; the commands begin in its folder`, e.Name)
}
