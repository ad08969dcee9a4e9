// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"io"
	"slices"

	"github.com/sealerio/sealer/cluster/application"
	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/runtime"
)

// removeReleases uninstalls what charts have made, the last one first.
func (a *appRun) removeReleases(ctx context.Context, h *runtime.Host, refs []application.Release, log io.Writer) error {
	for _, r := range slices.Backward(refs) {
		there, err := a.inventory().HasRelease(ctx, r)
		if err != nil {
			return err
		}
		if !there {
			continue
		}
		say(log, "uninstalling the chart's release %s/%s", r.Namespace, r.Name)
		env := []string{
			"ROOTFS=" + h.Rootfs, "CLUSTER_ROOTFS=" + a.clusterRootfs, "KUBECONFIG=" + a.distribution.Kubectl().Kubeconfig, "HELM_CACHE_HOME=" + h.Rootfs + "/.cache/helm",
		}
		look := host.Command{Argv: []string{"sh", "-c", inRootfs + "command -v helm >/dev/null"}, Env: env}
		if found, err := answered(h.Runner.Run(ctx, look)); err != nil || !found {
			return errors.Join(err, &NoHelmError{App: r.Name})
		}
		if err := h.Runner.Run(ctx, host.Command{
			Argv: []string{"sh", "-c", inRootfs + `helm uninstall "$1" --namespace "$2" --wait --timeout "$3"`, "sh", r.Name, r.Namespace, a.ReadyTimeout.String()},
			Dir:  h.Rootfs, Env: env, Stdout: log, Stderr: log, Mutates: true,
		}); err != nil {
			return err
		}
	}
	return nil
}

// obsolete is what the application has made and does no more. What a run leaves out of what another one has launched stays: only who
// names everything, a Clusterfile or an upgrade, takes away.
func (a *appRun) obsolete() application.Notes {
	var parts []string
	if a.how.declared || a.how.Upgrade {
		parts = a.parts()
	}
	return a.record.Obsolete(parts)
}

// parts are those that are launched now.
func (a *appRun) parts() []string {
	list, err := a.launches()
	if err != nil {
		return nil // look has said so
	}
	parts := make([]string, len(list))
	for i, l := range list {
		parts[i] = application.Maker(l.app, l.command)
	}
	return parts
}

func (a *appRun) removeObsolete(ctx context.Context, h *runtime.Host, log io.Writer) error {
	gone := a.obsolete()
	own, kept, err := a.inventory().Own(ctx, a.record, a.records, gone.Objects)
	if err != nil {
		return err
	}
	for _, k := range kept {
		say(log, "%s, and stays", k)
	}
	if err := a.removeReleases(ctx, h, gone.Releases, log); err != nil {
		return err
	}
	if err := a.inventory().Remove(ctx, own, a.ReadyTimeout, log); err != nil {
		return err
	}
	a.record.Drop(gone)
	if list, err := a.launches(); err == nil { // what is launched no more would have to be launched anew
		keys := a.keys(h, list)
		a.record.Done = slices.DeleteFunc(slices.Clone(a.record.Done), func(k string) bool { return !slices.Contains(keys, k) })
	}
	return a.keep(ctx)
}
