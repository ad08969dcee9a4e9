// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"slices"

	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/runtime"
)

// underWay: an upgrade of the cluster was begun, and not brought to its end.
func (u *upgrade) underWay() bool {
	return slices.ContainsFunc(u.cluster.Hosts, func(h *runtime.Host) bool { return h.Facts.State != nil && h.Facts.State.PreviousDigest != "" })
}

// patiently asks the cluster something. Where an upgrade is under way, an API server that does not answer is waited for: it may be
// the only one, and was being replaced when the upgrade was cut.
func (u *upgrade) patiently(ctx context.Context, ask func(context.Context) error) error {
	err := ask(ctx)
	if !mayPass(err) || !u.underWay() {
		return err
	}
	task := u.Display.Task("waiting for a control plane that was being upgraded")
	var final error
	err = u.poll(ctx, taskWriter(task), 1, func(ctx context.Context) error {
		if final = ask(ctx); mayPass(final) {
			return final
		}
		return nil
	})
	if err == nil {
		err = final
	}
	task.Done(err)
	return err
}

// mayPass: nobody has answered, or a program of a host has not got its answer.
func mayPass(err error) bool {
	_, silent := errors.AsType[*NoContactError](err)
	_, failed := errors.AsType[*host.ExitError](err)
	return silent || failed
}
