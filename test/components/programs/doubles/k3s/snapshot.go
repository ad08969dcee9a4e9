// SPDX-License-Identifier: Apache-2.0

package k3s

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/sealerio/sealer/test/components/programs/doubles/client"
	"github.com/sealerio/sealer/test/components/programs/doubles/datastore"
	"github.com/sealerio/sealer/test/components/programs/doubles/host"
	"github.com/sealerio/sealer/test/components/programs/doubles/journal"
	"github.com/sealerio/sealer/test/components/programs/doubles/pki"
)

// reset makes a cluster of this server alone, out of its own data or a snapshot, and ends.
func (s *server) reset(ctx context.Context) error {
	if exists(s.resetFlag()) {
		return errors.New("Managed etcd cluster membership was reset previously, please remove the cluster-reset flag and start k3s normally. If you need to perform another cluster reset, you must first manually delete the file at " + s.resetFlag()) //nolint:revive // the real one's words
	}
	path := s.text("cluster-reset-restore-path")
	if path == "" && !datastore.Has(s.etcd()) {
		return errors.New("etcd datastore is not initialized")
	}
	if host.Listening(net.JoinHostPort(s.loopback(), "2379")) {
		return errors.New("cannot perform cluster-reset while server is running")
	}
	if path != "" {
		if err := s.restore(path); err != nil {
			return err
		}
	}
	if err := os.Remove(s.tombstone()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := errors.Join(s.makeAuthorities(), s.makeEtcdCerts()); err != nil {
		return err
	}
	config := s.member("")
	config.Alone = true
	store, err := datastore.Start(ctx, config)
	if err != nil {
		return err
	}
	defer store.Close()
	got, err := store.Get(ctx, bootstrapKey)
	if err != nil {
		return err
	}
	if len(got.Kvs) > 0 {
		if err := s.openBootstrap(got.Kvs[0].Value, s.token.password); err != nil {
			return err
		}
	}
	s.journal.Add(journal.Entry{Event: "reset", Text: filepath.Base(path)})
	s.log.Info("Managed etcd cluster membership has been reset, restart without --cluster-reset flag now. Backup and delete ${datadir}/server/db on each peer etcd server and rejoin the nodes")
	return pki.WriteFile(s.resetFlag(), nil, 0o600)
}

// restore puts the snapshot's data in the place of the old, which is kept beside it.
func (s *server) restore(path string) error {
	if _, err := os.Stat(path); err != nil {
		return fmt.Errorf("etcd: snapshot path does not exist: %s", path)
	}
	name := s.memberName()
	if exists(s.etcd()) {
		if err := os.Rename(s.etcd(), fmt.Sprintf("%s-old-%d", s.etcd(), time.Now().Unix())); err != nil {
			return err
		}
	}
	if err := datastore.Restore(datastore.Config{Name: name, Dir: s.etcd(), Peer: s.address}, path); err != nil {
		return err
	}
	return pki.WriteFile(filepath.Join(s.etcd(), "name"), []byte(name), 0o600)
}

// snapshot is one that is kept on this host.
type snapshot struct {
	Name     string    `json:"name"`
	Location string    `json:"location"`
	Size     int64     `json:"size"`
	Created  time.Time `json:"createdAt"`
}

func (s *server) snapshotFolder() string {
	if dir := s.text("etcd-snapshot-dir"); dir != "" {
		return dir
	}
	return s.folders.server("db", "snapshots")
}

// snapshotHere is what the running server does for k3s etcd-snapshot.
func (s *server) snapshotHere(r *http.Request) ([]snapshot, error) {
	if s.store == nil || !datastore.Has(s.etcd()) {
		return nil, errors.New("etcd datastore disabled")
	}
	dir := r.URL.Query().Get("dir")
	if dir == "" {
		dir = s.snapshotFolder()
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	switch r.Method {
	case http.MethodPost:
		name := fmt.Sprintf("%s-%s-%d", r.URL.Query().Get("name"), s.name, time.Now().Unix())
		path := filepath.Join(dir, name)
		if err := s.store.Save(path); err != nil {
			return nil, err
		}
		return snapshots(dir, func(n string) bool { return n == name })
	case http.MethodDelete:
		names := r.URL.Query()["name"]
		list, err := snapshots(dir, func(n string) bool { return slices.Contains(names, n) })
		for _, one := range list {
			err = errors.Join(err, os.Remove(filepath.Join(dir, one.Name)))
		}
		return list, err
	}
	return snapshots(dir, func(string) bool { return true })
}

func snapshots(dir string, want func(string) bool) ([]snapshot, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	out := []snapshot{}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || e.IsDir() || !want(e.Name()) {
			continue
		}
		out = append(out, snapshot{Name: e.Name(), Location: "file://" + filepath.Join(dir, e.Name()), Size: info.Size(), Created: info.ModTime().UTC()})
	}
	return out, nil
}

// local is a client of this host's running server.
func (p *program) local(c *cli.Context) (*client.Client, error) {
	f := folders{c.String("data-dir")}
	if f.data == "" {
		f.data = "/var/lib/rancher/k3s"
	}
	text, err := os.ReadFile(f.server("token"))
	if err != nil {
		return nil, fmt.Errorf("see server log for details: %w", err)
	}
	t, err := parseToken(string(text))
	if err != nil {
		return nil, err
	}
	remote, _, err := supervisor(c.Context, "https://127.0.0.1:6443", t, "server", nil)
	return remote, err
}

func (p *program) askSnapshots(c *cli.Context, method string, query url.Values) ([]snapshot, error) {
	if dir := c.String("dir"); dir != "" {
		query.Set("dir", dir)
	}
	remote, err := p.local(c)
	if err != nil {
		return nil, err
	}
	var out []snapshot
	return out, remote.Do(c.Context, method, "/db/snapshot?"+query.Encode(), nil, "", &out)
}

func (p *program) snapshotSave(c *cli.Context) error {
	name := c.String("name")
	if name == "" {
		name = "on-demand"
	}
	list, err := p.askSnapshots(c, http.MethodPost, url.Values{"name": {name}})
	for _, s := range list {
		p.log.Info("Snapshot " + s.Name + " saved.")
	}
	return err
}

func (p *program) snapshotList(c *cli.Context) error {
	list, err := p.askSnapshots(c, http.MethodGet, url.Values{})
	if err != nil {
		return err
	}
	if c.String("output") == "json" {
		items := []any{}
		for _, s := range list {
			items = append(items, map[string]any{"metadata": map[string]any{"name": s.Name},
				"spec":   map[string]any{"snapshotName": s.Name, "location": s.Location},
				"status": map[string]any{"size": fmt.Sprint(s.Size), "creationTime": s.Created.Format(time.RFC3339), "readyToUse": true}})
		}
		return json.NewEncoder(p.out).Encode(map[string]any{"kind": "ETCDSnapshotFileList", "apiVersion": "k3s.cattle.io/v1", "items": items})
	}
	w := tabwriter.NewWriter(p.out, 0, 0, 1, ' ', 0)
	fmt.Fprintln(w, "Name\tLocation\tSize\tCreated")
	for _, s := range list {
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\n", s.Name, s.Location, s.Size, s.Created.Format(time.RFC3339))
	}
	return w.Flush()
}

func (p *program) snapshotDelete(c *cli.Context) error {
	if !c.Args().Present() {
		return errors.New("no snapshots given for removal")
	}
	list, err := p.askSnapshots(c, http.MethodDelete, url.Values{"name": c.Args().Slice()})
	for _, s := range list {
		p.log.Info("Snapshot " + s.Name + " deleted.")
	}
	if err == nil && len(list) == 0 {
		return fmt.Errorf("snapshot %s not found", strings.Join(c.Args().Slice(), ", "))
	}
	return err
}
