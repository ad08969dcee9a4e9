// SPDX-License-Identifier: Apache-2.0

package k3s

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sealerio/sealer/test/components/programs/doubles/api"
	"github.com/sealerio/sealer/test/components/programs/doubles/datastore"
	"github.com/sealerio/sealer/test/components/programs/doubles/host"
	"github.com/sealerio/sealer/test/components/programs/doubles/journal"
	"github.com/sealerio/sealer/test/components/programs/doubles/pki"
	"github.com/sealerio/sealer/test/components/programs/doubles/plane"
)

// server is a running k3s server.
type server struct {
	*program
	settings
	folders
	token, agentToken token
	name, address     string
	store             *datastore.Store
	client            *clientv3.Client // the store's, or that of an external etcd
	plane             *plane.Plane
	authorities       map[string]*pki.Authority
}

func (p *program) server(c *cli.Context) error {
	s, err := p.newServer(c)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(c.Context)
	defer cancel()
	if s.yes("cluster-reset") {
		return s.reset(ctx)
	}
	if err := s.checkRuntime(ctx); err != nil {
		return err
	}
	if err := s.openStore(ctx); err != nil {
		return err
	}
	if s.store != nil {
		defer s.store.Close()
	}
	if err := s.serve(ctx); err != nil {
		return err
	}
	_ = os.Remove(s.resetFlag())
	p.journal.Add(journal.Entry{Event: "ready"})
	host.Ready()
	if !s.yes("disable-agent") {
		go func() {
			if err := s.ownNode(ctx); err != nil {
				p.log.Error("the node part stopped", "error", err)
			}
		}()
	}
	return s.wait(ctx)
}

// wait until the program is told to stop, or is taken out of the cluster.
func (s *server) wait(ctx context.Context) error {
	if s.store == nil {
		<-ctx.Done()
		return nil
	}
	select {
	case <-ctx.Done():
		return nil
	case <-s.store.Removed():
		s.journal.Add(journal.Entry{Event: "removed"})
		return errors.Join(errRemoved, pki.WriteFile(s.tombstone(), nil, 0o600))
	}
}

var errRemoved = errors.New("this server has been removed from the cluster")

func (p *program) newServer(c *cli.Context) (*server, error) {
	if c.Args().Present() {
		return nil, fmt.Errorf("unexpected argument %q", c.Args().First())
	}
	set, err := p.settings(c, "server")
	if err != nil {
		return nil, err
	}
	s := &server{program: p, settings: set, folders: folders{set.text("data-dir")}}
	if err := s.check(); err != nil {
		return nil, err
	}
	if s.name, s.address, err = identity(set); err != nil {
		return nil, err
	}
	if err := s.oneFamily(s.address); err != nil {
		return nil, err
	}
	return s, s.readTokens()
}

// check refuses what the real one refuses before it does anything.
func (s *server) check() error {
	for _, d := range s.list("disable") {
		if !slices.Contains(s.facts.Disable, d) {
			return fmt.Errorf("invalid disable item: %s", d)
		}
	}
	for flag, values := range s.facts.RemovedValues {
		if v := s.text(flag); slices.Contains(values, v) {
			return fmt.Errorf("%s=%s is no longer supported", flag, v)
		}
	}
	external := s.text("datastore-endpoint") != ""
	switch {
	case s.text("cluster-reset-restore-path") != "" && !s.yes("cluster-reset"):
		return errors.New("invalid flag use; --cluster-reset required with --cluster-reset-restore-path")
	case s.yes("disable-etcd") && s.text("server") == "":
		return errors.New("invalid flag use; --server is required with --disable-etcd")
	case external && (s.yes("disable-etcd") || s.yes("disable-apiserver")):
		return errors.New("invalid flag use; cannot use --disable-etcd with --datastore-endpoint")
	case s.text("server") != "" && !strings.HasPrefix(s.text("server"), "https://"):
		return fmt.Errorf("failed to validate server URL %q: only https:// URLs are supported", s.text("server"))
	}
	return checkRoute()
}

// identity is the node's name and address.
func identity(s settings) (name, address string, err error) {
	name = s.text("node-name")
	if name == "" {
		name = host.Name()
	}
	if s.yes("with-node-id") {
		id, err := os.ReadFile("/etc/rancher/node/id")
		if err != nil {
			id = []byte(randomHex(4))
			if err := pki.WriteFile("/etc/rancher/node/id", id, 0o600); err != nil {
				return "", "", err
			}
		}
		name += "-" + string(id)
	}
	address = host.Address()
	if ips := split(s.list("node-ip")); len(ips) > 0 {
		address = ips[0]
	}
	return name, address, nil
}

// further are the node's addresses behind the first.
func further(s settings) []string {
	if ips := split(s.list("node-ip")); len(ips) > 1 {
		return ips[1:]
	}
	return nil
}

// split takes lists with commas in a list apart.
func split(list []string) []string {
	var out []string
	for _, l := range list {
		out = append(out, strings.Split(l, ",")...)
	}
	return out
}

// oneFamily refuses networks that do not fit the node's addresses or one another, as the real one does (its pkg/cli/server).
func (s *server) oneFamily(address string) error {
	families := func(list []string, otherwise string) string {
		if len(list) == 0 {
			list = []string{otherwise}
		}
		var all []string
		for _, a := range split(list) {
			f := "IPv4"
			if strings.Contains(a, ":") {
				f = "IPv6"
			}
			if !slices.Contains(all, f) {
				all = append(all, f)
			}
		}
		slices.Sort(all)
		return strings.Join(all, ",")
	}
	pods, services := families(s.list("cluster-cidr"), "10.42.0.0/16"), families(s.list("service-cidr"), "10.43.0.0/16")
	if nodes := families(s.list("node-ip"), address); nodes != pods {
		return fmt.Errorf("cluster-cidr: %v and node-ip: %v, must share the same IP version (IPv4, IPv6 or dual-stack)", pods, nodes)
	}
	if services != pods {
		return fmt.Errorf("cluster-cidr: %v and service-cidr: %v, must share the same IP version (IPv4, IPv6 or dual-stack)", pods, services)
	}
	return nil
}

// readTokens takes the tokens from the settings, or from the file that the first start has written.
func (s *server) readTokens() error {
	text, err := readSecret(s.settings, "token", "token-file")
	if err != nil {
		return err
	}
	kept, err := os.ReadFile(s.folders.server("token"))
	if text == "" && err == nil {
		text = string(kept)
	}
	if text == "" {
		if s.text("server") != "" {
			return errors.New("--token is required to join a cluster")
		}
		text = randomHex(16)
	}
	if s.token, err = parseToken(text); err != nil {
		return err
	}
	if kept != nil {
		if old, err := parseToken(string(kept)); err == nil && old.password != s.token.password {
			return errOtherToken
		}
	}
	s.token.user = "server"
	text, err = readSecret(s.settings, "agent-token", "agent-token-file")
	if err != nil {
		return err
	}
	if s.agentToken, err = parseToken(text); err != nil {
		return err
	}
	if text == "" {
		s.agentToken = s.token
	}
	s.agentToken.user = "node"
	return nil
}

// openStore starts, continues or joins the datastore. What is on disk goes before what the settings say.
func (s *server) openStore(ctx context.Context) error {
	etcd, sqlite := s.etcd(), s.folders.server("db", "state.db")
	switch {
	case exists(s.tombstone()):
		return fmt.Errorf("%w: remove %s to join again", errRemoved, s.folders.server("db"))
	case datastore.Has(etcd):
		return s.startEtcd(ctx, "")
	case s.text("datastore-endpoint") != "":
		return s.openExternal(ctx)
	case s.text("server") != "":
		return s.join(ctx)
	case s.yes("cluster-init"):
		if err := s.makeAuthorities(); err != nil {
			return err
		}
		if err := s.startEtcd(ctx, ""); err != nil {
			return err
		}
		if exists(sqlite) {
			return s.migrate(ctx)
		}
		return s.keepBootstrap(ctx)
	}
	if err := s.makeAuthorities(); err != nil {
		return err
	}
	if err := s.startPrivate(ctx); err != nil {
		return err
	}
	if err := pki.WriteFile(sqlite, []byte("SQLite format 3\x00"), 0o600); err != nil {
		return err
	}
	return s.keepBootstrap(ctx)
}

// privateStore stands in for SQLite: etcd that nobody else reaches.
func (s *server) privateStore() string { return s.folders.server("db", "state") }

func (s *server) startPrivate(ctx context.Context) (err error) {
	s.store, err = datastore.Start(ctx, datastore.Config{Name: "default", Dir: s.privateStore()})
	if err == nil {
		s.client = s.store.Client
	}
	return err
}

func (s *server) memberFiles() datastore.Files {
	return datastore.Files{
		CA: s.tls("etcd", "server-ca.crt"), Cert: s.tls("etcd", "server-client.crt"), Key: s.tls("etcd", "server-client.key"),
		PeerCA: s.tls("etcd", "peer-ca.crt"), PeerCert: s.tls("etcd", "peer-server-client.crt"), PeerKey: s.tls("etcd", "peer-server-client.key"),
	}
}

// loopback is of the family of the services' network that comes first (Control.Loopback in k3s' pkg/daemons/config/types.go).
func (s *server) loopback() string {
	if first, _, _ := strings.Cut(strings.Join(s.list("service-cidr"), ","), ","); strings.Contains(first, ":") {
		return "::1"
	}
	return "127.0.0.1"
}

func (s *server) member(existing string) datastore.Config {
	return datastore.Config{Name: s.memberName(), Dir: s.etcd(), Listen: []string{s.loopback(), s.address}, Peer: s.address, Files: s.memberFiles(), Existing: existing}
}

// memberName is the node's name with a suffix that a member keeps.
func (s *server) memberName() string {
	path := filepath.Join(s.etcd(), "name")
	if text, err := os.ReadFile(path); err == nil {
		return string(text)
	}
	name := s.name + "-" + randomHex(4)
	if err := pki.WriteFile(path, []byte(name), 0o600); err != nil {
		s.log.Warn("keeping the member's name", "error", err)
	}
	return name
}

func (s *server) startEtcd(ctx context.Context, existing string) (err error) {
	if err := s.makeAuthorities(); err != nil {
		return err
	}
	if err := s.makeEtcdCerts(); err != nil {
		return err
	}
	if s.store, err = datastore.Start(ctx, s.member(existing)); err != nil {
		return err
	}
	s.client = s.store.Client
	return nil
}

// migrate takes the objects of the SQLite stand-in into etcd.
func (s *server) migrate(ctx context.Context) error {
	old, err := datastore.Start(ctx, datastore.Config{Name: "default", Dir: s.privateStore()})
	if err != nil {
		return err
	}
	defer old.Close()
	all, err := old.Get(ctx, "/", clientv3.WithPrefix())
	if err != nil {
		return err
	}
	for _, kv := range all.Kvs {
		if strings.Contains(string(kv.Key), "masterleases") {
			continue
		}
		if _, err := s.client.Put(ctx, string(kv.Key), string(kv.Value)); err != nil {
			return err
		}
	}
	return os.Rename(s.folders.server("db", "state.db"), s.folders.server("db", "state.db.migrated"))
}

// openExternal uses an etcd of the user's. Databases are not modelled.
func (s *server) openExternal(ctx context.Context) error {
	endpoint := s.text("datastore-endpoint")
	if !strings.HasPrefix(endpoint, "http://") && !strings.HasPrefix(endpoint, "https://") {
		return errors.New("the double models etcd as an external datastore, and nothing else")
	}
	tlsConfig, err := datastore.ClientTLS(s.text("datastore-cafile"), s.text("datastore-certfile"), s.text("datastore-keyfile"))
	if err != nil {
		return err
	}
	if s.client, err = datastore.Dial(strings.Split(endpoint, ","), tlsConfig); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	got, err := s.client.Get(ctx, bootstrapKey)
	if err != nil {
		return fmt.Errorf("starting kubernetes: preparing server: %w", err)
	}
	if len(got.Kvs) > 0 {
		return errors.Join(s.openBootstrap(got.Kvs[0].Value, s.token.password), s.makeAuthorities())
	}
	if err := s.makeAuthorities(); err != nil {
		return err
	}
	return s.keepBootstrap(ctx)
}

const bootstrapKey = "/bootstrap"

// keepBootstrap puts the authorities into the datastore, for servers that join and for a restore.
func (s *server) keepBootstrap(ctx context.Context) error {
	got, err := s.client.Get(ctx, bootstrapKey)
	if err != nil || len(got.Kvs) > 0 {
		return err
	}
	sealed, err := s.sealBootstrap(s.token.password)
	if err != nil {
		return err
	}
	_, err = s.client.Put(ctx, bootstrapKey, string(sealed))
	return err
}

// leads tells whether this server does what one server does.
func (s *server) leads() bool { return s.store == nil || s.store.Leads() }

func definitions() []api.Definition {
	return []api.Definition{define("k3s.cattle.io", "v1", "addons", "Addon", true), define("k3s.cattle.io", "v1", "etcdsnapshotfiles", "ETCDSnapshotFile", false),
		define("helm.cattle.io", "v1", "helmcharts", "HelmChart", true), define("helm.cattle.io", "v1", "helmchartconfigs", "HelmChartConfig", true)}
}
