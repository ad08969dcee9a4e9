// SPDX-License-Identifier: Apache-2.0

package k3s

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/sealerio/sealer/test/components/programs/doubles/client"
	"github.com/sealerio/sealer/test/components/programs/doubles/facts"
	"github.com/sealerio/sealer/test/components/programs/doubles/host"
	"github.com/sealerio/sealer/test/components/programs/doubles/journal"
	"github.com/sealerio/sealer/test/components/programs/doubles/mirror"
	"github.com/sealerio/sealer/test/components/programs/doubles/node"
	"github.com/sealerio/sealer/test/components/programs/doubles/pki"
)

// member is the node part of a server or an agent.
type member struct {
	*program
	settings
	folders
	name, address string
	server        string // URL
	token         token
	user          string // for the supervisor
	labels        map[string]string
	annotations   map[string]string
	control       bool
}

func (p *program) agent(c *cli.Context) error {
	set, err := p.settings(c, "agent")
	if err != nil {
		return err
	}
	m := &member{program: p, settings: set, folders: folders{set.text("data-dir")}, server: set.text("server"), user: "node"}
	text, err := readSecret(set, "token", "token-file")
	if err != nil {
		return err
	}
	if text == "" && !exists(m.folders.agent("client-kubelet.crt")) {
		return errors.New("--token is required")
	}
	if m.server == "" {
		return errors.New("--server is required")
	}
	if !strings.HasPrefix(m.server, "https://") {
		return fmt.Errorf("failed to validate server URL %q: only https:// URLs are supported", m.server)
	}
	if m.token, err = parseToken(text); err != nil {
		return err
	}
	if err := checkRoute(); err != nil {
		return err
	}
	if err := set.checkRuntime(c.Context); err != nil {
		return err
	}
	if m.name, m.address, err = identity(set); err != nil {
		return err
	}
	return m.run(c.Context, func() {
		p.journal.Add(journal.Entry{Event: "ready"})
		host.Ready()
	})
}

// ownNode is the node part of a server.
func (s *server) ownNode(ctx context.Context) error {
	m := &member{program: s.program, settings: s.settings, folders: s.folders, name: s.name, address: s.address, user: "server", token: s.token, control: true,
		server: fmt.Sprintf("https://127.0.0.1:%d", s.number("https-listen-port")),
		labels: map[string]string{"node-role.kubernetes.io/control-plane": "true"}, annotations: map[string]string{}}
	if exists(s.etcd()) {
		m.labels["node-role.kubernetes.io/etcd"] = "true"
		m.annotations[annotationMember], m.annotations[annotationAddress] = s.memberName(), s.address
	}
	return m.run(ctx, func() {})
}

// run joins and is the node until ctx ends. joined is called once the cluster has taken the host.
func (m *member) run(ctx context.Context, joined func()) error {
	remote, ca, err := m.connect(ctx)
	if err != nil {
		return err
	}
	tick := time.NewTicker(retry)
	defer tick.Stop()
	for {
		err := m.certificate(ctx, remote, ca)
		if err == nil {
			break
		}
		m.log.Warn(err.Error()) // and again: the real one never gives up
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
	var config shared
	if err := remote.Do(ctx, http.MethodGet, "/v1-k3s/config", nil, "", &config); err != nil {
		return err
	}
	api, err := m.api(ca)
	if err != nil {
		return err
	}
	socket := "/run/k3s/containerd/containerd.sock"
	if m.text("container-runtime-endpoint") != "" {
		socket = "" // the host's
	}
	if err := host.Occupy(ctx, socket); err != nil {
		return fmt.Errorf("starting the kubelet: %w", err)
	}
	joined()
	go m.follow(ctx, remote, api)
	return m.be(ctx, api, config)
}

// connect waits for a server that shows the authority of the token.
func (m *member) connect(ctx context.Context) (*client.Client, []byte, error) {
	password, err := nodePassword()
	if err != nil {
		return nil, nil, err
	}
	header := http.Header{}
	header.Set("k3s-Node-Name", m.name)
	header.Set("k3s-Node-Password", password)
	tick := time.NewTicker(retry)
	defer tick.Stop()
	for {
		servers := []string{m.server}
		if !m.control {
			servers = append(servers, m.known()...)
		}
		for _, s := range servers {
			remote, ca, err := supervisor(ctx, s, m.token, m.user, header)
			if err == nil {
				return remote, ca, nil
			}
			if isHashError(err) {
				return nil, nil, err
			}
			m.log.Warn(err.Error())
		}
		select {
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		case <-tick.C:
		}
	}
}

// nodePassword is the host's own, made once.
func nodePassword() (string, error) {
	text, err := os.ReadFile(nodePasswordPath)
	if err == nil {
		return strings.TrimSpace(string(text)), nil
	}
	password := randomHex(16)
	return password, pki.WriteFile(nodePasswordPath, []byte(password+"\n"), 0o600)
}

func (m *member) certificate(ctx context.Context, remote *client.Client, ca []byte) error {
	var got certAnswer
	if err := remote.Do(ctx, http.MethodPost, "/v1-k3s/client-kubelet.crt", nil, "", &got); err != nil {
		return err
	}
	for name, content := range map[string][]byte{"client-kubelet.crt": got.Cert, "client-ca.crt": got.ClientCA, "server-ca.crt": ca, "serving-kubelet.crt": got.Cert} {
		if err := pki.WriteFile(m.folders.agent(name), content, 0o644); err != nil {
			return err
		}
	}
	kubeconfig := fmt.Sprintf("apiVersion: v1\nkind: Config\nclusters:\n- name: local\n  cluster:\n    server: %s\n    certificate-authority: %s\nusers:\n- name: user\n  user:\n    client-certificate: %s\n    client-key: %s\ncontexts:\n- name: Default\n  context:\n    cluster: local\n    user: user\ncurrent-context: Default\n",
		m.server, m.folders.agent("server-ca.crt"), m.folders.agent("client-kubelet.crt"), m.folders.agent("client-kubelet.key"))
	return errors.Join(pki.WriteFile(m.folders.agent("client-kubelet.key"), got.Key, 0o600), pki.WriteFile(m.folders.agent("serving-kubelet.key"), got.Key, 0o600),
		pki.WriteFile(m.folders.agent("kubelet.kubeconfig"), []byte(kubeconfig), 0o600))
}

func (m *member) api(ca []byte) (*client.Client, error) {
	pair, err := tls.LoadX509KeyPair(m.folders.agent("client-kubelet.crt"), m.folders.agent("client-kubelet.key"))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	servers := []string{m.server}
	if !m.control {
		servers = append(servers, m.known()...)
	}
	return client.New(&tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}, nil, servers...), nil
}

// balancer is the state file of the real one's client load balancer.
type balancer struct {
	ServerURL       string
	ServerAddresses []string
}

func (m *member) balancerPath() string { return m.folders.agent("etc", "k3s-agent-load-balancer.json") }

// known are the servers that were learnt in earlier runs.
func (m *member) known() []string {
	var b balancer
	if text, err := os.ReadFile(m.balancerPath()); err == nil {
		_ = json.Unmarshal(text, &b)
	}
	out := make([]string, len(b.ServerAddresses))
	for i, a := range b.ServerAddresses {
		out[i] = "https://" + a
	}
	return out
}

// follow keeps an agent's list of servers up to date.
func (m *member) follow(ctx context.Context, remote, api *client.Client) {
	if m.control {
		return
	}
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for {
		var servers []string
		if err := remote.Do(ctx, http.MethodGet, "/v1-k3s/apiservers", nil, "", &servers); err == nil && len(servers) > 0 {
			b := balancer{ServerURL: m.server}
			urls := []string{m.server}
			for _, s := range servers {
				b.ServerAddresses = append(b.ServerAddresses, net.JoinHostPort(s, "6443"))
				if u := "https://" + net.JoinHostPort(s, "6443"); u != m.server {
					urls = append(urls, u)
				}
			}
			api.SetServers(urls)
			remote.SetServers(urls)
			if text, err := json.Marshal(b); err == nil {
				_ = pki.WriteFile(m.balancerPath(), text, 0o600)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// be the node.
func (m *member) be(ctx context.Context, api *client.Client, config shared) error {
	find, err := mirror.Registries(m.text("private-registry"), m.yes("disable-default-registry-endpoint"))
	if err != nil {
		return err
	}
	images, err := facts.Images(m.stamp)
	if err != nil {
		return err
	}
	pause := m.text("pause-image")
	if pause == "" {
		pause = images["pause"]
	}
	pause = prefixed(config.SystemDefaultRegistry, pause)
	labels := map[string]string{"node.kubernetes.io/instance-type": "k3s"}
	maps.Copy(labels, m.labels)
	for _, l := range m.list("node-label") {
		k, v, _ := strings.Cut(l, "=")
		labels[k] = v
	}
	annotations := map[string]string{"k3s.io/hostname": host.Name(), "k3s.io/internal-ip": m.address}
	maps.Copy(annotations, m.annotations)
	runtime := "containerd://2.2.3-k3s1"
	store := node.OpenImages(m.folders.agent("containerd", "images.json"), m.folders.agent("images"), find, m.journal)
	if m.yes("docker") {
		docker := node.NewDocker(dockerSocket, kubeletLogins)
		version, err := docker.Version(ctx)
		if err != nil {
			return err
		}
		store, runtime = node.KeptBy(docker, m.journal), "docker://"+version
	} else if socket := m.text("container-runtime-endpoint"); socket != "" {
		theirs, err := node.NewCRI(endpoint(socket))
		if err != nil {
			return err
		}
		if sandbox, err := theirs.Sandbox(); err == nil { // its own: k3s has no say. Some containerd do not tell
			pause = sandbox
		}
		store, runtime = node.KeptBy(theirs, m.journal), "containerd://"
	}
	return node.Run(ctx, node.Config{
		Name: m.name, Version: m.stamp.Version, Runtime: runtime, Addresses: append([]string{m.address}, further(m.settings)...), External: m.list("node-external-ip"),
		Labels: labels, Annotations: annotations, Taints: m.list("node-taint"), Client: api, Images: store,
		Needed: func() []string { return []string{pause} }, Log: m.log,
	})
}

// prefixed is an image in the registry that stands in for all, where there is one.
func prefixed(registry, image string) string {
	if registry == "" {
		return image
	}
	return registry + "/" + mirror.Parse(image).Repository + ":" + mirror.Parse(image).Tag
}

// Where k3s' cri-dockerd finds docker, and its kubelet the logins of registries.
const (
	dockerSocket  = "/var/run/docker.sock"
	kubeletLogins = "/var/lib/kubelet/config.json"
)

// endpoint is a CRI socket as kubelets want it.
func endpoint(socket string) string {
	if strings.Contains(socket, "://") {
		return socket
	}
	return "unix://" + socket
}

// checkRuntime ends the program where docker, or a container runtime of the host, is asked for and does not answer.
func (s settings) checkRuntime(ctx context.Context) error {
	if !s.yes("docker") {
		socket := s.text("container-runtime-endpoint")
		if socket == "" {
			return nil
		}
		_, err := node.NewCRI(endpoint(socket))
		return err
	}
	_, err := node.NewDocker(dockerSocket, kubeletLogins).Version(ctx)
	return err
}
