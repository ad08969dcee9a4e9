// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"fmt"
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

// UpgradingError is a cluster of which an upgrade has not come to its end. Its hosts are not installed from the new image meanwhile: an upgrade
// drains them first, and keeps an order.
type UpgradingError struct{ Cluster, Host, From, To string }

func (e *UpgradingError) Error() string {
	return fmt.Sprintf("the upgrade of the cluster %q from %s to %s has not come to its end on %s", e.Cluster, e.From, e.To, e.Host)
}

// Hint is to continue it.
func (e *UpgradingError) Hint() string { return "continue it first: sealer upgrade " + e.To }

func upgrading(c *runtime.Cluster) error {
	for _, h := range c.Hosts {
		if s := h.Facts.State; s != nil && s.Cluster == c.File.Name && s.PreviousDigest != "" {
			return &UpgradingError{Cluster: s.Cluster, Host: h.String(), From: s.PreviousImage, To: s.Image}
		}
	}
	return nil
}
