// SPDX-License-Identifier: Apache-2.0

package clusterfile

import (
	"path"
	"strings"
)

// K3s is the document of kind K3s: keys of k3s' config.yaml (docs.k3s.io/installation/configuration), for the hosts
// of each role. Values are string, Secret, int64, bool and, for keys that take several, []string.
type K3s struct {
	Server, Agent map[string]any
	// IgnoreChecks are checks of hosts that are passed over: cpu, memory, cgroup, selinux.
	IgnoreChecks []string
}

// k3s reads a K3s document.
func (s *source) k3s(doc *node, shapes schema) *K3s {
	k := &K3s{Server: s.k3sKeys(doc.child("server"), shapes["K3sServer"]), Agent: s.k3sKeys(doc.child("agent"), shapes["K3sAgent"])}
	if n := doc.child("ignoreChecks"); n != nil {
		k.IgnoreChecks = n.listOfTexts()
	}
	s.k3sDatastore(doc.at("server"))
	s.k3sRuntime(doc.child("server"))
	s.k3sRuntime(doc.child("agent"))
	return k
}

func (s *source) k3sKeys(n *node, fields map[string]string) map[string]any {
	keys := map[string]any{}
	if n == nil {
		return keys
	}
	for i, key := range n.keys {
		v := n.values[i]
		want, _, _ := strings.Cut(fields[key], "=")
		switch {
		case v.kind == nullNode: // as if it were not there
		case want == "texts":
			keys[key] = v.listOfTexts()
		case want == "secret":
			keys[key] = s.secret(n, key)
		case want == "port":
			p, _ := port(v.scalar)
			keys[key] = int64(p)
		default:
			keys[key] = v.scalar
		}
	}
	return keys
}

// listOfTexts takes one text for a list of one.
func (n *node) listOfTexts() []string {
	if n.kind != listNode {
		text, _ := n.scalar.(string)
		return []string{text}
	}
	list := make([]string, len(n.values))
	for i, v := range n.values {
		list[i], _ = v.scalar.(string)
	}
	return list
}

// k3sDatastore finds what k3s itself would stop at, or not notice, after hosts have been changed.
func (s *source) k3sDatastore(server *node) {
	has := func(key string) bool { n := server.child(key); return n != nil && n.kind != nullNode }
	if init, _ := server.at("cluster-init").scalar.(bool); init && has("datastore-endpoint") {
		s.fail(server.keyNode("cluster-init"), "cluster-init is for k3s' own etcd, and datastore-endpoint names another datastore: choose one")
	}
	if !has("datastore-endpoint") {
		for _, key := range []string{"datastore-cafile", "datastore-certfile", "datastore-keyfile"} {
			if has(key) {
				s.fail(server.keyNode(key), "%s is of no use without datastore-endpoint", key)
			}
		}
	}
	if has("datastore-certfile") != has("datastore-keyfile") {
		s.fail(server, "datastore-certfile and datastore-keyfile go together")
	}
}

// k3sRuntime finds hosts with two container runtimes, and sockets that are none.
func (s *source) k3sRuntime(n *node) {
	if n == nil {
		return
	}
	socket := n.child("container-runtime-endpoint")
	if socket == nil || socket.kind == nullNode {
		return
	}
	if docker, _ := n.at("docker").scalar.(bool); docker {
		s.fail(n.keyNode("docker"), "docker and container-runtime-endpoint are two container runtimes: choose one")
	}
	if text, ok := socket.scalar.(string); ok && text != "" && !path.IsAbs(strings.TrimPrefix(text, "unix://")) {
		s.fail(n.keyNode("container-runtime-endpoint"), "container-runtime-endpoint is the socket of a container runtime on the host, such as unix:///run/containerd/containerd.sock")
	}
}

// RuntimeSocket is the path of the socket of a containerd that the hosts of a role have themselves, as the Clusterfile says; empty where Kubernetes
// brings what runs its containers, or docker does it.
func (f *File) RuntimeSocket(role Role) string {
	if f.K3s == nil {
		return ""
	}
	keys := f.K3s.Agent
	if role == ControlPlane {
		keys = f.K3s.Server
	}
	socket, _ := keys["container-runtime-endpoint"].(string)
	if socket == "" || keys["docker"] == true {
		return ""
	}
	return path.Clean(strings.TrimPrefix(socket, "unix://"))
}

// keyNode is where a key of a mapping stands; the mapping itself where it is not there.
func (n *node) keyNode(key string) *node {
	for i, k := range n.keys {
		if k == key {
			return n.keyNodes[i]
		}
	}
	return n
}
