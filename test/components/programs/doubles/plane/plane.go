// SPDX-License-Identifier: Apache-2.0

// Package plane is one host's part of the control plane, without what k3s and k0s do each in its own way: the API on
// a port, the controllers where this host's etcd leads, the manifests in a folder, and the list of all API servers.
package plane

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/sealerio/sealer/test/components/programs/doubles/api"
	"github.com/sealerio/sealer/test/components/programs/doubles/client"
	"github.com/sealerio/sealer/test/components/programs/doubles/control"
	"github.com/sealerio/sealer/test/components/programs/doubles/pki"
)

// Config says how the control plane is made.
type Config struct {
	Store       *clientv3.Client
	Leads       func() bool // whether this host does what one host does
	Version     string
	Address     string // of this host, for the others
	Port        int
	ServerCA    *pki.Authority
	ClientCA    *pki.Authority
	Cert        string // base of the serving certificate's files
	Definitions []api.Definition
	OnDelete    func(context.Context, *client.Object) error
	// Bearer knows the users of tokens; nil knows none.
	Bearer func(ctx context.Context, token string) (api.User, bool)
	// Front is asked first; it tells whether it has answered.
	Front     func(http.ResponseWriter, *http.Request) bool
	Manifests []string // folders whose manifests are applied
	Log       *slog.Logger
}

// Plane runs.
type Plane struct {
	// Client is a member of system:masters on this host's API.
	Client *client.Client
	api    *api.Server
	config Config
	lease  clientv3.LeaseID
}

const admins = "system:masters"

// endpointsPrefix is where the API servers of a cluster list themselves.
const endpointsPrefix = "/registry/masterleases/"

const endpointTTL = 15 // seconds

// Start serves until ctx ends, and returns once the API answers.
func Start(ctx context.Context, c Config) (*Plane, error) {
	p := &Plane{config: c}
	p.api = api.New(c.Store, api.Config{Version: c.Version, Who: p.who, Definitions: c.Definitions, OnDelete: c.OnDelete, Sign: p.sign})
	if err := p.serve(ctx); err != nil {
		return nil, err
	}
	cert, key, err := c.ClientCA.Issue(pki.Want{Name: "system:admin", Groups: []string{admins}, Client: true})
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, err
	}
	p.Client = client.New(&tls.Config{RootCAs: c.ServerCA.Pool(), Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}, nil,
		fmt.Sprintf("https://127.0.0.1:%d", c.Port))
	for _, name := range []string{"default", "kube-system", "kube-public", "kube-node-lease"} {
		if err := p.api.Apply(ctx, &client.Object{Object: map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": name}}}); err != nil {
			return nil, fmt.Errorf("making the namespace %s: %w", name, err)
		}
	}
	controllers := &control.Controller{Client: p.Client, Leads: c.Leads, Log: c.Log}
	go controllers.Run(ctx)
	go p.repeat(ctx, "listing this API server", 5*time.Second, p.register)
	go p.repeat(ctx, "applying manifests", 3*time.Second, p.applyManifests)
	return p, nil
}

// Apply creates an object, or merges it into the one that is there.
func (p *Plane) Apply(ctx context.Context, o map[string]any) error {
	return p.api.Apply(ctx, &client.Object{Object: o})
}

func (p *Plane) serve(ctx context.Context) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", fmt.Sprintf(":%d", p.config.Port))
	if err != nil {
		return fmt.Errorf("serving the API: %w", err)
	}
	server := &http.Server{
		ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(io.Discard, "", 0), BaseContext: func(net.Listener) context.Context { return ctx },
		TLSConfig: &tls.Config{MinVersion: tls.VersionTLS12, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: p.config.ClientCA.Pool(), NextProtos: []string{"h2", "http/1.1"}},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if p.config.Front == nil || !p.config.Front(w, r) {
				p.api.ServeHTTP(w, r)
			}
		}),
	}
	go func() {
		if err := server.ServeTLS(listener, p.config.Cert+".crt", p.config.Cert+".key"); !errors.Is(err, http.ErrServerClosed) {
			p.config.Log.Error("the API does not serve any more", "error", err)
		}
	}()
	context.AfterFunc(ctx, func() { _ = server.Close() })
	return nil
}

// who is the client of a certificate, or the user of a token.
func (p *Plane) who(r *http.Request) (api.User, bool) {
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		subject := r.TLS.PeerCertificates[0].Subject
		return api.User{Name: subject.CommonName, Groups: append(subject.Organization, "system:authenticated")}, true
	}
	if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok && p.config.Bearer != nil {
		return p.config.Bearer(r.Context(), token)
	}
	return api.User{}, false
}

// sign gives nodes, and those who may become one, a node's certificate.
func (p *Plane) sign(request []byte, by api.User) ([]byte, error) {
	return p.config.ClientCA.SignRequest(request, func(r *x509.CertificateRequest) error {
		node := strings.HasPrefix(r.Subject.CommonName, "system:node:") && slices.Equal(r.Subject.Organization, []string{"system:nodes"})
		if !node || !slices.ContainsFunc(by.Groups, func(g string) bool { return g == admins || g == "system:nodes" || g == "system:bootstrappers" }) {
			return fmt.Errorf("%s may not have a certificate for %s", by.Name, r.Subject.CommonName)
		}
		return nil
	})
}

// register keeps this API server in the list as long as it runs, and the list in the object that clients know.
func (p *Plane) register(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if p.lease != 0 {
		if _, err := p.config.Store.KeepAliveOnce(ctx, p.lease); err != nil {
			p.lease = 0
		}
	}
	if p.lease == 0 {
		lease, err := p.config.Store.Grant(ctx, endpointTTL)
		if err != nil {
			return err
		}
		if _, err := p.config.Store.Put(ctx, endpointsPrefix+p.config.Address, "", clientv3.WithLease(lease.ID)); err != nil {
			return err
		}
		p.lease = lease.ID
	}
	if !p.config.Leads() {
		return nil
	}
	servers, err := p.Servers(ctx)
	if err != nil {
		return err
	}
	var addresses []any
	for _, s := range servers {
		addresses = append(addresses, map[string]any{"ip": s})
	}
	return p.Apply(ctx, map[string]any{"apiVersion": "v1", "kind": "Endpoints", "metadata": map[string]any{"name": "kubernetes", "namespace": "default"},
		"subsets": []any{map[string]any{"addresses": addresses, "ports": []any{map[string]any{"name": "https", "port": int64(p.config.Port), "protocol": "TCP"}}}}})
}

// Servers are the addresses of all API servers that run.
func (p *Plane) Servers(ctx context.Context) ([]string, error) {
	got, err := p.config.Store.Get(ctx, endpointsPrefix, clientv3.WithPrefix())
	if err != nil {
		return nil, err
	}
	var out []string
	for _, kv := range got.Kvs {
		out = append(out, strings.TrimPrefix(string(kv.Key), endpointsPrefix))
	}
	return out, nil
}

func (p *Plane) repeat(ctx context.Context, what string, period time.Duration, do func(context.Context) error) {
	tick := time.NewTicker(period)
	defer tick.Stop()
	for {
		if err := do(ctx); err != nil && ctx.Err() == nil {
			p.config.Log.Warn(what, "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// applyManifests applies all files below the folders, where this host leads. A file NAME.skip beside NAME takes it out.
func (p *Plane) applyManifests(ctx context.Context) error {
	if !p.config.Leads() {
		return nil
	}
	var errs []error
	for _, folder := range p.config.Manifests {
		err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(path)) {
				return err
			}
			if _, err := os.Stat(path + ".skip"); err == nil {
				return nil
			}
			if err := p.applyFile(ctx, path); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", path, err))
			}
			return nil
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (p *Plane) applyFile(ctx context.Context, path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	for docs := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096); ; {
		o := &client.Object{}
		if err := docs.Decode(&o.Object); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if len(o.Object) == 0 {
			continue
		}
		if err := p.api.Apply(ctx, o); err != nil {
			return err
		}
	}
}

// Kubeconfig is a client configuration as YAML with a new certificate in it.
func Kubeconfig(server string, serverCA, clientCA *pki.Authority, name, user string, groups ...string) ([]byte, error) {
	cert, key, err := clientCA.Issue(pki.Want{Name: user, Groups: groups, Client: true})
	if err != nil {
		return nil, err
	}
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Appendf(nil, `apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: %s
    server: %s
  name: %[3]s
contexts:
- context:
    cluster: %[3]s
    user: %[3]s
  name: %[3]s
current-context: %[3]s
kind: Config
preferences: {}
users:
- name: %[3]s
  user:
    client-certificate-data: %[4]s
    client-key-data: %[5]s
`, b64(serverCA.PEM), server, name, b64(cert), b64(key)), nil
}
