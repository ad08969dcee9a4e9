// SPDX-License-Identifier: Apache-2.0

package k3s

import (
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sealerio/sealer/test/components/programs/doubles/api"
	"github.com/sealerio/sealer/test/components/programs/doubles/host"
	"github.com/sealerio/sealer/test/components/programs/doubles/pki"
)

// renewBefore is how long before its end a certificate is made anew at a start.
const renewBefore = 120 * 24 * time.Hour

// makeAuthorities reads the cluster's authorities, or makes those that are missing.
func (s *server) makeAuthorities() error {
	s.authorities = map[string]*pki.Authority{}
	for _, name := range []string{"server-ca", "client-ca", "request-header-ca", "etcd/server-ca", "etcd/peer-ca"} {
		a, err := pki.EnsureCA(s.tls(name), fmt.Sprintf("k3s-%s@%d", name, time.Now().Unix()), 10*pki.Year)
		if err != nil {
			return err
		}
		s.authorities[name] = a
	}
	s.token.hash = pki.Hash(s.authorities["server-ca"].PEM)
	s.agentToken.hash = s.token.hash
	return pki.EnsureKey(s.tls("service.key"))
}

func (s *server) makeEtcdCerts() error {
	names := []string{"localhost", s.name, s.address, "127.0.0.1", "::1"}
	for base, want := range map[string]pki.Want{
		"etcd/server-client":      {Name: "etcd-server", Groups: []string{"etcd-server"}, Names: names, Server: true, Client: true},
		"etcd/client":             {Name: "etcd-client", Groups: []string{"etcd-client"}, Client: true},
		"etcd/peer-server-client": {Name: "etcd-peer", Groups: []string{"etcd-peer"}, Names: names, Server: true, Client: true},
	} {
		authority := "etcd/server-ca"
		if base == "etcd/peer-server-client" {
			authority = "etcd/peer-ca"
		}
		if err := s.authorities[authority].Ensure(s.tls(base), want, renewBefore); err != nil {
			return err
		}
	}
	return nil
}

// serverNames are what the API's certificate has to say.
func (s *server) serverNames() []string {
	names := append([]string{"localhost", "127.0.0.1", "::1", "10.43.0.1", s.name, host.Name(), s.address,
		"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"}, s.list("tls-san")...)
	names = append(names, s.list("node-external-ip")...)
	if a := s.text("advertise-address"); a != "" {
		names = append(names, a)
	}
	return names
}

// makeCerts makes the leaves, and anew those that end soon or lack a name.
func (s *server) makeCerts() error {
	masters := []string{"system:masters"}
	for base, want := range map[string]pki.Want{
		"client-admin":                  {Name: "system:admin", Groups: masters, Client: true},
		"client-kube-apiserver":         {Name: "system:apiserver", Groups: masters, Client: true},
		"client-controller":             {Name: "system:kube-controller-manager", Client: true},
		"client-scheduler":              {Name: "system:kube-scheduler", Client: true},
		"client-supervisor":             {Name: "system:k3s-supervisor", Groups: masters, Client: true},
		"client-kube-proxy":             {Name: "system:kube-proxy", Client: true},
		"client-k3s-controller":         {Name: "system:k3s-controller", Client: true},
		"client-k3s-cloud-controller":   {Name: "k3s-cloud-controller-manager", Client: true},
		"serving-kube-apiserver":        {Name: "kube-apiserver", Names: s.serverNames(), Server: true},
		"kube-controller-manager/serve": {Name: "kube-controller-manager", Names: []string{"localhost", "127.0.0.1"}, Server: true},
		"kube-scheduler/serve":          {Name: "kube-scheduler", Names: []string{"localhost", "127.0.0.1"}, Server: true},
		"client-auth-proxy":             {Name: "system:auth-proxy", Client: true},
	} {
		authority := "client-ca"
		switch {
		case want.Server:
			authority = "server-ca"
		case base == "client-auth-proxy":
			authority = "request-header-ca"
		}
		if err := s.authorities[authority].Ensure(s.tls(base), want, renewBefore); err != nil {
			return err
		}
	}
	return nil
}

func define(group, version, resource, kind string, namespaced bool) api.Definition {
	return api.Definition{GroupVersionResource: schema.GroupVersionResource{Group: group, Version: version, Resource: resource}, Kind: kind, Namespaced: namespaced}
}
