// SPDX-License-Identifier: Apache-2.0

// Package node is what sealer does on a host: it keeps the content that was
// sent there, unpacks and mounts the cluster rootfs, fills in templates, and
// serves the packed images. Everything it makes lies below one folder, except
// for one systemd unit, and can be taken away without a trace.
package node

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/sealerio/sealer/rootfs"
	"github.com/sealerio/sealer/store"
)

// DefaultRoot is where everything is kept, and DefaultRun what is mounted.
const (
	DefaultRoot = "/var/lib/sealer/node"
	DefaultRun  = "/run/sealer-node"
)

// maxDocument bounds JSON on standard input.
const maxDocument = 64 << 20

// Init must come first in main. Where it returns true the process was started to unpack a layer, and must return.
func Init() bool { return rootfs.Init() }

// Node is sealer's place on this host.
type Node struct {
	root, run string
	unitDir   string
	initDir   string // of OpenRC's services; empty where the host boots with systemd
	// The host's own docker.
	dockerSocket, dockerCerts string
	clusterCA, kubeletPEM     string
	log                       *slog.Logger
}

// Options say where the node keeps things.
type Options struct {
	Root    string // default DefaultRoot
	UnitDir string // of the registry's unit; default /etc/systemd/system
	// InitDir is for the registry's service in the place of a unit. Default /etc/init.d, where the host was booted by OpenRC.
	InitDir string
	// DockerSocket and DockerCerts are of the host's own docker. Default /var/run/docker.sock and /etc/docker/certs.d.
	DockerSocket, DockerCerts string
	// ClusterCA and KubeletPEM are what the host's kubelet has. Default as kubeadm makes them.
	ClusterCA, KubeletPEM string
	Logger                *slog.Logger // default: silent
}

// New is the node in a folder. Nothing is made until something is kept there.
func New(o Options) (*Node, error) {
	if o.Root == "" {
		o.Root = DefaultRoot
	}
	if o.UnitDir == "" {
		o.UnitDir = "/etc/systemd/system"
		if o.InitDir == "" && bootedByOpenRC() {
			o.InitDir = "/etc/init.d"
		}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	root, err := filepath.Abs(o.Root)
	if err != nil {
		return nil, fmt.Errorf("finding the root folder: %w", err)
	}
	n := &Node{
		root: root, run: filepath.Join(root, "run"), unitDir: o.UnitDir, initDir: o.InitDir, log: o.Logger,
		dockerSocket: cmp.Or(o.DockerSocket, dockerSocket), dockerCerts: cmp.Or(o.DockerCerts, dockerCerts),
		clusterCA: cmp.Or(o.ClusterCA, clusterCA), kubeletPEM: cmp.Or(o.KubeletPEM, kubeletPEM),
	}
	if root == DefaultRoot {
		n.run = DefaultRun
	}
	return n, nil
}

func (n *Node) storeDir() string    { return filepath.Join(n.root, "store") }
func (n *Node) rootfsDir() string   { return filepath.Join(n.root, "rootfs") }
func (n *Node) registryDir() string { return filepath.Join(n.root, "registry") }

func (n *Node) openStore() (*store.Store, error) {
	if err := os.MkdirAll(n.root, 0o700); err != nil {
		return nil, fmt.Errorf("making the root folder: %w", err)
	}
	return store.Open(n.storeDir())
}

func (n *Node) openRootfs() (*rootfs.Storage, error) {
	return rootfs.Open(rootfs.Options{Dir: n.rootfsDir(), RunDir: n.run, Logger: n.log})
}

// readJSON reads one JSON document; what is unknown or too much in it is an error.
func readJSON(r io.Reader, what string, into any) error {
	d := json.NewDecoder(io.LimitReader(r, maxDocument))
	d.DisallowUnknownFields()
	d.UseNumber()
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("reading %s: %w", what, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("reading %s: something follows it", what)
	}
	return nil
}
