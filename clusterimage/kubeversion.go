// SPDX-License-Identifier: Apache-2.0

package clusterimage

import (
	"fmt"

	"github.com/Masterminds/semver/v3"
)

// KubeVersionError is an image that is not for the Kubernetes it would run on.
type KubeVersionError struct {
	Constraint string // what the image asks for
	Version    string // what there is; may be empty
}

func (e *KubeVersionError) Error() string {
	if e.Version == "" {
		return fmt.Sprintf("it is for Kubernetes %s, and the version of Kubernetes is not known", e.Constraint)
	}
	return fmt.Sprintf("it is for Kubernetes %s, not for %s", e.Constraint, e.Version)
}

// Hint says what can be changed.
func (*KubeVersionError) Hint() string {
	return "build it FROM a base with a Kubernetes that fits, or change KUBEVERSION in its Kubefile"
}

// CheckKubeVersion holds a version of Kubernetes, such as v1.36.3 or
// v1.36.3+k3s1, against the value of LabelKubeVersion; an empty value takes any.
// A pre-release counts as the release that it comes before, as it does for Helm
// with a range that ends in -0. The error is a *KubeVersionError, or says that
// one of the two cannot be read.
func CheckKubeVersion(constraint, version string) error {
	if constraint == "" {
		return nil
	}
	bounds, err := semver.NewConstraint(constraint)
	if err != nil {
		return fmt.Errorf("reading the Kubernetes versions %q that the image is for: %w", constraint, err)
	}
	if version == "" {
		return &KubeVersionError{Constraint: constraint}
	}
	parsed, err := semver.NewVersion(version)
	if err != nil {
		return fmt.Errorf("reading the Kubernetes version %q: %w", version, err)
	}
	release := semver.New(parsed.Major(), parsed.Minor(), parsed.Patch(), "", "")
	if !bounds.Check(release) {
		return &KubeVersionError{Constraint: constraint, Version: version}
	}
	return nil
}
