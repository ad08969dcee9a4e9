// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/sealerio/sealer/runtime"
)

// HostCertificate is a certificate of one host.
type HostCertificate struct {
	Host     string    `json:"host"`
	Name     string    `json:"name"`
	NotAfter time.Time `json:"notAfter"`
	CA       bool      `json:"ca,omitempty"`
}

// Certificates are those of all hosts that can be reached, the ones that end first before the others. The error is a HostErrors.
func (v *View) Certificates(ctx context.Context) ([]HostCertificate, error) {
	found := make([][]HostCertificate, len(v.cluster.Hosts))
	err := each(v.cluster.Hosts, func(h *runtime.Host) error {
		list, err := v.distribution.Certificates(ctx, v.cluster, h)
		for _, c := range list {
			i := slices.Index(v.cluster.Hosts, h)
			found[i] = append(found[i], HostCertificate{h.String(), c.Name, c.NotAfter.UTC(), c.CA})
		}
		return err
	})
	all := slices.Concat(found...)
	slices.SortStableFunc(all, func(a, b HostCertificate) int { return a.NotAfter.Compare(b.NotAfter) })
	return all, err
}

// ChangeOptions are those of a change to a running cluster that needs no image.
type ChangeOptions struct {
	ViewOptions
	LogFile string
}

// RenewCertificates makes all certificates but the CAs' anew, on one control plane after the other, then on workers. No control plane
// need answer: none does when the certificates have expired.
func RenewCertificates(ctx context.Context, o ChangeOptions) error {
	return change(ctx, o, "renewing certificates", false, func(v *View) []phase {
		return v.serially("renewing the certificates of control planes", "renewing the certificates of workers", v.distribution.Renew)
	})
}

// AddServerNames has the API servers' certificates say further names and addresses.
func AddServerNames(ctx context.Context, o ChangeOptions, names []string) error {
	return change(ctx, o, "adding names to certificates", true, func(v *View) []phase {
		v.cluster.AltNames = names
		return v.serially("adding names to the API servers' certificates", "", v.distribution.ServerNames)
	})
}

// serially does steps on control planes one after the other, each with another one to ask where there is one, then on all workers.
func (v *View) serially(controlPlanes, workers string, steps func(*runtime.Cluster, *runtime.Host) []runtime.Step) []phase {
	first, then := phase{name: controlPlanes, serial: true}, phase{name: workers}
	for _, h := range v.cluster.Hosts {
		s := steps(v.cluster, h)
		switch {
		case len(s) == 0:
		case slices.Contains(v.cluster.ControlPlanes(), h):
			first.work = append(first.work, work{h, s})
		default:
			then.work = append(then.work, work{h, s})
		}
	}
	return slices.DeleteFunc([]phase{first, then}, func(p phase) bool { return len(p.work) == 0 })
}

// change holds all hosts, which must be reachable, and executes what is to be done; asks says that an API server has to answer.
func change(ctx context.Context, o ChangeOptions, title string, asks bool, phases func(*View) []phase) (err error) {
	if o.StateDir == "" {
		return errors.New(title + ": the state folder is missing")
	}
	kept, err := openFolder(o.StateDir, o.Clusterfile.Name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, kept.close()) }()
	v, err := Open(ctx, o.ViewOptions)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	var lost []error
	for _, h := range v.cluster.Hosts {
		if h.Lost != nil {
			lost = append(lost, h.Lost)
		}
	}
	if len(lost) > 0 {
		return &ConnectError{Errs: lost}
	}
	if _, err := v.contact(); err != nil && asks {
		return err
	}
	held, release, err := kept.hold(ctx, v.cluster, o.Distributions.Marks())
	if err != nil {
		return err
	}
	defer release()
	e := newExecutor(v.cluster, kept.journal, o.Display, o.LogFile)
	e.begin(func(h *runtime.Host) runtime.HostState { return *h.Facts.State })
	return e.execute(held, plan{title: title, phases: phases(v)})
}
