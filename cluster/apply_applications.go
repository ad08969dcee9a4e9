// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/sealerio/sealer/cluster/application"
	"github.com/sealerio/sealer/cluster/kube"
	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/runtime"
)

// foundImage is the image of an application that the Clusterfile names.
type foundImage struct {
	image *clusterimage.Image
	name  string
}

// findApplications finds the images that the Clusterfile names beside the cluster's, once.
func (a *applying) findApplications(ctx context.Context) error {
	if a.applications != nil {
		return nil
	}
	found := map[string]foundImage{}
	for _, w := range a.Clusterfile.ApplicationImages {
		image, name, err := a.FindApplication(ctx, w.Image)
		if err != nil {
			return fmt.Errorf("finding the image of the application %q: %w", w.Name, err)
		}
		if !IsApplication(image) {
			return fmt.Errorf("the application %q of the Clusterfile: %w", w.Name, &NoApplicationError{Image: name})
		}
		found[w.Name] = foundImage{image, name}
	}
	a.applications = found
	return nil
}

// inventory is what the cluster keeps of its application images, and what is gone of those that the Clusterfile names.
func (a *applying) inventory(ctx context.Context, i application.Inventory) (err error) {
	if a.records, err = i.Records(ctx); err != nil {
		return err
	}
	a.missing, err = i.Missing(ctx, slices.DeleteFunc(slices.Clone(a.records), func(r *application.Record) bool {
		_, wanted := a.want.ApplicationImage(r.Name)
		return !wanted || r.OfCluster || !r.Complete()
	}))
	return err
}

// applicationImages is what is to be done about application images: those that go, those that become others, those that come.
func (c comparison) applicationImages() []Change {
	var going, changing, coming []Change
	for _, r := range c.records {
		_, wanted := c.want.ApplicationImage(r.Name)
		if r.OfCluster || wanted && !r.Deleting || !wanted && !r.Declared && !c.prune {
			continue
		}
		change := Change{Op: OpRemove, About: AboutApplication, Name: r.Name, From: r.Image}
		if r.Deleting {
			change.Note = "its deletion is continued"
		}
		going = append(going, change)
	}
	for _, w := range c.want.ApplicationImages {
		image := w.Image
		if f, ok := c.found[w.Name]; ok {
			image = f.name
		}
		i := slices.IndexFunc(c.records, func(r *application.Record) bool { return r.Name == w.Name && !r.OfCluster && !r.Deleting })
		if i < 0 {
			coming = append(coming, Change{Op: OpAdd, About: AboutApplication, Name: w.Name, To: image})
			continue
		}
		if change := c.applicationImage(w, image, c.records[i]); change.From != "" || change.Note != "" {
			changing = append(changing, change)
		}
	}
	return slices.Concat(going, changing, coming)
}

// applicationImage is how one that is there differs; without From and Note it does not.
func (c comparison) applicationImage(w clusterfile.ApplicationImage, image string, r *application.Record) Change {
	change := Change{Op: OpChange, About: AboutApplication, Name: w.Name}
	var notes []string
	f, known := c.found[w.Name]
	switch another := kube.ImageName(r.Image) != kube.ImageName(image); {
	case known && f.image.Descriptor.Digest.String() == r.Digest, !known && !another:
	case another:
		change.From, change.To = r.Image, image
	default:
		notes = append(notes, "its image is another one of the same name")
	}
	if !r.Complete() {
		notes = append(notes, "its launch has not come to its end")
	}
	notes = append(notes, settingsChanged(r.Settings, application.SettingsOf(w.Settings()))...)
	if gone := noMore(w, f.image, r); len(gone) > 0 {
		notes = append(notes, "what "+strings.Join(gone, ", ")+" has made goes")
	}
	if gone := c.missing[w.Name].Words(); len(gone) > 0 {
		notes = append(notes, goneWords(gone))
	}
	if !r.Declared {
		notes = append(notes, "it was run by hand, and is the Clusterfile's from now on")
	}
	change.Note = strings.Join(notes, "; ")
	return change
}

// noMore are the applications of an image that are launched, and are to be no more.
func noMore(w clusterfile.ApplicationImage, image *clusterimage.Image, r *application.Record) []string {
	wanted := w.Settings().Apps
	if wanted == nil && w.Settings().Cmd == nil && image != nil {
		for _, rootfs := range image.Rootfs {
			if !rootfs.Absent {
				wanted = rootfs.Extension.Launch.AppNames
				break
			}
		}
	}
	if wanted == nil && image == nil {
		return nil // it is not known what the image launches
	}
	return slices.DeleteFunc(slices.Clone(r.Applications), func(app string) bool { return slices.Contains(wanted, app) })
}

// maxGone bounds how many missing objects a plan names.
const maxGone = 3

func goneWords(gone []string) string {
	text := strings.Join(gone[:min(len(gone), maxGone)], ", ")
	if more := len(gone) - maxGone; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	if len(gone) == 1 {
		return text + " is gone"
	}
	return text + " are gone"
}

// settingsChanged names what is said otherwise of an application image. Values may be secret.
func settingsChanged(was, want application.Settings) []string {
	var words []string
	names := func(what string, changes []Change) {
		var list []string
		for _, c := range changes {
			list = append(list, c.Name)
		}
		if len(list) > 0 {
			words = append(words, what+" "+strings.Join(list, ", "))
		}
	}
	names("env", entries("", "", was.Env, want.Env))
	if !sameList(was.Cmd, want.Cmd) {
		words = append(words, "cmds")
	}
	if !sameList(was.Apps, want.Apps) {
		words = append(words, "launchApps")
	}
	byName := func(list []clusterfile.Application) map[string]clusterfile.Application {
		all := map[string]clusterfile.Application{}
		for _, a := range list {
			all[a.Name] = a
		}
		return all
	}
	names("configs of", entries("", "", byName(was.Applications), byName(want.Applications)))
	byPath := func(list []clusterfile.Config) map[string]clusterfile.Config {
		all := map[string]clusterfile.Config{}
		for _, c := range list {
			all[c.Path] = c
		}
		return all
	}
	names("file", entries("", "", byPath(was.Configs), byPath(want.Configs)))
	return words
}

// applicationOptions are for one application image of the Clusterfile.
func (a *applying) applicationOptions(w clusterfile.ApplicationImage) ApplicationOptions {
	o := ApplicationOptions{RunOptions: a.image, Name: w.Name, Settings: w.Settings(), declared: true, gone: a.missing[w.Name]}
	f := a.applications[w.Name]
	o.Image, o.ImageName, o.Clusterfile, o.Out, o.DryRun = f.image, f.name, a.want, io.Discard, false
	return o
}

// checkApplications finds what would stop the launch of application images that come or change. What depends on the cluster as it
// is now is looked at where it stays as it is until then.
func (a *applying) checkApplications(ctx context.Context, changes []Change, stays bool) error {
	for _, change := range changes {
		w, _ := a.want.ApplicationImage(change.Name)
		if change.Op == OpRemove {
			continue
		}
		if err := a.checkApplication(w); err != nil {
			return fmt.Errorf("the application %q of the Clusterfile: %w", w.Name, err)
		}
		again := slices.ContainsFunc(changes, func(c Change) bool { return c.Op == OpRemove && c.Name == change.Name })
		if !stays || again {
			continue
		}
		o := a.applicationOptions(w)
		o.DryRun = true
		if err := o.carryOut(ctx, a.kept); err != nil {
			return fmt.Errorf("the application %q of the Clusterfile: %w", w.Name, err)
		}
	}
	return nil
}

// checkApplication looks at the image alone, and at what the cluster will be.
func (a *applying) checkApplication(w clusterfile.ApplicationImage) error {
	f, c := a.applications[w.Name], *a.cluster
	c.Hosts = slices.DeleteFunc(slices.Clone(c.Hosts), func(h *runtime.Host) bool {
		return slices.ContainsFunc(a.going, func(m clusterfile.Host) bool { return m.Address == h.Spec.Address })
	})
	if err := checkPlatforms(f.image, f.name, c.Hosts); err != nil {
		return err
	}
	o := a.image
	o.Image, o.ImageName = f.image, f.name
	check := &appRun{run: &run{RunOptions: o, cluster: &c}, record: &application.Record{}, how: ApplicationOptions{Settings: w.Settings(), declared: true}}
	check.settle(application.Settings{})
	return check.checkLaunch()
}

// executeApplications does what the plan says of application images, one after the other.
func (a *applying) executeApplications(ctx context.Context, p *ApplyPlan) error {
	for _, s := range p.Stages {
		if s.Name != stageApplications {
			continue
		}
		for _, change := range s.Changes {
			if err := a.executeApplication(ctx, change); err != nil {
				return err
			}
		}
	}
	return nil
}

func (a *applying) executeApplication(ctx context.Context, change Change) error {
	if change.Op == OpRemove {
		o := a.image
		o.Clusterfile, o.Out, o.DryRun = a.want, io.Discard, false
		return DeleteApplicationOptions{Name: change.Name}.carryOut(ctx, a.kept, o)
	}
	w, _ := a.want.ApplicationImage(change.Name)
	return a.applicationOptions(w).carryOut(ctx, a.kept)
}

// applicationDrift is how the application images on the cluster differ from what they are to be: from the Clusterfile, where it says
// so, or else from what they were when they were launched.
func (v *View) applicationDrift(ctx context.Context) ([]string, error) {
	inventory := application.Inventory{API: kube.API{Cluster: v.cluster, Kubectl: v.distribution.Kubectl()}}
	records, err := inventory.Records(ctx)
	if err != nil {
		return nil, err
	}
	missing, err := inventory.Missing(ctx, slices.DeleteFunc(slices.Clone(records), func(r *application.Record) bool { return r.OfCluster || !r.Complete() }))
	if err != nil {
		return nil, err
	}
	c := comparison{want: v.want, records: records, missing: missing}
	var lines []string
	if v.desired {
		for _, change := range c.applicationImages() {
			lines = append(lines, change.Drift())
		}
		return lines, nil
	}
	for _, r := range c.records {
		if gone := c.missing[r.Name].Words(); len(gone) > 0 && !r.OfCluster {
			lines = append(lines, Change{Op: OpChange, About: AboutApplication, Name: r.Name, Note: goneWords(gone)}.Drift())
		}
	}
	return lines, nil
}

// newApplications are those that the plan of a new cluster brings.
func (a *applying) newApplications() []Change {
	return comparison{want: a.want, found: maps.Clone(a.applications)}.applicationImages()
}
