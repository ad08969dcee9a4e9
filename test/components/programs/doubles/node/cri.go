// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"fmt"

	cri "k8s.io/kubernetes/cmd/kubeadm/app/util/runtime"

	"github.com/sealerio/sealer/test/components/programs/doubles/journal"
	"github.com/sealerio/sealer/test/components/programs/doubles/mirror"
)

// CRI is a container runtime that the host has, asked as a kubelet asks it, with no login.
type CRI struct{ runtime cri.ContainerRuntime }

// NewCRI connects with the runtime at a socket; the kubelet ends where it does not answer.
func NewCRI(socket string) (*CRI, error) {
	c := &CRI{cri.NewContainerRuntime(socket)}
	err := c.runtime.Connect()
	if err == nil {
		err = c.runtime.IsRunning()
	}
	if err != nil {
		return nil, fmt.Errorf("failed to run Kubelet: validate service connection: %w", err)
	}
	return c, nil
}

// Sandbox is the image that it begins pods with.
func (c *CRI) Sandbox() (string, error) { return c.runtime.SandboxImage() }

func (c *CRI) has(_ context.Context, image string) (bool, error) {
	return c.runtime.ImageExists(mirror.Parse(image).String()), nil
}

func (c *CRI) ensure(_ context.Context, image string, always bool, j *journal.Journal) error {
	name := mirror.Parse(image).String()
	if !always && c.runtime.ImageExists(name) {
		return nil
	}
	err := c.runtime.PullImage(name)
	if err == nil {
		j.Add(journal.Entry{Event: "pulled", Text: name + " by CRI"})
	}
	return err
}
