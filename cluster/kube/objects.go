// SPDX-License-Identifier: Apache-2.0

package kube

import "github.com/distribution/reference"

// Node is what is read of the Kubernetes API's Node (v1).
type Node struct {
	Metadata struct {
		Name        string            `json:"name"`
		Labels      map[string]string `json:"labels"`
		Annotations map[string]string `json:"annotations"`
	} `json:"metadata"`
	Spec struct {
		Unschedulable bool                                  `json:"unschedulable"`
		Taints        []struct{ Key, Value, Effect string } `json:"taints"`
	} `json:"spec"`
	Status struct {
		Conditions []struct{ Type, Status, Message string } `json:"conditions"`
		Addresses  []struct{ Type, Address string }         `json:"addresses"`
		NodeInfo   struct {
			KubeletVersion string `json:"kubeletVersion"`
		} `json:"nodeInfo"`
	} `json:"status"`
}

// ContainerStatus is what is read of a container of a Pod (v1).
type ContainerStatus struct {
	Image string `json:"image"`
	State struct {
		Waiting *struct{ Reason, Message string } `json:"waiting"`
	} `json:"state"`
}

// CannotPull tells whether a reason is one of the kubelet's words for an image that cannot be had (kubelet/images/types.go).
func CannotPull(reason string) bool {
	switch reason {
	case "ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull":
		return true
	}
	return false
}

// ImageName is the reference with its domain and tag, as containerd asks for it.
func ImageName(name string) string {
	ref, err := reference.ParseDockerRef(name)
	if err != nil {
		return name
	}
	return ref.String()
}
