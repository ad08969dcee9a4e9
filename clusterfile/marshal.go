// SPDX-License-Identifier: Apache-2.0

package clusterfile

import (
	"cmp"
	"fmt"

	"github.com/goccy/go-yaml"
)

const savedHeader = "# Kept by sealer: the hosts of this cluster. Passwords, environment and configuration\n" +
	"# are left out: they stand in your own Clusterfile or flags.\n"

type savedCluster struct {
	APIVersion string    `yaml:"apiVersion"`
	Kind       string    `yaml:"kind"`
	Metadata   savedName `yaml:"metadata"`
	Spec       savedSpec `yaml:"spec"`
}

type savedName struct {
	Name string `yaml:"name"`
}

type savedSpec struct {
	Image    string        `yaml:"image,omitempty"`
	Registry savedRegistry `yaml:"registry"`
	Hosts    []savedHost   `yaml:"hosts,omitempty"`
}

type savedHost struct {
	IPs   []string `yaml:"ips"`
	Roles []string `yaml:"roles"`
	SSH   savedSSH `yaml:"ssh,omitempty"`
}

type savedSSH struct {
	User string     `yaml:"user,omitempty"`
	Port int        `yaml:"port,omitempty"`
	Key  string     `yaml:"pk,omitempty"`
	Jump *savedJump `yaml:"jump,omitempty"`
}

type savedJump struct {
	Host string `yaml:"host"`
	User string `yaml:"user,omitempty"`
	Port int    `yaml:"port,omitempty"`
	Key  string `yaml:"pk,omitempty"`
}

// saved has the user and the port in any case: an image that comes later may have others.
func saved(l SSH) savedSSH {
	s := savedSSH{User: cmp.Or(l.User, "root"), Port: cmp.Or(l.Port, 22), Key: l.KeyFile}
	if j := l.Jump; j != nil {
		s.Jump = &savedJump{j.Host, j.User, j.Port, j.KeyFile}
	}
	return s
}

// Inventory is the file as a Clusterfile that says which hosts the cluster
// has and how to reach them, and nothing that may be secret: no
// passwords, environment, Config or kubeadm documents.
func (f *File) Inventory() ([]byte, error) {
	c := savedCluster{
		APIVersion: "sealer.io/v2", Kind: "Cluster", Metadata: savedName{f.Name},
		Spec: savedSpec{Image: f.Image, Registry: f.Registry.saved(false)},
	}
	for _, h := range f.Hosts {
		c.Spec.Hosts = append(c.Spec.Hosts, savedHost{
			IPs: []string{h.Address}, Roles: append([]string{string(h.Role)}, h.Roles...),
			SSH: saved(h.SSH),
		})
	}
	out, err := yaml.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("writing the inventory of %q: %w", f.Name, err)
	}
	return append([]byte(savedHeader), out...), nil
}
