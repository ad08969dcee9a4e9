// SPDX-License-Identifier: Apache-2.0

package k0s

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"github.com/sealerio/sealer/test/components/programs/doubles/api"
	"github.com/sealerio/sealer/test/components/programs/doubles/datastore"
	"github.com/sealerio/sealer/test/components/programs/doubles/host"
	"github.com/sealerio/sealer/test/components/programs/doubles/journal"
	"github.com/sealerio/sealer/test/components/programs/doubles/pki"
	"github.com/sealerio/sealer/test/components/programs/doubles/plane"
)

// controller is a running k0s controller.
type controller struct {
	*program
	folders
	cmd         *cobra.Command
	config      clusterConfig
	name        string
	store       *datastore.Store
	plane       *plane.Plane
	authorities map[string]*pki.Authority
	off         []string // components that are disabled
}

// checkController refuses flags that cannot be.
func (p *program) checkController(cmd *cobra.Command, c clusterConfig) error {
	off, _ := cmd.Flags().GetStringSlice("disable-components")
	for _, o := range off {
		if !slices.Contains(p.facts.Components, o) {
			return fmt.Errorf("unknown component %s", o)
		}
	}
	if cplb := c.Spec.Network.CPLB; yes(cmd, "single") && cplb != nil && cplb.Enabled {
		return errors.New("control plane load balancing cannot be used in a single-node cluster")
	}
	if single := yes(cmd, "single"); single && text(cmd, "token-file") != "" {
		return errors.New("a single node cannot join a cluster")
	}
	return nil
}

func (p *program) controller(cmd *cobra.Command, args []string) error {
	config, err := readConfig(text(cmd, "config"))
	if err == nil {
		err = errors.Join(p.validate(config), p.checkController(cmd, config))
	}
	if err != nil {
		return err
	}
	worker := yes(cmd, "enable-worker") || yes(cmd, "single")
	if err := p.preflight(cmd, worker); err != nil {
		return err
	}
	c := &controller{program: p, folders: dataOf(cmd), cmd: cmd, config: config, name: host.Name()}
	c.off, _ = cmd.Flags().GetStringSlice("disable-components")
	join, err := joinToken(cmd, args)
	if err != nil {
		return err
	}
	if _, err := askStatus(cmd.Context(), statusSocket(cmd)); err == nil {
		return errors.New("another instance of k0s is already running")
	}
	ctx, cancel := context.WithCancel(cmd.Context())
	defer cancel()
	existing := ""
	if join != nil && !datastore.Has(c.etcd()) { // with data the token is of no interest
		if existing, err = c.join(ctx, join); err != nil {
			return err
		}
	}
	if err := c.certificates(); err != nil {
		return err
	}
	if err := c.openStore(ctx, existing); err != nil {
		return err
	}
	defer c.store.Close()
	if err := c.serve(ctx); err != nil {
		return err
	}
	p.journal.Add(journal.Entry{Event: "ready"})
	if worker {
		go c.ownNode(ctx)
	}
	<-ctx.Done() // also without etcd: the real one goes on when its member was taken out
	return nil
}

// preflight stops what the real one would stop.
func (p *program) preflight(cmd *cobra.Command, worker bool) error {
	if yes(cmd, "ignore-pre-flight-checks") {
		return nil
	}
	return rejected(p.checks(worker))
}

func (c *controller) kine() bool {
	return c.config.Spec.Storage.Type == "kine" || yes(c.cmd, "single")
}

// certificates makes the authorities once and the leaves at every start.
func (c *controller) certificates() error {
	c.authorities = map[string]*pki.Authority{}
	valid := 10 * pki.Year
	leaf := pki.Year
	if ca := c.config.Spec.API.CA; ca != nil {
		for text, into := range map[string]*time.Duration{ca.ExpiresAfter: &valid, ca.CertificatesExpireAfter: &leaf} {
			if text == "" {
				continue
			}
			d, err := time.ParseDuration(text)
			if err != nil {
				return fmt.Errorf("spec: api: ca: %w", err)
			}
			*into = d
		}
	}
	for base, name := range map[string]string{"ca": "kubernetes-ca", "front-proxy-ca": "kubernetes-front-proxy-ca", "etcd/ca": "etcd-ca"} {
		a, err := pki.EnsureCA(c.pki(base), name, valid)
		if err != nil {
			return err
		}
		c.authorities[base] = a
	}
	names := append([]string{"localhost", "127.0.0.1", "10.96.0.1", c.name, c.config.Spec.API.Address, c.config.Spec.API.ExternalAddress, host.Address(),
		"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local", "kubernetes.svc.cluster.local"}, c.config.Spec.API.SANs...)
	members := []string{"localhost", "127.0.0.1", c.name, c.config.peerAddress()}
	for base, want := range map[string]pki.Want{
		"server":                   {Name: "kubernetes", Names: names, Server: true, Client: true},
		"k0s-api":                  {Name: "k0s-api", Names: names, Server: true},
		"apiserver-etcd-client":    {Name: "apiserver-etcd-client", Client: true},
		"apiserver-kubelet-client": {Name: "apiserver-kubelet-client", Groups: []string{"system:masters"}, Client: true},
		"admin":                    {Name: "kubernetes-admin", Groups: []string{"system:masters"}, Client: true},
		"ccm":                      {Name: "system:kube-controller-manager", Client: true},
		"scheduler":                {Name: "system:kube-scheduler", Client: true},
		"konnectivity":             {Name: "kubernetes-konnectivity", Groups: []string{"system:masters"}, Client: true},
		"front-proxy-client":       {Name: "front-proxy-client", Client: true},
		"etcd/server":              {Name: "etcd-server", Names: members, Server: true, Client: true},
		"etcd/peer":                {Name: c.name, Names: members, Server: true, Client: true},
	} {
		authority := "ca"
		switch {
		case base == "front-proxy-client":
			authority = "front-proxy-ca"
		case strings.HasPrefix(base, "etcd/"), base == "apiserver-etcd-client":
			authority = "etcd/ca"
		}
		want.Valid = leaf
		if err := c.authorities[authority].Ensure(c.pki(base), want, leaf); err != nil { // never valid for longer: anew each time
			return err
		}
	}
	content, err := plane.Kubeconfig(fmt.Sprintf("https://localhost:%d", c.config.Spec.API.Port), c.authorities["ca"], c.authorities["ca"], "local", "kubernetes-admin", "system:masters")
	if err != nil {
		return err
	}
	return errors.Join(pki.WriteFile(c.pki("admin.conf"), content, 0o600), pki.EnsureKey(c.pki("sa.key")))
}

func (c *controller) openStore(ctx context.Context, existing string) (err error) {
	if c.kine() {
		if c.store, err = datastore.Start(ctx, datastore.Config{Name: "default", Dir: c.at("db", "state")}); err != nil {
			return err
		}
		return pki.WriteFile(c.at("db", "state.db"), []byte("SQLite format 3\x00"), 0o600)
	}
	c.store, err = datastore.Start(ctx, datastore.Config{Name: c.name, Dir: c.etcd(), Listen: []string{"127.0.0.1"}, Peer: c.config.peerAddress(), Existing: existing,
		Files: datastore.Files{CA: c.pki("etcd/ca.crt"), Cert: c.pki("etcd/server.crt"), Key: c.pki("etcd/server.key"),
			PeerCA: c.pki("etcd/ca.crt"), PeerCert: c.pki("etcd/peer.crt"), PeerKey: c.pki("etcd/peer.key")}})
	return err
}

func definitions() []api.Definition {
	define := func(group, version, resource, kind string) api.Definition {
		return api.Definition{GroupVersionResource: schema.GroupVersionResource{Group: group, Version: version, Resource: resource}, Kind: kind}
	}
	config := define("k0s.k0sproject.io", "v1beta1", "clusterconfigs", "ClusterConfig")
	config.Namespaced = true
	return []api.Definition{define("etcd.k0sproject.io", "v1beta1", "etcdmembers", "EtcdMember"), define("autopilot.k0sproject.io", "v1beta2", "controlnodes", "ControlNode"),
		define("autopilot.k0sproject.io", "v1beta2", "plans", "Plan"), config}
}

// serve opens the ports and makes what is behind them.
func (c *controller) serve(ctx context.Context) (err error) {
	running, err := yaml.Marshal(c.config)
	if err != nil {
		return err
	}
	if err := errors.Join(pki.WriteFile(runFolder+"/k0s.yaml", running, 0o600), c.writeManifests()); err != nil {
		return err
	}
	c.plane, err = plane.Start(ctx, plane.Config{
		Store: c.store.Client, Leads: c.store.Leads, Version: c.stamp.Version, Address: c.config.Spec.API.Address, Port: c.config.Spec.API.Port,
		ServerCA: c.authorities["ca"], ClientCA: c.authorities["ca"], Cert: c.pki("server"), Definitions: definitions(),
		Bearer: c.bearer, Manifests: []string{c.at("manifests")}, Log: c.log,
	})
	if err != nil {
		return err
	}
	if !slices.Contains(c.off, "control-api") && !c.kine() {
		if err := c.serveJoin(ctx); err != nil {
			return err
		}
	}
	if err := c.writeObjects(ctx); err != nil {
		return err
	}
	if l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", ":8132"); err == nil { // konnectivity's
		context.AfterFunc(ctx, func() { _ = l.Close() })
	}
	go c.followMembers(ctx)
	return serveStatus(ctx, statusSocket(c.cmd), c.now)
}

func (c *controller) now() statusAnswer {
	s := statusAnswer{Version: c.stamp.Version, Pid: os.Getpid(), Role: "controller", SysInit: sysInit(), StubFile: unitPath("controller"),
		Workloads: yes(c.cmd, "enable-worker") || yes(c.cmd, "single"), SingleNode: yes(c.cmd, "single"), Args: os.Args, ClusterConfig: &c.config,
		K0sVars: map[string]any{"DataDir": c.data, "CertRootDir": c.pki(""), "AdminKubeConfigPath": c.pki("admin.conf"), "StatusSocketPath": statusSocket(c.cmd)}}
	s.Worker.Success = s.Workloads
	return s
}

// bearer is the user of a bootstrap token for nodes.
func (c *controller) bearer(ctx context.Context, token string) (api.User, bool) {
	id, _, _ := strings.Cut(token, ".")
	return api.User{Name: "system:bootstrap:" + id, Groups: []string{"system:bootstrappers"}}, c.plane != nil && c.plane.BootstrapToken(ctx, token, "authentication")
}

// followMembers keeps an object for each member of etcd, and takes out those that are told to leave.
func (c *controller) followMembers(ctx context.Context) {
	if c.kine() {
		return
	}
	tick := time.NewTicker(3 * time.Second)
	defer tick.Stop()
	for {
		if c.store.Leads() {
			if err := c.members(ctx); err != nil && ctx.Err() == nil {
				c.log.Warn("following etcd's members", "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

const membersPath = "/apis/etcd.k0sproject.io/v1beta1/etcdmembers"

func (c *controller) members(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	list, err := datastore.Members(ctx, c.store.Client)
	if err != nil {
		return err
	}
	objects, err := c.plane.Client.List(ctx, membersPath)
	if err != nil {
		return err
	}
	joined := func(name string, m datastore.Member, yes string) error {
		address := strings.Trim(strings.TrimSuffix(strings.TrimPrefix(m.PeerURL, "https://"), ":2380"), "[]")
		return c.plane.Apply(ctx, map[string]any{"apiVersion": "etcd.k0sproject.io/v1beta1", "kind": "EtcdMember", "metadata": map[string]any{"name": name},
			"status": map[string]any{"memberID": fmt.Sprintf("%x", m.ID), "peerAddress": address, "conditions": []any{map[string]any{"type": "Joined", "status": yes}}}})
	}
	for _, m := range list {
		if m.Name == "" {
			continue
		}
		leave := false
		for _, o := range objects {
			if o.GetName() == m.Name {
				leave, _, _ = unstructured.NestedBool(o.Object, "spec", "leave")
			}
		}
		if leave {
			if err := errors.Join(datastore.Remove(ctx, c.store.Client, m.ID), joined(m.Name, m, "False")); err != nil {
				return err
			}
		} else if err := joined(m.Name, m, "True"); err != nil {
			return err
		}
	}
	return nil
}
