// SPDX-License-Identifier: Apache-2.0

package clusterfile

import (
	"regexp"
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

// ApplicationImage is an application image that is to run on the cluster, beside what the cluster's own image brings.
type ApplicationImage struct {
	Name         string            // of the application on the cluster
	Image        string            // reference
	Env          map[string]string `json:",omitempty"` // over the image's and the cluster's
	Cmd          []string          `json:",omitempty"` // as File's, of this image
	Apps         []string
	Applications []Application `json:",omitempty"`
	Configs      []Config      `json:",omitempty"` // files for the folders of its applications
}

// Settings are what is said of the image's applications, as a Clusterfile of this image's would say it.
func (a ApplicationImage) Settings() *File {
	return &File{Env: a.Env, Cmd: a.Cmd, Apps: a.Apps, Applications: a.Applications, Configs: a.Configs}
}

// ApplicationImage finds what is said of an application image, by its application's name.
func (f *File) ApplicationImage(name string) (ApplicationImage, bool) {
	i := slices.IndexFunc(f.ApplicationImages, func(a ApplicationImage) bool { return a.Name == name })
	if i < 0 {
		return ApplicationImage{Name: name}, false
	}
	return f.ApplicationImages[i], true
}

// applicationRule: the name is part of names in the cluster, behind a prefix of sealer's.
var applicationRule = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,51}[a-z0-9])?$`)

// IsApplicationName tells whether the application of an image may be called so: small letters, digits and dashes, 53 at most.
func IsApplicationName(name string) bool { return applicationRule.MatchString(name) }

// applicationDir is where an application's files are, from the root of the rootfs.
func applicationDir(name string) string { return "application/apps/" + name + "/" }

func (s *source) application(f *File, doc *node) {
	spec := doc.child("spec")
	if spec == nil {
		return
	}
	image := spec.text("image")
	if image == "" {
		if env := spec.child("env"); env != nil && env.kind != nullNode {
			s.fail(env, "env is for an Application with an image of its own: write the variables into those of configs, or into the Cluster's env")
		}
		s.settings(f, spec)
		return
	}
	a := ApplicationImage{Name: doc.text("metadata", "name"), Image: image, Env: s.environment(spec)}
	switch _, twice := f.ApplicationImage(a.Name); {
	case !IsApplicationName(a.Name):
		s.fail(doc.at("metadata", "name"), "%q is no name for an application: small letters, digits and dashes, 53 at most", a.Name)
	case twice:
		s.fail(doc.at("metadata", "name"), "the application %q is there twice", a.Name)
	}
	if strings.ContainsAny(image, " \t") {
		s.fail(spec.at("image"), "%q is not the name of an image", image)
	}
	own := &File{}
	s.settings(own, spec)
	a.Cmd, a.Apps, a.Applications, a.Configs = own.Cmd, own.Apps, own.Applications, own.Configs
	f.ApplicationImages = append(f.ApplicationImages, a)
}

// settings reads what is said of the applications of an image.
func (s *source) settings(f *File, spec *node) {
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
	for _, c := range spec.list("configs") {
		app := Application{Name: c.text("name"), Env: s.environment(c), Cmds: c.at("launch").texts("cmds")}
		if strings.ContainsAny(app.Name, "/ ") {
			s.fail(c.at("name"), "%q is not the name of an application", app.Name)
		} else if _, twice := f.Application(app.Name); twice && app.Name != "" {
			s.fail(c.at("name"), "the application %q is there twice", app.Name)
		}
		f.Applications = append(f.Applications, app)
		for _, file := range c.list("files") {
			s.place(f, file, Config{Name: app.Name, App: app.Name, Data: file.text("data"), Strategy: Strategy(file.text("strategy"))})
		}
	}
}

// names leaves out empty ones: sealer's [""] launches nothing.
func names(texts []string) []string {
	return append([]string{}, slices.DeleteFunc(texts, func(name string) bool { return name == "" })...)
}
