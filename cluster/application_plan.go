// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sealerio/sealer/cluster/application"
	"github.com/sealerio/sealer/cluster/program"
	"github.com/sealerio/sealer/runtime"
)

// plan is what is left to be done. Steps on hosts have the application's name before theirs: their keys stand in the
// same state as those of the cluster's own image.
func (a *appRun) plan() (plan, error) {
	if err := a.findBinaries(); err != nil {
		return plan{}, err
	}
	if err := errors.Join(a.reachable(), a.dockerTakes()); err != nil {
		return plan{}, err
	}
	verb := "running"
	if a.record.Former != nil {
		verb = "upgrading"
	}
	p := plan{title: fmt.Sprintf("%s application %q of %s on cluster %q: sending %d MiB", verb, a.name, a.ImageName, a.cluster.File.Name, (a.sending+1<<20-1)>>20)}
	planes := a.cluster.ControlPlanes()
	lead := []*runtime.Host{a.cluster.Server()}
	p.add("sending what the control planes lack", planes, a.bring)
	p.phases[len(p.phases)-1].end = a.transfer().Spread(planes)
	p.add("serving the packed images on all control planes", planes, a.publish)
	p.add("pushing the packed images", lead, a.pushed)
	p.add("pointing the hosts at the registry", a.cluster.Hosts, a.pointed)
	p.add("asking for the registry's login", []*runtime.Host{a.shared().source()}, a.dockerLogin)
	p.add("bringing the packed images to docker", a.cluster.Hosts, a.docker)
	p.add("preparing its files", lead, a.prepare)
	p.add("launching the application", lead, a.launchParts)
	p.add("finishing", lead, a.end)
	if old := a.others(); len(old) > 0 {
		p.add("dropping what only images before had", planes, func(h *runtime.Host) []runtime.Step { return a.drop(h, old) })
		p.add("dropping their images from docker", a.cluster.Hosts, func(h *runtime.Host) []runtime.Step { return a.dropDocker(h, old) })
		p.add("forgetting them", lead, a.forgetVersions)
	}
	return p, nil
}

// add puts a phase at the end, unless no host has a step in it.
func (p *plan) add(name string, on []*runtime.Host, steps func(*runtime.Host) []runtime.Step) {
	ph := phase{name: name}
	for _, h := range on {
		if s := steps(h); len(s) > 0 {
			ph.work = append(ph.work, work{h, s})
		}
	}
	if len(ph.work) > 0 {
		p.phases = append(p.phases, ph)
	}
}

func (a *appRun) stepName(text string) string { return a.name + ": " + text }

// measure finds out what the control planes lack, and whether they have room for it.
func (a *appRun) measure(ctx context.Context) error {
	planes := a.cluster.ControlPlanes()
	type need struct{ send, room int64 }
	needs := make([]need, len(planes))
	err := onAll(planes, func(h *runtime.Host) error {
		i := slices.Index(planes, h)
		lacks, err := a.transfer().Missing(ctx, h)
		if err != nil {
			return err
		}
		layers := map[string]bool{}
		if rootfs, err := a.Image.Platform(platformOf(h)); err == nil {
			for _, l := range rootfs.Manifest.Layers {
				layers[l.Digest.String()] = true
			}
		}
		for _, b := range lacks {
			needs[i].send += b.Size - b.Offset
			needs[i].room += b.Size
			if layers[b.Digest.String()] {
				needs[i].room += b.Size * (rootfsGrowth - 1)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	a.sending = 0
	var problems []runtime.Problem
	for i, h := range planes {
		a.sending += needs[i].send
		if needs[i].send > 0 && h.Facts.DiskFree < needs[i].room {
			problems = append(problems, runtime.Problem{
				Host: h.String(), Check: "disk", Fix: "make room in the file system that holds /var/lib",
				What: fmt.Sprintf("%d MiB are free below /var/lib, the application needs %d MiB", h.Facts.DiskFree>>20, needs[i].room>>20),
			})
		}
	}
	if len(problems) > 0 {
		return &runtime.PreflightError{Problems: problems}
	}
	return nil
}

// tagOf names a version on the hosts, which keeps its content from being pruned.
func (a *appRun) tagOf(digest string) string {
	return "application.sealer.local/" + a.name + ":" + strings.ReplaceAll(digest, ":", "-")
}

// bring sends a control plane what it lacks.
func (a *appRun) bring(h *runtime.Host) []runtime.Step {
	d := a.Image.Descriptor
	send := runtime.Step{
		Name: a.stepName("sending the image"),
		Done: func(ctx context.Context) (bool, error) {
			missing, err := a.transfer().Missing(ctx, h)
			return err == nil && len(missing) == 0, err
		},
		Do: func(ctx context.Context, log io.Writer) error { return a.transfer().Send(ctx, h, log) },
	}
	return []runtime.Step{a.transfer().Program(h), send, {
		Name: a.stepName("naming the image"),
		Key:  d.Digest.String(),
		Do: func(ctx context.Context, log io.Writer) error {
			return program.Call{Log: log}.Run(ctx, h, "content", "tag", "--name", a.tagOf(d.Digest.String()), "--digest", d.Digest.String(),
				"--size", strconv.FormatInt(d.Size, 10), "--media-type", d.MediaType)
		},
	}}
}

// publish serves the packed images beside those that are served already.
func (a *appRun) publish(h *runtime.Host) []runtime.Step {
	if a.external() {
		return nil
	}
	return []runtime.Step{{
		Name: a.stepName("publishing the packed images"),
		Key:  a.cluster.Digest,
		Do: func(ctx context.Context, log io.Writer) error {
			return program.Call{Log: log}.Run(ctx, h, "registry", "publish", "--image", a.cluster.Digest)
		},
	}}
}

// prepare unpacks the application's files where they are launched, or charts uninstalled. Else nothing needs them.
func (a *appRun) prepare(h *runtime.Host) []runtime.Step {
	if a.launched(h) && len(a.obsolete().Releases) == 0 {
		return nil
	}
	mount := a.mount(h)
	mount.Name = a.stepName("unpacking its files")
	return []runtime.Step{
		mount,
		{
			Name: a.stepName("finding the cluster's programs"),
			Do: func(ctx context.Context, log io.Writer) (err error) {
				a.clusterRootfs, err = a.mountCluster(ctx, h, log)
				return err
			},
		},
		{
			Name: a.stepName("rendering its files"),
			Do:   func(ctx context.Context, log io.Writer) error { return a.render(ctx, h, log) },
		},
	}
}

// mountCluster is where the rootfs of the cluster's image is: its programs, helm's perhaps, are used where the
// application brings none.
func (a *appRun) mountCluster(ctx context.Context, h *runtime.Host, log io.Writer) (string, error) {
	var where struct{ Path string }
	err := program.Call{Log: log, Out: &where}.Run(ctx, h, "rootfs", "mount", "--image", h.Facts.State.ImageDigest, "--platform", h.Platform)
	if err == nil && !path.IsAbs(where.Path) {
		err = fmt.Errorf("sealer-node mounted the cluster's rootfs at %q", where.Path)
	}
	return where.Path, err
}

// keys are those of what is launched: each stands for all up to it, since they may build upon one another.
func (a *appRun) keys(h *runtime.Host, list []launched) []string {
	all := sha256.New()
	keys := make([]string, len(list))
	for i, l := range list {
		// The host's own values are left out: another control plane goes on where one was lost.
		env := slices.DeleteFunc(a.lasting(h, a.launchEnvironment(h, l.app)), func(kv string) bool {
			name, _, _ := strings.Cut(kv, "=")
			return slices.Contains([]string{"HostIP", "HostName", "HostRole"}, name)
		})
		_, _ = fmt.Fprintf(all, "%s\x00%q\x00%q\x00", a.cluster.Digest, l.command, env)
		for _, c := range a.cluster.File.Configs {
			_, _ = fmt.Fprintf(all, "%q%q%q%q", c.Path, c.Data, c.Strategy, c.Process)
		}
		keys[i] = hex.EncodeToString(all.Sum(nil))[:32]
	}
	return keys
}

// launched: every part was, as it is asked for now.
func (a *appRun) launched(h *runtime.Host) bool {
	list, err := a.launches()
	if err != nil || !a.record.Complete() {
		return false
	}
	return !slices.ContainsFunc(a.keys(h, list), func(k string) bool { return !slices.Contains(a.record.Done, k) })
}

// launchParts starts one part after the other, and waits for each.
func (a *appRun) launchParts(h *runtime.Host) []runtime.Step {
	list, err := a.launches()
	if err != nil {
		return nil // look has said so
	}
	var steps []runtime.Step
	keys := a.keys(h, list)
	for i, l := range list {
		steps = append(steps, runtime.Step{
			Name: l.name,
			Done: func(context.Context) (bool, error) { return slices.Contains(a.record.Done, keys[i]), nil },
			Do:   func(ctx context.Context, log io.Writer) error { return a.launchPart(ctx, h, l, keys[:i+1], log) },
		}, runtime.Step{
			Name: "waiting until " + partName(l) + " is ready",
			Done: func(ctx context.Context) (bool, error) {
				if !slices.Contains(a.record.Done, keys[i]) {
					return false, nil
				}
				s, err := a.inventory().State(ctx, a.record)
				return err == nil && s.Ready(), err
			},
			Do: func(ctx context.Context, log io.Writer) error { return a.wait().Until(ctx, a.record, log) },
		})
	}
	return steps
}

// keep writes the record into the cluster.
func (a *appRun) keep(ctx context.Context) error {
	err := a.inventory().Keep(ctx, a.record)
	a.unkept = a.unkept && err != nil
	return err
}

// wait is how its parts are waited for.
func (a *appRun) wait() application.Wait {
	return application.Wait{Inventory: a.inventory(), Timeout: a.ReadyTimeout, Poll: a.PollInterval, Lacks: a.lacks}
}

// lacks are the images that the registry of the control plane that is asked does not have.
func (a *appRun) lacks(ctx context.Context, images []string) (lacks []string, err error) {
	if a.external() {
		return nil, nil // what others have put there is not known
	}
	err = program.Call{In: images, Out: &lacks, Reads: true}.Run(ctx, a.cluster.Server(), "registry", "lacks")
	return lacks, err
}

func partName(l launched) string {
	if l.app != "" {
		return l.app
	}
	name, _, _ := strings.Cut(l.name, ":")
	return "what " + name + " made"
}

// launchPart starts one part and keeps what it made; keys are those of all parts up to it. Before the first, that there is
// something is kept.
func (a *appRun) launchPart(ctx context.Context, h *runtime.Host, l launched, keys []string, log io.Writer) error {
	a.record.Done = slices.Clone(keys[:len(keys)-1])
	if a.fresh || !a.record.Ended.IsZero() || len(a.record.Done) == 0 {
		a.record.Begun, a.record.Ended = time.Now().UTC(), time.Time{}
		v := application.Version{Image: a.ImageName, Digest: a.cluster.Digest}
		if !slices.Contains(a.record.Versions, v) {
			a.record.Versions = append(a.record.Versions, v)
		}
		if err := a.keep(ctx); err != nil {
			return err
		}
		a.fresh = false
	}
	n, err := a.startNoted(ctx, h, l, log)
	if ctx.Err() != nil {
		return err
	}
	a.record.Add(n, a.cluster.Digest, application.Maker(l.app, l.command))
	if l.app != "" && !slices.Contains(a.record.Applications, l.app) {
		a.record.Applications = append(a.record.Applications, l.app)
	}
	if err == nil {
		a.record.Done = slices.Clone(keys)
	}
	if keepErr := a.keep(ctx); keepErr != nil {
		if err == nil {
			return keepErr
		}
		return fmt.Errorf("%w\n%w", err, keepErr)
	}
	if err != nil {
		return err
	}
	return forgetNotes(ctx, h)
}

// end notes that the application is complete; what only an image before made goes.
func (a *appRun) end(h *runtime.Host) []runtime.Step {
	var steps []runtime.Step
	if n := a.obsolete(); len(n.Objects)+len(n.Releases) > 0 { // what is launched again counts no more, by then
		steps = append(steps, runtime.Step{
			Name: a.stepName("removing what it no longer has"),
			Do:   func(ctx context.Context, log io.Writer) error { return a.removeObsolete(ctx, h, log) },
		})
	}
	return append(steps, runtime.Step{
		Name: a.stepName("keeping that it is complete"),
		Done: func(context.Context) (bool, error) {
			return a.record.Complete() && a.record.Former == nil && !a.unkept, nil
		},
		Do: func(ctx context.Context, _ io.Writer) error {
			if a.record.Ended.IsZero() {
				a.record.Ended = time.Now().UTC()
			}
			a.record.Former = nil
			return a.keep(ctx)
		},
	})
}

// others are versions of it that are no longer wanted on the hosts.
func (a *appRun) others() []application.Version {
	return slices.DeleteFunc(slices.Clone(a.record.Versions), func(v application.Version) bool { return v.Digest == a.cluster.Digest })
}

func (a *appRun) forgetVersions(*runtime.Host) []runtime.Step {
	return []runtime.Step{{
		Name: a.stepName("forgetting images before"),
		Do: func(ctx context.Context, _ io.Writer) error {
			a.record.Versions = slices.DeleteFunc(a.record.Versions, func(v application.Version) bool { return v.Digest != a.cluster.Digest })
			return a.keep(ctx)
		},
	}}
}

// drop takes versions off a control plane: names, files, and the images and blobs that nothing else there needs.
func (a *appRun) drop(h *runtime.Host, old []application.Version) []runtime.Step {
	var steps []runtime.Step
	for _, v := range old {
		steps = append(steps, runtime.Step{
			Name: a.stepName("dropping " + v.Image),
			Do:   func(ctx context.Context, log io.Writer) error { return a.dropVersion(ctx, h, v, log) },
		})
	}
	return append(steps, runtime.Step{
		Name: a.stepName("deleting blobs that nothing needs"),
		Do: func(ctx context.Context, log io.Writer) error {
			return program.Call{Log: log}.Run(ctx, h, "content", "prune")
		},
	})
}

func (a *appRun) dropVersion(ctx context.Context, h *runtime.Host, v application.Version, log io.Writer) error {
	call := program.Call{Log: log}
	if err := call.Run(ctx, h, "content", "untag", "--name", a.tagOf(v.Digest)); err != nil {
		return err
	}
	if a.needed(h, v) {
		return nil
	}
	if a.external() {
		return call.Run(ctx, h, "rootfs", "remove", "--image", v.Digest)
	}
	if err := call.Run(ctx, h, "registry", "unpublish", "--image", v.Digest); err != nil {
		return err
	}
	return call.Run(ctx, h, "rootfs", "remove", "--image", v.Digest)
}

// needed: another application, or the cluster itself, is of this version, too.
func (a *appRun) needed(h *runtime.Host, v application.Version) bool {
	return v.Digest == h.Facts.State.ImageDigest || slices.ContainsFunc(a.records, func(r *application.Record) bool {
		return r.Name != a.name && slices.ContainsFunc(r.Versions, func(o application.Version) bool { return o.Digest == v.Digest })
	})
}
