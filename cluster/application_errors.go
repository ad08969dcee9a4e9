// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"errors"
	"fmt"
	"strings"

	"github.com/sealerio/sealer/clusterimage"
)

// NoApplicationError is a cluster's image where an application's is wanted.
type NoApplicationError struct{ Image string }

func (e *NoApplicationError) Error() string {
	return fmt.Sprintf("the image %q holds a whole cluster, and is no application image", e.Image)
}

// Hint says what it is for, and how the other kind is built.
func (e *NoApplicationError) Hint() string {
	return "a cluster's image is for sealer run on bare hosts, and for sealer upgrade; an application's is built FROM scratch, or with --type app-installer"
}

// ApplicationNameError is a name that applications cannot have.
type ApplicationNameError struct{ Name string }

func (e *ApplicationNameError) Error() string {
	return fmt.Sprintf("%q is no name for an application: small letters, digits and dashes, 53 at most", e.Name)
}

// Hint says where to give one.
func (e *ApplicationNameError) Hint() string { return "give it another one with --as" }

// BareError is an application for hosts without a cluster.
type BareError struct{ Image, Cluster string }

func (e *BareError) Error() string {
	if e.Image == "" {
		return fmt.Sprintf("none of the hosts holds anything of the cluster %q", e.Cluster)
	}
	return fmt.Sprintf("the image %q holds applications and no cluster, and none of the hosts holds anything of the cluster %q", e.Image, e.Cluster)
}

// Hint is to make a cluster.
func (e *BareError) Hint() string {
	return "make the cluster first, with sealer run of a cluster's image; then run the application on it, without --masters"
}

// MisnamedError is a host of another cluster than the one that was named.
type MisnamedError struct{ Host, Cluster, Named string }

func (e *MisnamedError) Error() string {
	return fmt.Sprintf("%s: it belongs to the cluster %q, not to %q", e.Host, e.Cluster, e.Named)
}

// Hint says how it is named.
func (e *MisnamedError) Hint() string { return "--name " + e.Cluster }

// UnknownApplicationError is an application that is not there, or belongs to the cluster's image.
type UnknownApplicationError struct {
	Cluster, Name string
	OfCluster     bool
	Have          []string
}

func (e *UnknownApplicationError) Error() string {
	if e.OfCluster {
		return fmt.Sprintf("the application %q of the cluster %q came with the cluster's own image", e.Name, e.Cluster)
	}
	return fmt.Sprintf("the cluster %q has no application %q", e.Cluster, e.Name)
}

// Hint says which there are.
func (e *UnknownApplicationError) Hint() string {
	switch {
	case e.OfCluster:
		return "it changes with that image: sealer upgrade IMAGE; what it made is taken away with kubectl delete"
	case len(e.Have) == 0:
		return "no application image was run on it: sealer run IMAGE does that"
	}
	return "it has " + strings.Join(e.Have, ", ")
}

// ApplicationStateError is an application that is there, and in the way.
type ApplicationStateError struct{ Name, Why, Fix string }

func (e *ApplicationStateError) Error() string {
	return fmt.Sprintf("the application %q %s", e.Name, e.Why)
}

// Hint says how to go on.
func (e *ApplicationStateError) Hint() string { return e.Fix }

// NothingLaunchedError is an application image that would start nothing.
type NothingLaunchedError struct {
	Image string
	Have  []string
}

func (e *NothingLaunchedError) Error() string {
	return fmt.Sprintf("the image %q launches nothing", e.Image)
}

// Hint says how it does.
func (e *NothingLaunchedError) Hint() string {
	if len(e.Have) == 0 {
		return "build it with LAUNCH or CMD at the end of its Kubefile"
	}
	return "say which of its applications are to be started with --apps: it has " + strings.Join(e.Have, ", ")
}

func applicationNames(ext clusterimage.Extension) []string {
	var names []string
	for _, a := range ext.Applications {
		names = append(names, a.Name)
	}
	return names
}

// UpgradeFailedError is an application that did not become one of a new image.
type UpgradeFailedError struct {
	Name, Former string // name, and image, of what was there before
	Err          error
}

func (e *UpgradeFailedError) Error() string {
	return fmt.Sprintf("%v\nthe application %q is as this left it; the hosts still have all of %s", e.Err, e.Name, e.Former)
}

func (e *UpgradeFailedError) Unwrap() error { return e.Err }

// Hint says how to go back.
func (e *UpgradeFailedError) Hint() string {
	back := fmt.Sprintf("to go back: sealer app upgrade %s %s", e.Name, e.Former)
	var h interface{ Hint() string }
	if errors.As(e.Err, &h) {
		return h.Hint() + "; " + back
	}
	return back
}

// failed is the error of a run that was cut.
func (a *appRun) failed(err error) error {
	if f := a.record.Former; f != nil {
		return &UpgradeFailedError{Name: a.name, Former: f.Image, Err: err}
	}
	return err
}
