// SPDX-License-Identifier: Apache-2.0

// Package datastore runs etcd inside the double: members, learners, quorum, snapshots and data folders are etcd's own.
package datastore

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/etcdutl/v3/snapshot"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.uber.org/zap"
)

// Files are the certificates of a member.
type Files struct {
	CA, Cert, Key             string // for clients
	PeerCA, PeerCert, PeerKey string // between members
}

// Config says which member to run. Zero Files make a store that nobody else reaches, on sockets in Dir.
type Config struct {
	Name, Dir string
	Listen    []string // addresses for clients, on port 2379
	Peer      string   // address for members, on port 2380
	Files     Files
	// Existing is the whole member list as name=url, comma separated, of the cluster to join. Empty starts a cluster,
	// or goes on with what is in Dir.
	Existing string
	// Alone takes the data in Dir for a new cluster of this member only.
	Alone bool
}

// Member of the cluster.
type Member struct {
	ID      uint64
	Name    string // empty until it has started
	PeerURL string
	Learner bool
}

// Store is a running member.
type Store struct {
	*clientv3.Client
	etcd *embed.Etcd
}

// Has tells whether there is data of a member in dir.
func Has(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "member"))
	return err == nil
}

// PeerURL is the address of a member on a host.
func PeerURL(ip string) string { return "https://" + net.JoinHostPort(ip, "2380") }

// Start runs the member until Close. It waits until the member serves, which needs a quorum.
func Start(ctx context.Context, c Config) (*Store, error) {
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir = c.Name, c.Dir
	cfg.LogLevel = "fatal"   // its errors are about members that come and go
	cfg.UnsafeNoFsync = true // tests kill programs, not machines
	cfg.TickMs, cfg.ElectionMs = 300, 3000
	cfg.ForceNewCluster = c.Alone
	cfg.AutoCompactionMode, cfg.AutoCompactionRetention = "periodic", "1h"
	if c.Files == (Files{}) {
		client, peer := url.URL{Scheme: "unix", Path: filepath.Join(c.Dir, "client.sock")}, url.URL{Scheme: "unix", Path: filepath.Join(c.Dir, "peer.sock")}
		if err := os.MkdirAll(c.Dir, 0o700); err != nil {
			return nil, fmt.Errorf("making the datastore's folder: %w", err)
		}
		// Nobody else is to reach it, but etcd wants addresses with ports to tell others.
		toldClient, told := url.URL{Scheme: "http", Host: "127.0.0.1:2379"}, url.URL{Scheme: "http", Host: "127.0.0.1:2380"}
		cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{client}, []url.URL{toldClient}
		cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{peer}, []url.URL{told}
		cfg.InitialCluster = c.Name + "=" + told.String()
	} else {
		peer := url.URL{Scheme: "https", Host: net.JoinHostPort(c.Peer, "2380")}
		cfg.ListenClientUrls = nil
		for _, l := range c.Listen {
			cfg.ListenClientUrls = append(cfg.ListenClientUrls, url.URL{Scheme: "https", Host: net.JoinHostPort(l, "2379")})
		}
		cfg.AdvertiseClientUrls = []url.URL{{Scheme: "https", Host: net.JoinHostPort(c.Listen[len(c.Listen)-1], "2379")}}
		cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
		cfg.ClientTLSInfo = transport.TLSInfo{CertFile: c.Files.Cert, KeyFile: c.Files.Key, TrustedCAFile: c.Files.CA, ClientCertAuth: true}
		cfg.PeerTLSInfo = transport.TLSInfo{CertFile: c.Files.PeerCert, KeyFile: c.Files.PeerKey, TrustedCAFile: c.Files.PeerCA, ClientCertAuth: true}
		cfg.InitialCluster = c.Name + "=" + peer.String()
	}
	if c.Existing != "" {
		cfg.InitialCluster, cfg.ClusterState = c.Existing, embed.ClusterStateFlagExisting
	}
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		return nil, fmt.Errorf("starting etcd: %w", err)
	}
	s := &Store{etcd: e, Client: v3client.New(e.Server)}
	select {
	case <-e.Server.ReadyNotify():
		return s, nil
	case <-e.Server.StopNotify():
		s.Close()
		return nil, errors.New("starting etcd: it stopped")
	case <-ctx.Done():
		s.Close()
		return nil, fmt.Errorf("starting etcd: %w", ctx.Err())
	}
}

// Close stops the member.
func (s *Store) Close() { s.etcd.Close() }

// Removed is closed when the member has stopped by itself: it was taken out of the cluster.
func (s *Store) Removed() <-chan struct{} { return s.etcd.Server.StopNotify() }

// Leads tells whether this member is the cluster's leader: what one process of the cluster does is done there.
func (s *Store) Leads() bool { return s.etcd.Server.Leader() == s.etcd.Server.MemberID() }

// ID of this member.
func (s *Store) ID() uint64 { return uint64(s.etcd.Server.MemberID()) }

// Learner tells whether this member has no vote yet.
func (s *Store) Learner() bool { return s.etcd.Server.IsLearner() }

// Members of the cluster, as the quorum has them.
func Members(ctx context.Context, c *clientv3.Client) ([]Member, error) {
	list, err := c.MemberList(ctx)
	if err != nil {
		return nil, fmt.Errorf("listing etcd members: %w", err)
	}
	return members(list.Members), nil
}

func members(list []*etcdserverpb.Member) []Member {
	out := make([]Member, len(list))
	for i, m := range list {
		out[i] = Member{ID: m.ID, Name: m.Name, Learner: m.IsLearner}
		if len(m.PeerURLs) > 0 {
			out[i].PeerURL = m.PeerURLs[0]
		}
	}
	return out
}

// Add makes name a member and returns the list that it has to start with. A second voter makes the first one wait until
// it has started: nothing is asked of a quorum after that, and the same member may be added again.
func Add(ctx context.Context, c *clientv3.Client, name, peerURL string, learner bool) (existing string, err error) {
	got, err := c.MemberList(ctx, clientv3.WithSerializable())
	if err != nil {
		return "", fmt.Errorf("listing etcd members: %w", err)
	}
	list := members(got.Members)
	if slices.ContainsFunc(list, func(m Member) bool { return m.PeerURL != peerURL && m.Name == name }) {
		return "", ErrDuplicate
	}
	if !slices.ContainsFunc(list, func(m Member) bool { return m.PeerURL == peerURL }) {
		add := c.MemberAdd
		if learner {
			add = c.MemberAddAsLearner
		}
		added, err := add(ctx, []string{peerURL})
		if err != nil {
			return "", fmt.Errorf("adding etcd member: %w", err)
		}
		list = members(added.Members)
	}
	var pairs []string
	for _, m := range list {
		switch {
		case m.PeerURL == peerURL:
			m.Name = name
		case m.Name == "":
			m.Name = fmt.Sprintf("unstarted-%x", m.ID) // etcd wants the whole list, and compares addresses
		}
		pairs = append(pairs, m.Name+"="+m.PeerURL)
	}
	return strings.Join(pairs, ","), nil
}

// ErrDuplicate says that another member has the name.
var ErrDuplicate = errors.New("duplicate node name found, please use a unique name for this node")

// Remove takes a member out.
func Remove(ctx context.Context, c *clientv3.Client, id uint64) error {
	if _, err := c.MemberRemove(ctx, id); err != nil {
		return fmt.Errorf("removing etcd member: %w", err)
	}
	return nil
}

// Dial opens a client to other members.
func Dial(endpoints []string, tlsConfig *tls.Config) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{Endpoints: endpoints, TLS: tlsConfig, DialTimeout: 10 * time.Second, Logger: zap.NewNop()})
}

// Save writes a snapshot of this member's store to path, whole or not at all: the database, and its SHA-256 behind it,
// as etcdutl reads it.
func (s *Store) Save(path string) (err error) {
	f, err := os.OpenFile(path+".part", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("taking a snapshot: %w", err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("taking a snapshot: %w", errors.Join(err, f.Close(), os.Remove(path+".part")))
		}
	}()
	h := sha256.New()
	now := s.etcd.Server.Backend().Snapshot()
	_, err = now.WriteTo(io.MultiWriter(f, h))
	if err = errors.Join(err, now.Close()); err != nil {
		return err
	}
	if _, err = f.Write(h.Sum(nil)); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	return os.Rename(path+".part", path)
}

// SaveFrom writes a snapshot of another program's member.
func SaveFrom(ctx context.Context, c *clientv3.Client, path string) error {
	r, err := c.Snapshot(ctx)
	if err != nil {
		return fmt.Errorf("taking a snapshot: %w", err)
	}
	defer r.Close()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("taking a snapshot: %w", err)
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}

// ClientTLS reads a client's files; it is nil where none are named.
func ClientTLS(ca, cert, key string) (*tls.Config, error) {
	if ca == "" && cert == "" {
		return nil, nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca != "" {
		text, err := os.ReadFile(ca)
		if err != nil {
			return nil, err
		}
		c.RootCAs = x509.NewCertPool()
		c.RootCAs.AppendCertsFromPEM(text)
	}
	if cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, err
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// Restore makes the data folder of a new cluster of one member out of a snapshot.
func Restore(c Config, path string) error {
	err := snapshot.NewV3(zap.NewNop()).Restore(snapshot.RestoreConfig{
		SnapshotPath: path, Name: c.Name, OutputDataDir: c.Dir,
		PeerURLs: []string{PeerURL(c.Peer)}, InitialCluster: c.Name + "=" + PeerURL(c.Peer), InitialClusterToken: "etcd-cluster",
	})
	if err != nil {
		return fmt.Errorf("restoring the snapshot %q: %w", path, err)
	}
	return nil
}
