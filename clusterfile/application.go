// SPDX-License-Identifier: Apache-2.0

package clusterfile

import (
	"slices"
	"strings"
)

// Application changes what an application of the image does.
type Application struct {
	Name string
	Env  map[string]string // over the image's, the cluster's and the host's
	Cmds []string          // replaces what launches it, where there are any
}

// Application finds the changes to an application of the image.
func (f *File) Application(name string) (Application, bool) {
	i := slices.IndexFunc(f.Applications, func(a Application) bool { return a.Name == name })
	if i < 0 {
		return Application{Name: name}, false
	}
	return f.Applications[i], true
}

// applicationDir is where an application's files are, from the root of the rootfs.
func applicationDir(name string) string { return "application/apps/" + name + "/" }

func (s *source) application(f *File, doc *node) {
	spec := doc.child("spec")
	if spec == nil || spec.kind == nullNode {
		s.fail(doc, "the Application has no spec")
		return
	}
	if cmds := spec.child("cmds"); cmds != nil && cmds.kind == listNode && len(cmds.values) > 0 {
		if f.Cmd != nil {
			s.fail(cmds, "the commands are said by the Cluster's cmd, too")
		}
		f.Cmd = spec.texts("cmds")
	}
	if apps := spec.child("launchApps"); apps != nil && apps.kind == listNode {
		if f.Apps != nil {
			s.fail(apps, "the applications are said by the Cluster's appNames, too")
		}
		f.Apps = names(spec.texts("launchApps"))
	}
	configs := spec.child("configs")
	if configs == nil {
		return
	}
	for _, c := range configs.values {
		app := Application{Name: c.text("name"), Env: s.env(c), Cmds: c.at("launch").texts("cmds")}
		if app.Name == "" || strings.ContainsAny(app.Name, "/ ") {
			s.fail(c.at("name"), "%q is not the name of an application", app.Name)
			continue
		}
		if _, twice := f.Application(app.Name); twice {
			s.fail(c.at("name"), "the application %q is there twice", app.Name)
			continue
		}
		f.Applications = append(f.Applications, app)
		if files := c.child("files"); files != nil {
			for _, file := range files.values {
				s.place(f, file, Config{Name: app.Name, App: app.Name, Data: file.text("data"), Strategy: Strategy(file.text("strategy"))})
			}
		}
	}
}

// names leaves out empty ones: sealer's [""] launches nothing.
func names(texts []string) []string {
	return append([]string{}, slices.DeleteFunc(texts, func(name string) bool { return name == "" })...)
}
