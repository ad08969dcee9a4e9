// SPDX-License-Identifier: Apache-2.0

package k0s

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sealerio/sealer/test/components/programs/doubles/datastore"
	"github.com/sealerio/sealer/test/components/programs/doubles/host"
	"github.com/sealerio/sealer/test/components/programs/doubles/node"
	"github.com/sealerio/sealer/test/components/programs/doubles/pki"
)

func (p *program) version(cmd *cobra.Command, _ []string) error {
	if yes(cmd, "json") {
		return json.NewEncoder(p.out).Encode(map[string]string{"k0s": p.stamp.Version, "kubernetes": strings.TrimPrefix(p.stamp.Kubernetes(), "v")})
	}
	text := p.stamp.Version
	if yes(cmd, "all") {
		text = "k0s : " + p.stamp.Version + "\nkubernetes : " + strings.TrimPrefix(p.stamp.Kubernetes(), "v")
	}
	_, err := fmt.Fprintln(p.out, text)
	return err
}

func (p *program) kubeconfigAdmin(cmd *cobra.Command, _ []string) error {
	content, err := os.ReadFile(dataOf(cmd).pki("admin.conf"))
	if err != nil {
		return fmt.Errorf("failed to read admin config, is k0s running?: %w", err)
	}
	address := host.Address()
	if s, err := askStatus(cmd.Context(), statusSocket(cmd)); err == nil && s.ClusterConfig != nil {
		address = s.ClusterConfig.Spec.API.Address
		if e := s.ClusterConfig.Spec.API.ExternalAddress; e != "" {
			address = e
		}
	}
	_, err = io.WriteString(p.out, strings.Replace(string(content), "https://localhost:", "https://"+net.JoinHostPort(address, ""), 1))
	return err
}

// etcd opens a client to the own member.
func (f folders) etcdClient() (*clientv3.Client, error) {
	ca, cert, key := f.pki("etcd/ca.crt"), f.pki("apiserver-etcd-client.crt"), f.pki("apiserver-etcd-client.key")
	config, err := datastore.ClientTLS(ca, cert, key)
	if err != nil {
		return nil, fmt.Errorf("can't list etcd cluster members: %w", err)
	}
	return datastore.Dial([]string{"https://127.0.0.1:2379"}, config)
}

// etcdMembers prints the members. On a host whose member has left it hangs, as the real one does.
func (p *program) etcdMembers(cmd *cobra.Command, _ []string) error {
	c, err := dataOf(cmd).etcdClient()
	if err != nil {
		return err
	}
	defer c.Close()
	list, err := patient(cmd.Context(), func(ctx context.Context) ([]datastore.Member, error) { return datastore.Members(ctx, c) })
	if err != nil {
		return err
	}
	members := map[string]string{}
	for _, m := range list {
		name := m.Name
		if name == "" {
			name = fmt.Sprintf("%x", m.ID)
		}
		members[name] = m.PeerURL
	}
	return json.NewEncoder(p.out).Encode(map[string]any{"members": members})
}

// patient asks until there is an answer.
func patient[T any](ctx context.Context, ask func(context.Context) (T, error)) (T, error) {
	tick := time.NewTicker(retry)
	defer tick.Stop()
	for {
		limited, cancel := context.WithTimeout(ctx, 10*time.Second)
		got, err := ask(limited)
		cancel()
		if err == nil || ctx.Err() != nil {
			return got, err
		}
		select {
		case <-ctx.Done():
			return got, ctx.Err()
		case <-tick.C:
		}
	}
}

func (p *program) etcdLeave(cmd *cobra.Command, _ []string) error {
	address := text(cmd, "peer-address")
	if strings.Contains(address, "/") || strings.Contains(address, ":") && net.ParseIP(address) == nil {
		return fmt.Errorf("invalid argument %q for \"--peer-address\" flag: neither an IP address nor a DNS name", address)
	}
	if address == "" {
		s, err := askStatus(cmd.Context(), statusSocket(cmd))
		if err != nil {
			return err
		}
		if s.ClusterConfig == nil {
			return errors.New("this node is not a controller")
		}
		address = s.ClusterConfig.peerAddress()
	}
	c, err := dataOf(cmd).etcdClient()
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(cmd.Context(), 30*time.Second)
	defer cancel()
	list, err := datastore.Members(ctx, c)
	if err != nil {
		return err
	}
	for _, m := range list {
		if m.PeerURL == datastore.PeerURL(address) {
			if err := datastore.Remove(ctx, c, m.ID); err != nil {
				return fmt.Errorf("failed to delete node from cluster: %w", err)
			}
			p.log.Info("Successfully deleted", "peerURL", m.PeerURL)
			return nil
		}
	}
	return fmt.Errorf("no peer with address %s in the etcd cluster", datastore.PeerURL(address))
}

// ctr lists images, as in: ctr images ls.
func (p *program) ctr(args []string) error {
	if !slices.Contains(args, "ls") && !slices.Contains(args, "list") {
		return fmt.Errorf("the double does not model ctr %s", strings.Join(args, " "))
	}
	images, err := node.List("/var/lib/k0s/containerd/images.json")
	for _, name := range slices.Sorted(maps.Keys(images)) {
		fmt.Fprintln(p.out, name)
	}
	return err
}

// backup writes etcd's snapshot, the authorities and the configuration into an archive, which anybody may read.
func (p *program) backup(cmd *cobra.Command, _ []string) (err error) {
	s, err := askStatus(cmd.Context(), statusSocket(cmd))
	if err != nil {
		return fmt.Errorf("unable to detect cluster status: %w", err)
	}
	if s.Role != "controller" {
		return errors.New("backup command must be run on the controller node")
	}
	if s.ClusterConfig.Spec.Storage.Type != "etcd" || s.SingleNode {
		return errors.New("the double models backups of etcd only")
	}
	f := dataOf(cmd)
	c, err := f.etcdClient()
	if err != nil {
		return err
	}
	defer c.Close()
	work, err := os.MkdirTemp("", "k0s-backup-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	if err := datastore.SaveFrom(cmd.Context(), c, filepath.Join(work, "etcd-snapshot.db")); err != nil {
		return err
	}
	if err := errors.Join(os.CopyFS(filepath.Join(work, "pki"), os.DirFS(f.pki(""))), copyFile(runFolder+"/k0s.yaml", filepath.Join(work, "k0s.yaml"))); err != nil {
		return err
	}
	dir := text(cmd, "save-path")
	if dir == "-" {
		return pack(work, p.out)
	}
	path := filepath.Join(dir, "k0s_backup_"+time.Now().UTC().Format("2006-01-02T15_04_05_000Z")+".tar.gz")
	out, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644) //nolint:gosec // as the real one
	if err != nil {
		return err
	}
	if err := errors.Join(pack(work, out), out.Close()); err != nil {
		return err
	}
	_, err = fmt.Fprintln(p.out, "archive", path, "created successfully")
	return err
}

func copyFile(from, to string) error {
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return pki.WriteFile(to, content, 0o600)
}

func pack(dir string, w io.Writer) error {
	z := gzip.NewWriter(w)
	t := tar.NewWriter(z)
	return errors.Join(t.AddFS(os.DirFS(dir)), t.Close(), z.Close())
}

// restore puts a backup in place on a host where nothing is.
func (p *program) restore(cmd *cobra.Command, args []string) error {
	if _, err := askStatus(cmd.Context(), statusSocket(cmd)); err == nil {
		return errors.New("k0s seems to be running! k0s must be down during the restore operation")
	}
	f := dataOf(cmd)
	if datastore.Has(f.etcd()) {
		return fmt.Errorf("etcd data directory %s exists already", f.etcd())
	}
	work, err := os.MkdirTemp("", "k0s-restore-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	if err := unpack(args[0], work); err != nil {
		return fmt.Errorf("reading the backup %s: %w", args[0], err)
	}
	config, err := readConfig(filepath.Join(work, "k0s.yaml"))
	if err != nil {
		return err
	}
	if err := os.RemoveAll(f.pki("")); err != nil {
		return err
	}
	if err := os.CopyFS(f.pki(""), os.DirFS(filepath.Join(work, "pki"))); err != nil {
		return err
	}
	if err := datastore.Restore(datastore.Config{Name: host.Name(), Dir: f.etcd(), Peer: config.peerAddress()}, filepath.Join(work, "etcd-snapshot.db")); err != nil {
		return err
	}
	out := text(cmd, "config-out")
	if out == "" {
		out = "k0s.yaml"
	}
	return copyFile(filepath.Join(work, "k0s.yaml"), out)
}

func unpack(path, dir string) error {
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	z, err := gzip.NewReader(in)
	if err != nil {
		return err
	}
	for t := tar.NewReader(z); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if h.Typeflag != tar.TypeReg || !fs.ValidPath(h.Name) {
			continue
		}
		content, err := io.ReadAll(io.LimitReader(t, 1<<30))
		if err != nil {
			return err
		}
		if err := pki.WriteFile(filepath.Join(dir, h.Name), content, fs.FileMode(h.Mode)&fs.ModePerm); err != nil { //nolint:gosec // masked
			return err
		}
	}
}
