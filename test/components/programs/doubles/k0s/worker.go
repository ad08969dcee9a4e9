// SPDX-License-Identifier: Apache-2.0

package k0s

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"
	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/sealerio/sealer/test/components/programs/doubles/client"
	"github.com/sealerio/sealer/test/components/programs/doubles/host"
	"github.com/sealerio/sealer/test/components/programs/doubles/journal"
	"github.com/sealerio/sealer/test/components/programs/doubles/mirror"
	"github.com/sealerio/sealer/test/components/programs/doubles/node"
	"github.com/sealerio/sealer/test/components/programs/doubles/pki"
)

// dropIns is the folder whose files extend containerd's configuration.
const dropIns = "/etc/k0s/containerd.d"

// worker is the node part of a host.
type worker struct {
	*program
	folders
	cmd    *cobra.Command
	name   string
	find   mirror.Finder
	labels map[string]string
	taints []string
	joined bool
}

func (p *program) newWorker(cmd *cobra.Command) (*worker, error) {
	find, err := p.mirrors()
	if err != nil {
		return nil, err
	}
	w := &worker{program: p, folders: dataOf(cmd), cmd: cmd, name: host.Name(), find: find, labels: map[string]string{}}
	for _, a := range strings.Fields(text(cmd, "kubelet-extra-args")) {
		if v, ok := strings.CutPrefix(a, "--hostname-override="); ok {
			w.name = v
		}
	}
	labels, _ := cmd.Flags().GetStringToString("labels")
	for k, v := range labels {
		w.labels[k] = v
	}
	w.taints, _ = cmd.Flags().GetStringSlice("taints")
	return w, nil
}

// mirrors reads the drop-ins as the containerd of the version does. One for the other's containerd stops 1.36 and
// later, and goes unseen before.
func (p *program) mirrors() (mirror.Finder, error) {
	files, err := filepath.Glob(dropIns + "/*.toml")
	if err != nil {
		return nil, err
	}
	table, want := "io.containerd.grpc.v1.cri", int64(2)
	if p.stamp.Minor() >= 36 {
		table, want = "io.containerd.cri.v1.images", 3
	}
	var folders []string
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		var c struct {
			Version int64                     `toml:"version"`
			Plugins map[string]map[string]any `toml:"plugins"`
		}
		if err := toml.Unmarshal(content, &c); err != nil {
			return nil, fmt.Errorf("failed to load containerd config %s: %w", file, err)
		}
		_, old := c.Plugins["io.containerd.grpc.v1.cri"]
		if want == 3 && (old || c.Version != 0 && c.Version != 3) {
			return nil, fmt.Errorf("pre-flight checks failed: containerd configuration %s is for containerd 1.x (version %d): convert it to version 3", file, c.Version)
		}
		registry, _ := c.Plugins[table]["registry"].(map[string]any)
		if path, _ := registry["config_path"].(string); path != "" && (c.Version == want || c.Version == 0) {
			folders = strings.Split(path, ":")
		}
	}
	if folders == nil {
		return mirror.Nowhere, nil
	}
	return mirror.HostsFolders(folders), nil
}

func (p *program) worker(cmd *cobra.Command, args []string) error {
	if err := p.preflight(cmd, true); err != nil {
		return err
	}
	w, err := p.newWorker(cmd)
	if err != nil {
		return err
	}
	kubeconfig := w.at("kubelet.conf")
	if _, err := os.Stat(kubeconfig); errors.Is(err, fs.ErrNotExist) {
		token, err := joinToken(cmd, args)
		if err != nil {
			return err
		}
		if token == nil {
			return errors.New("normal kubelet kubeconfig does not exist and no join-token given. dunno how to make kubelet auth to api")
		}
		if token.user != "kubelet-bootstrap" {
			return fmt.Errorf("wrong token type %s, expected type: kubelet-bootstrap", token.user)
		}
		if err := w.bootstrap(cmd.Context(), token); err != nil {
			return err
		}
	}
	if err := serveStatus(cmd.Context(), statusSocket(cmd), w.now); err != nil {
		return err
	}
	api, err := w.client(kubeconfig)
	if err != nil {
		return err
	}
	return w.be(cmd.Context(), api)
}

func (w *worker) now() statusAnswer {
	s := statusAnswer{Version: w.stamp.Version, Pid: os.Getpid(), Role: "worker", SysInit: sysInit(), StubFile: unitPath("worker"), Workloads: true, Args: os.Args,
		K0sVars: map[string]any{"DataDir": w.data, "KubeletAuthConfigPath": w.at("kubelet.conf"), "StatusSocketPath": statusSocket(w.cmd)}}
	s.Worker.Success = w.joined
	return s
}

// bootstrap asks for a node's certificate until there is one; a token that is not taken is no reason to stop.
func (w *worker) bootstrap(ctx context.Context, i *invitation) error {
	if err := pki.WriteFile(w.at("kubelet-bootstrap.conf"), []byte("# server: "+i.server+"\n"), 0o600); err != nil {
		return err
	}
	key := w.at("kubelet", "pki", "kubelet-client-current.key")
	request, err := pki.NewRequest(key, "system:node:"+w.name, "system:nodes")
	if err != nil {
		return err
	}
	tick := time.NewTicker(retry)
	defer tick.Stop()
	for {
		made, err := i.client().Create(ctx, "/apis/certificates.k8s.io/v1/certificatesigningrequests", map[string]any{"apiVersion": "certificates.k8s.io/v1",
			"kind": "CertificateSigningRequest", "metadata": map[string]any{"generateName": "csr-"},
			"spec": map[string]any{"request": base64.StdEncoding.EncodeToString(request), "signerName": "kubernetes.io/kube-apiserver-client-kubelet", "usages": []string{"client auth"}}})
		if err == nil {
			encoded, _, _ := unstructured.NestedString(made.Object, "status", "certificate")
			cert, err := base64.StdEncoding.DecodeString(encoded)
			if err != nil {
				return err
			}
			return errors.Join(w.writeKubeconfig(i.server, i.ca, cert, key), os.Remove(w.at("kubelet-bootstrap.conf")))
		}
		w.log.Warn("failed to get a kubelet certificate", "error", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

func (w *worker) writeKubeconfig(server string, ca, cert []byte, key string) error {
	pem := strings.TrimSuffix(key, ".key") + ".pem"
	if err := errors.Join(pki.WriteFile(pem, cert, 0o600), pki.WriteFile(w.pki("ca.crt"), ca, 0o644)); err != nil {
		return err
	}
	content := fmt.Sprintf("apiVersion: v1\nkind: Config\nclusters:\n- name: k0s\n  cluster:\n    server: %s\n    certificate-authority: %s\nusers:\n- name: default-auth\n  user:\n    client-certificate: %s\n    client-key: %s\ncontexts:\n- name: default\n  context:\n    cluster: k0s\n    user: default-auth\ncurrent-context: default\n",
		server, w.pki("ca.crt"), pem, key)
	return pki.WriteFile(w.at("kubelet.conf"), []byte(content), 0o600)
}

func (w *worker) client(kubeconfig string) (*client.Client, error) {
	content, err := os.ReadFile(kubeconfig)
	if err != nil {
		return nil, err
	}
	var k struct {
		Clusters []struct {
			Cluster struct {
				Server string `json:"server"`
				CA     string `json:"certificate-authority"`
			} `json:"cluster"`
		} `json:"clusters"`
		Users []struct {
			User struct {
				Cert string `json:"client-certificate"`
				Key  string `json:"client-key"`
			} `json:"user"`
		} `json:"users"`
	}
	if err := yaml.Unmarshal(content, &k); err != nil || len(k.Clusters) == 0 || len(k.Users) == 0 {
		return nil, fmt.Errorf("reading %s: it is no kubeconfig: %w", kubeconfig, err)
	}
	pair, err := tls.LoadX509KeyPair(k.Users[0].User.Cert, k.Users[0].User.Key)
	if err != nil {
		return nil, err
	}
	ca, err := os.ReadFile(k.Clusters[0].Cluster.CA)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	return client.New(&tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}, nil, k.Clusters[0].Cluster.Server), nil
}

// be the node, once the controllers have the configuration for nodes of this version.
func (w *worker) be(ctx context.Context, api *client.Client) error {
	name := text(w.cmd, "profile")
	if name == "" {
		name = "default"
	}
	p, err := w.profile(ctx, api, profileName(name, w.stamp.Minor()))
	if err != nil {
		return err
	}
	w.joined = true
	if p.FailCgroupV1 && !unifiedCgroups() {
		w.journal.Add(journal.Entry{Event: "fatal", Text: "kubelet: cgroup v1"})
		w.log.Error("kubelet exited: kubelet is configured to not run on a host using cgroup v1")
		<-ctx.Done() // k0s goes on and restarts its kubelet in vain
		return nil
	}
	if err := host.Occupy(ctx, runFolder+"/containerd.sock"); err != nil {
		return err
	}
	if p.LoadBalanced {
		go w.balance(ctx, api)
	}
	w.journal.Add(journal.Entry{Event: "ready"})
	runtime := "containerd://1.7.34"
	if w.stamp.Minor() >= 36 {
		runtime = "containerd://2.3.3"
	}
	version, _, _ := strings.Cut(w.stamp.Version, "+")
	images := node.OpenImages(w.at("containerd", "images.json"), w.at("images"), w.find, w.journal)
	return node.Run(ctx, node.Config{Name: w.name, Version: version + "+k0s", Runtime: runtime, Addresses: strings.Split(w.address(), ","), Labels: w.labels, Taints: w.taints,
		Client: api, Images: images, Needed: func() []string { return p.Needed }, Log: w.log})
}

func (w *worker) address() string {
	for _, a := range strings.Fields(text(w.cmd, "kubelet-extra-args")) {
		if v, ok := strings.CutPrefix(a, "--node-ip="); ok {
			return v
		}
	}
	return host.Address()
}

// profile waits for the configuration; workers that are newer than the controllers wait for ever.
func (w *worker) profile(ctx context.Context, api *client.Client, name string) (p profile, err error) {
	tick := time.NewTicker(retry)
	defer tick.Stop()
	for {
		got, err := api.Get(ctx, "/api/v1/namespaces/kube-system/configmaps/"+name)
		if err == nil {
			content, _, _ := unstructured.NestedString(got.Object, "data", "profile")
			return p, json.Unmarshal([]byte(content), &p)
		}
		w.log.Warn("failed to load configuration for worker profile", "name", name, "found", !apierrors.IsNotFound(err), "error", err)
		select {
		case <-ctx.Done():
			return p, ctx.Err()
		case <-tick.C:
		}
	}
}

// balance is node-local load balancing: the node learns all controllers.
func (w *worker) balance(ctx context.Context, api *client.Client) {
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for {
		if got, err := api.Get(ctx, "/api/v1/namespaces/default/endpoints/kubernetes"); err == nil {
			var urls []string
			subsets, _, _ := unstructured.NestedSlice(got.Object, "subsets")
			for _, s := range subsets {
				addresses, _, _ := unstructured.NestedSlice(s.(map[string]any), "addresses")
				for _, a := range addresses {
					if m, ok := a.(map[string]any); ok {
						urls = append(urls, "https://"+net.JoinHostPort(fmt.Sprint(m["ip"]), "6443"))
					}
				}
			}
			api.SetServers(urls)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// ownNode is the node part of a controller.
func (c *controller) ownNode(ctx context.Context) {
	w, err := c.newWorker(c.cmd)
	if err == nil {
		w.labels["node-role.kubernetes.io/control-plane"] = "true"
		w.labels["node.k0sproject.io/role"] = "control-plane"
		if !yes(c.cmd, "no-taints") && !yes(c.cmd, "single") {
			w.taints = append(w.taints, "node-role.kubernetes.io/control-plane:NoSchedule")
		}
		err = w.asNode(ctx, c)
	}
	if err != nil && ctx.Err() == nil {
		c.journal.Add(journal.Entry{Event: "fatal", Text: err.Error()})
		c.log.Error("the worker part stopped", "error", err)
	}
}

func (w *worker) asNode(ctx context.Context, c *controller) error {
	cert, key, err := c.authorities["ca"].Issue(pki.Want{Name: "system:node:" + w.name, Groups: []string{"system:nodes"}, Client: true})
	if err != nil {
		return err
	}
	keyFile := w.at("kubelet", "pki", "kubelet-client-current.key")
	if err := pki.WriteFile(keyFile, key, 0o600); err != nil {
		return err
	}
	if err := w.writeKubeconfig(fmt.Sprintf("https://127.0.0.1:%d", c.config.Spec.API.Port), c.authorities["ca"].PEM, cert, keyFile); err != nil {
		return err
	}
	api, err := w.client(w.at("kubelet.conf"))
	if err != nil {
		return err
	}
	return w.be(ctx, api)
}
