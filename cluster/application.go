// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"

	"github.com/sealerio/sealer/cluster/application"
	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/runtime"
)

// ApplicationOptions say which application image is run on which cluster, and how. Image, ImageName and Content are the
// application's; Clusterfile has the cluster's name and hosts, as ClusterfilePath has it after a run: all else of the
// cluster is asked of it. ReadyTimeout is how long each part of the application may take to become ready.
type ApplicationOptions struct {
	RunOptions
	// Name of the application. Default ApplicationName(ImageName).
	Name string
	// Settings go over what the image says, and over what was said before: Env, Applications with their files, Cmd, Apps. nil: nothing.
	Settings *clusterfile.File
	// Upgrade makes an application that is there one of this image; without it another image's is an error.
	Upgrade bool

	// declared: a Clusterfile names it. Settings are all that is said then, and it is there or not, of this image or of another.
	declared bool
	gone     application.Notes // is there no more: all is launched once again
}

// ApplicationName is what an application is called where nobody says so: the last part of its image's name, "shop" of
// registry.example.com/team/shop:v1.
func ApplicationName(image string) string {
	name := image
	if ref, err := reference.ParseNormalizedNamed(image); err == nil {
		name = reference.Path(ref)
	}
	return strings.Trim(strings.NewReplacer("_", "-", ".", "-").Replace(path.Base(name)), "-")
}

// IsApplication tells whether an image is one of applications alone, which runs on a cluster that is there.
func IsApplication(image *clusterimage.Image) bool {
	for _, r := range image.Rootfs {
		if !r.Absent {
			return r.Extension.Type == clusterimage.AppInstaller
		}
	}
	return false
}

// RunApplication runs an application image on a cluster: the control planes get what they lack of it, serve what it
// packs, and one of them launches it, part by part, each waited for. What it has made is kept in the cluster.
// Where it was cut, the same call goes on; where it is complete, nothing is changed.
func RunApplication(ctx context.Context, o ApplicationOptions) (err error) {
	o.RunOptions = o.withDefaults()
	if err := o.validate(); err != nil {
		return fmt.Errorf("running an application: %w", err)
	}
	if !IsApplication(o.Image) {
		return &NoApplicationError{Image: o.ImageName}
	}
	if o.Name == "" {
		o.Name = ApplicationName(o.ImageName)
	}
	if !clusterfile.IsApplicationName(o.Name) {
		return &ApplicationNameError{Name: o.Name}
	}
	kept, err := openFolder(o.StateDir, o.Clusterfile.Name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, kept.close()) }()
	return o.carryOut(ctx, kept)
}

// carryOut runs the application in a folder that is open.
func (o ApplicationOptions) carryOut(ctx context.Context, kept *folder) (err error) {
	a := &appRun{run: &run{RunOptions: o.RunOptions}, name: o.Name, how: o, kept: kept}
	done, err := a.reach(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	if err := a.describe(ctx); err != nil {
		return err
	}
	if err := a.look(ctx); err != nil {
		return err
	}
	p, err := a.plan()
	if err != nil {
		return err
	}
	if o.DryRun {
		_, err := io.WriteString(o.Out, p.String())
		return err
	}
	ctx, release, err := a.hold(ctx)
	if err != nil {
		return err
	}
	defer release()
	if err := a.look(ctx); err != nil { // another operator may have been there
		return err
	}
	if p, err = a.plan(); err != nil {
		return err
	}
	if err := a.executor.execute(ctx, p); err != nil {
		return a.failed(err)
	}
	return a.report()
}

// appRun is an application image's way onto a cluster, or off it.
type appRun struct {
	*run
	name     string
	how      ApplicationOptions
	kept     *folder
	executor *executor
	records  []*application.Record
	record   *application.Record // as it is to be; kept when something is launched
	fresh    bool                // there is no record in the cluster yet
	unkept   bool                // the record in the cluster says otherwise of settings, or whose it is
	sending  int64               // bytes
}

// reach connects to the cluster, and recalls what it was made from. The function that it returns leaves the hosts.
func (a *appRun) reach(ctx context.Context) (_ func() error, err error) {
	name := a.Clusterfile.Name
	var lost []error
	c, done, err := connect(ctx, a.Clusterfile, a.Dial, a.Distributions.Marks(), a.Display, func(m clusterfile.Host, err error) {
		lost = append(lost, err)
		a.lost = append(a.lost, &runtime.Host{Spec: m, Lost: err})
	})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, done())
		}
	}()
	a.cluster = c
	if len(c.Hosts) == 0 {
		return nil, &ConnectError{Errs: lost}
	}
	there := false
	for _, h := range c.Hosts {
		switch s := h.Facts.State; {
		case s == nil:
		case s.Cluster != name:
			return nil, &MisnamedError{Host: h.String(), Cluster: s.Cluster, Named: name}
		default:
			there = true
		}
	}
	if !there {
		return nil, &BareError{Image: a.ImageName, Cluster: name}
	}
	// Hosts that were named and never joined are none of the cluster's.
	c.Hosts = slices.DeleteFunc(c.Hosts, func(h *runtime.Host) bool { return h.Facts.State == nil })
	if err := a.recallFile(ctx); err != nil {
		return nil, err
	}
	contact, err := a.recallContact(ctx)
	if err != nil {
		return nil, err
	}
	c.Contact = contact
	return done, nil
}

// settle makes of what was said before and what is said now the Clusterfile of this run.
func (a *appRun) settle(before application.Settings) {
	said := before.File()
	switch {
	case a.how.declared:
		said = a.how.Settings
	case a.how.Settings != nil:
		said = a.how.Settings.Over(said)
	}
	file := *a.cluster.File
	file.Env = maps.Clone(file.Env)
	if file.Env == nil {
		file.Env = map[string]string{}
	}
	maps.Copy(file.Env, said.Env)
	settings := application.SettingsOf(said)
	file.Apps, file.Cmd, file.Applications, file.Configs, file.Plugins = said.Apps, said.Cmd, said.Applications, settings.Configs, nil
	a.Clusterfile, a.cluster.File = &file, &file
	a.record.Settings = settings
}

// describe tells the cluster what the application's image holds.
func (a *appRun) describe(ctx context.Context) error {
	c, state := a.cluster, a.cluster.Contact.Facts.State
	describe(c, a.RunOptions)
	if err := describeOlder(ctx, c, a.RunOptions); err != nil {
		return err
	}
	c.Metadata = clusterimage.Metadata{ClusterRuntime: state.Runtime, KubeVersion: state.KubeVersion}
	return checkPlatforms(a.Image, a.ImageName, c.Hosts)
}

// checkPlatforms finds the hosts that an application's image is not for.
func checkPlatforms(image *clusterimage.Image, name string, hosts []*runtime.Host) error {
	var problems []runtime.Problem
	for _, h := range hosts {
		r, err := image.Platform(platformOf(h))
		if err == nil && r.Absent {
			err = errors.New("the local store has another platform of it only")
		}
		if err != nil {
			problems = append(problems, runtime.Problem{
				Host: h.String(), Check: "platform", What: fmt.Sprintf("the image %q cannot run here: %v", name, err),
				Fix: "build the application for this platform as well, with --platform",
			})
		}
	}
	if len(problems) > 0 {
		return &runtime.PreflightError{Problems: problems}
	}
	return nil
}

// look reads how far the application is, and whether what is asked for can be.
func (a *appRun) look(ctx context.Context) (err error) {
	contact, err := a.recallContact(ctx)
	if err != nil {
		return err
	}
	a.cluster.Contact = contact
	if a.records, err = a.inventory().Records(ctx); err != nil {
		return err
	}
	have := a.find(a.name)
	if have == nil && a.how.Upgrade && !a.how.declared {
		return a.unknown(a.name)
	}
	a.record, a.fresh = &application.Record{Name: a.name}, have == nil
	if have != nil {
		copied := *have
		a.record = &copied
		switch {
		case have.Deleting:
			return &ApplicationStateError{Name: a.name, Why: "is being deleted", Fix: "end that first: sealer app delete " + a.name}
		case have.Digest != a.cluster.Digest && !a.how.Upgrade && !a.how.declared:
			return &ApplicationStateError{
				Name: a.name, Why: fmt.Sprintf("is there already, of the image %q (%s)", have.Image, have.Digest),
				Fix: "sealer app upgrade " + a.name + " " + a.ImageName + ", or another name for this one: --as NAME",
			}
		case have.Digest != a.cluster.Digest:
			// After an upgrade that failed, what was well last is what one goes back to.
			if have.Complete() {
				a.record.Former = &application.Version{Image: have.Image, Digest: have.Digest}
			}
			if f := a.record.Former; f != nil && f.Digest == a.cluster.Digest {
				a.record.Former = nil
			}
			a.record.Done, a.record.Applications, a.record.Ended = nil, nil, time.Time{}
		}
	}
	if g := a.how.gone; len(g.Objects)+len(g.Releases) > 0 {
		a.record.Done = nil
		a.record.Drop(g)
	}
	a.settle(a.record.Settings)
	a.record.Image, a.record.Digest = a.ImageName, a.cluster.Digest
	a.record.Declared = a.record.Declared || a.how.declared
	a.unkept = have != nil && (have.Declared != a.record.Declared || !same(have.Settings, a.record.Settings))
	if err := a.checkLaunch(); err != nil {
		return err
	}
	if parts := a.parts(); a.how.declared || a.how.Upgrade {
		a.record.Applications = slices.DeleteFunc(slices.Clone(a.record.Applications), func(app string) bool {
			return !slices.Contains(parts, application.Maker(app, ""))
		})
	}
	if err := a.readOriginals(ctx); err != nil {
		return err
	}
	return a.measure(ctx)
}

// checkLaunch looks for what makes the launch impossible.
func (a *appRun) checkLaunch() error {
	rootfs, err := a.Image.Platform(platformOf(a.cluster.Server()))
	if err != nil {
		return err
	}
	if err := clusterimage.CheckKubeVersion(rootfs.Config.Config.Labels[clusterimage.LabelKubeVersion], a.cluster.KubeVersion()); err != nil {
		return fmt.Errorf("checking the image %q: %w", a.ImageName, err)
	}
	for _, app := range a.cluster.File.Applications {
		if _, ok := rootfs.Extension.Application(app.Name); !ok {
			return &LaunchError{Image: a.ImageName, App: app.Name, Err: noSuchApplication(rootfs.Extension)}
		}
	}
	list, err := a.launches()
	if err == nil && len(list) == 0 {
		err = &NothingLaunchedError{Image: a.ImageName, Have: applicationNames(rootfs.Extension)}
	}
	return err
}

// find is the record of an application image's.
func (a *appRun) find(name string) *application.Record {
	i := slices.IndexFunc(a.records, func(r *application.Record) bool { return r.Name == name && !r.OfCluster })
	if i < 0 {
		return nil
	}
	return a.records[i]
}

// unknown says that there is no such application, and which there are.
func (a *appRun) unknown(name string) error {
	e := &UnknownApplicationError{Cluster: a.cluster.File.Name, Name: name}
	for _, r := range a.records {
		if r.OfCluster {
			e.OfCluster = e.OfCluster || r.Name == name
			continue
		}
		e.Have = append(e.Have, r.Name)
	}
	return e
}

// hold keeps others off the cluster, and makes ready to change it.
func (a *appRun) hold(ctx context.Context) (context.Context, func(), error) {
	held, release, err := a.kept.hold(ctx, a.cluster, a.Distributions.Marks())
	if err != nil {
		return nil, nil, err
	}
	a.executor = newExecutor(a.cluster, a.kept.journal, a.Display, a.LogFile)
	a.executor.begin(func(h *runtime.Host) runtime.HostState { return *h.Facts.State }) // it stays the cluster's
	return held, release, nil
}

// report is the last line.
func (a *appRun) report() error {
	c := a.cluster.File.Name
	if a.executor.changed() == 0 {
		_, err := fmt.Fprintf(a.Out, "application %q of %s is complete on cluster %q: nothing to change\n", a.name, a.ImageName, c)
		return err
	}
	_, err := fmt.Fprintf(a.Out, "application %q of %s is ready on cluster %q\n", a.name, a.ImageName, c)
	return errors.Join(err, a.reportLost("do not have its images yet; their registries fetch them when they are back"))
}

// reportLost names the control planes that could not be reached.
func (a *appRun) reportLost(what string) error {
	var names []string
	for _, h := range a.lost {
		if h.Spec.Role == clusterfile.ControlPlane {
			names = append(names, h.String())
		}
	}
	if len(names) == 0 {
		return nil
	}
	_, err := fmt.Fprintf(a.Out, "could not be reached, and %s: %s\n", what, strings.Join(names, ", "))
	return err
}
