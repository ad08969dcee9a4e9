// SPDX-License-Identifier: Apache-2.0

package convert

import (
	"maps"
	"path"
	"slices"

	"github.com/moby/buildkit/client/llb"

	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/kubefile"
)

// App is an application of a Kubefile whose type is not known before its files are there.
type App struct {
	Name  string
	Line  int      // of the APP
	Word  string   // APP, CNI or CSI
	First []string // names of its sources, in their order
}

// app converts APP, CNI and CSI: the sources become the files of a folder of the application's own.
func (c *converter) app(s *stage, i *kubefile.App, name string) error {
	b := &fileBuilder{dest: "/" + clusterimage.ApplicationDir(i.Name) + "/", opts: []llb.CopyOption{withTime{c.o.Epoch}}}
	at := slices.IndexFunc(s.apps, func(a clusterimage.Application) bool { return a.Name == i.Name })
	if at >= 0 { // the files of the base's application of this name go
		b.action = llb.Rm("/"+clusterimage.ApplicationDir(i.Name), llb.WithAllowNotFound(true))
		s.apps = slices.Delete(slices.Clone(s.apps), at, at+1)
		s.found = slices.DeleteFunc(s.found, func(a App) bool { return a.Name == i.Name })
	}
	found := App{Name: i.Name, Line: i.Lines().First, Word: i.Word}
	for _, source := range i.Sources {
		p, isLocal := kubefile.LocalSource(source)
		if isLocal {
			from, info := contents(p, false)
			c.fromContext(from)
			b.copy(c.context, from, info)
			found.First = append(found.First, path.Base(from))
			continue
		}
		st, file, err := c.httpSource(s, source, i.Checksum, i, name)
		if err != nil {
			return err
		}
		b.copy(st, file, &llb.CopyInfo{CreateDestPath: true})
		found.First = append(found.First, file)
	}
	c.layer(s, i, name, b, at < 0)
	s.apps = append(slices.Clone(s.apps), clusterimage.Application{Name: i.Name})
	s.found = append(s.found, found)
	switch i.Word {
	case "CNI":
		s.labels[clusterimage.LabelCNI(i.Name)] = "true"
	case "CSI":
		s.labels[clusterimage.LabelCSI(i.Name)] = "true"
	}
	return nil
}

// changeApp converts APPCMDS and APPENV, of an application of this Kubefile or of the base.
func (s *stage) changeApp(i kubefile.Instruction) error {
	if err := kubefile.CheckNames(i, s.appNames()); err != nil {
		return err
	}
	s.apps = slices.Clone(s.apps) // the base's stay as they are
	for n := range s.apps {
		app := &s.apps[n]
		switch i := i.(type) {
		case *kubefile.AppCmds:
			if app.Name == i.Name {
				app.Cmds = i.Cmds
			}
		case *kubefile.AppEnv:
			if app.Name == i.Name {
				app.Env = withVars(app.Env, i.Vars)
			}
		}
	}
	return nil
}

func withVars(env map[string]string, vars []kubefile.KeyValue) map[string]string {
	all := map[string]string{}
	maps.Copy(all, env)
	for _, v := range vars {
		all[v.Key] = v.Value
	}
	return all
}
