// SPDX-License-Identifier: Apache-2.0

package k3s

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/sealerio/sealer/test/components/programs/doubles/client"
	"github.com/sealerio/sealer/test/components/programs/doubles/datastore"
	"github.com/sealerio/sealer/test/components/programs/doubles/pki"
	"github.com/sealerio/sealer/test/components/programs/doubles/plane"
)

// serve opens the port, and makes what is behind it.
func (s *server) serve(ctx context.Context) (err error) {
	if err := errors.Join(s.makeCerts(), s.writeTokens(), s.writeComponents()); err != nil {
		return err
	}
	s.plane, err = plane.Start(ctx, plane.Config{
		Store: s.client, Leads: s.leads, Version: s.stamp.Version, Address: s.address, Port: s.number("https-listen-port"),
		ServerCA: s.authorities["server-ca"], ClientCA: s.authorities["client-ca"], Cert: s.tls("serving-kube-apiserver"),
		Definitions: definitions(), OnDelete: s.nodeDeleted, Front: s.front, Manifests: []string{s.folders.server("manifests")}, Log: s.log,
	})
	if err != nil {
		return err
	}
	go s.removeMarked(ctx)
	return s.writeKubeconfig()
}

func (s *server) writeTokens() error {
	return errors.Join(
		pki.WriteFile(s.folders.server("token"), []byte(s.token.String()+"\n"), 0o600),
		pki.WriteFile(s.folders.server("node-token"), []byte(s.token.String()+"\n"), 0o600),
		pki.WriteFile(s.folders.server("agent-token"), []byte(s.agentToken.String()+"\n"), 0o600))
}

func (s *server) writeKubeconfig() error {
	text, err := plane.Kubeconfig(fmt.Sprintf("https://127.0.0.1:%d", s.number("https-listen-port")), s.authorities["server-ca"], s.authorities["client-ca"],
		"default", "system:admin", "system:masters")
	if err != nil {
		return err
	}
	mode, err := parseMode(s.text("write-kubeconfig-mode"))
	if err != nil {
		return err
	}
	return errors.Join(pki.WriteFile(s.text("write-kubeconfig"), text, mode), pki.WriteFile(s.folders.server("cred", "admin.kubeconfig"), text, 0o600))
}

// role of who asks the supervisor.
type role int

const (
	nobody role = iota
	agentRole
	serverRole
)

// front answers what is the supervisor's and not the API's.
func (s *server) front(w http.ResponseWriter, r *http.Request) bool {
	switch {
	case r.URL.Path == "/ping":
		_, _ = io.WriteString(w, "pong")
		return true
	case r.URL.Path == "/cacerts":
		_, _ = w.Write(s.authorities["server-ca"].PEM)
		return true
	case !strings.HasPrefix(r.URL.Path, "/v1-k3s/") && !strings.HasPrefix(r.URL.Path, "/db/"):
		return false
	}
	who := s.role(r)
	need := agentRole
	if strings.HasPrefix(r.URL.Path, "/v1-k3s/server-") || strings.HasPrefix(r.URL.Path, "/db/") {
		need = serverRole
	}
	if who < need {
		http.Error(w, "not authorized", http.StatusUnauthorized)
		return true
	}
	var out any
	var err error
	switch r.URL.Path {
	case "/v1-k3s/readyz":
		out = map[string]string{"status": "ok"}
	case "/v1-k3s/config":
		out = s.shared()
	case "/v1-k3s/apiservers":
		out, err = s.plane.Servers(r.Context())
	case "/v1-k3s/client-kubelet.crt":
		out, err = s.nodeCert(r)
	case "/v1-k3s/server-bootstrap":
		var sealed []byte
		sealed, err = s.sealBootstrap(s.token.password)
		out = bundle{Data: sealed}
	case "/v1-k3s/server-member":
		out, err = s.addMember(r)
	case "/db/snapshot":
		out, err = s.snapshotHere(r)
	default:
		http.NotFound(w, r)
		return true
	}
	if err != nil {
		code := http.StatusInternalServerError
		if errors.Is(err, errNodePassword) {
			code = http.StatusForbidden
		}
		http.Error(w, err.Error(), code)
		return true
	}
	if err := json.NewEncoder(w).Encode(out); err != nil {
		s.log.Warn("answering", "path", r.URL.Path, "error", err)
	}
	return true
}

func (s *server) role(r *http.Request) role {
	user, password, ok := r.BasicAuth()
	if !ok {
		return nobody
	}
	same := func(want string) bool { return subtle.ConstantTimeCompare([]byte(password), []byte(want)) == 1 }
	t := token{password: password}
	switch {
	case same(s.token.password) && user != "node":
		return serverRole
	case same(s.token.password), same(s.agentToken.password):
		return agentRole
	case s.plane != nil && t.bootstrapToken() && s.plane.BootstrapToken(r.Context(), password):
		return agentRole
	}
	return nobody
}

// shared is what a server tells others: values that must be the same everywhere, and those that agents take over.
type shared struct {
	Critical              map[string]string
	SystemDefaultRegistry string
	Minor                 int
}

func (s *server) shared() shared {
	out := shared{Critical: map[string]string{}, SystemDefaultRegistry: s.text("system-default-registry"), Minor: s.stamp.Minor()}
	for _, name := range s.facts.Critical {
		value := strings.Join(s.list(name), ",")
		if name == "agent-token" {
			value = s.agentToken.password
		}
		sum := sha256.Sum256([]byte(value))
		out.Critical[name] = hex.EncodeToString(sum[:])
	}
	// Of the disabled components only the load balancer decides how servers behave to one another.
	out.Critical["disable-servicelb"] = fmt.Sprint(strings.Contains(strings.Join(s.list("disable"), ","), "servicelb"))
	return out
}

var errNodePassword = errors.New("Node password rejected, duplicate hostname or contents of '/etc/rancher/node/password' may not match server node-passwd entry, try enabling a unique node name with the --with-node-id flag") //nolint:revive,staticcheck // the real one's words

// bundle is the authorities' files, sealed.
type bundle struct{ Data []byte }

// certAnswer is a node's certificate.
type certAnswer struct{ Cert, Key, ClientCA []byte }

// nodeCert gives a node its certificate, if the host is the one that had the name first.
func (s *server) nodeCert(r *http.Request) (*certAnswer, error) {
	name, password := r.Header.Get("k3s-Node-Name"), r.Header.Get("k3s-Node-Password")
	if name == "" || password == "" {
		return nil, errors.New("node name and password are needed")
	}
	ctx, cancel := context.WithTimeout(r.Context(), 10*time.Second)
	defer cancel()
	sum := sha256.Sum256([]byte(password))
	hash := hex.EncodeToString(sum[:])
	path := "/api/v1/namespaces/kube-system/secrets"
	got, err := s.plane.Client.Get(ctx, path+"/"+passwordSecret(name))
	switch {
	case apierrors.IsNotFound(err):
		_, err = s.plane.Client.Create(ctx, path, map[string]any{"apiVersion": "v1", "kind": "Secret", "stringData": map[string]any{"hash": hash},
			"metadata": map[string]any{"name": passwordSecret(name), "namespace": "kube-system"}})
		if err != nil {
			return nil, err
		}
	case err != nil:
		return nil, err
	default:
		if kept, _, _ := unstructured.NestedString(got.Object, "data", "hash"); kept != encode64(hash) {
			return nil, errNodePassword
		}
	}
	cert, key, err := s.authorities["client-ca"].Issue(pki.Want{Name: "system:node:" + name, Groups: []string{"system:nodes"}, Client: true})
	return &certAnswer{Cert: cert, Key: key, ClientCA: s.authorities["client-ca"].PEM}, err
}

func passwordSecret(node string) string { return node + ".node-password.k3s" }

// addMember makes a server that joins a learner, and returns the list that it starts with.
func (s *server) addMember(r *http.Request) (string, error) {
	name, address := r.URL.Query().Get("name"), r.URL.Query().Get("address")
	if s.store == nil || len(s.store.Endpoints()) == 0 && !datastore.Has(s.etcd()) {
		return "", errors.New("this server has no embedded etcd")
	}
	members, err := datastore.Members(r.Context(), s.client)
	if err != nil {
		return "", err
	}
	node := name[:max(0, strings.LastIndexByte(name, '-'))]
	for _, m := range members {
		if strings.HasPrefix(m.Name, node+"-") && len(m.Name) == len(name) && m.Name != name {
			return "", datastore.ErrDuplicate
		}
	}
	return datastore.Add(r.Context(), s.client, name, datastore.PeerURL(address), true)
}

const (
	annotationMember  = "etcd.k3s.cattle.io/node-name"
	annotationAddress = "etcd.k3s.cattle.io/node-address"
	annotationRemove  = "etcd.k3s.cattle.io/remove"
	annotationRemoved = "etcd.k3s.cattle.io/removed-node-name"
)

// nodeDeleted takes a deleted node's member out of etcd, and forgets its password.
func (s *server) nodeDeleted(ctx context.Context, n *client.Object) error {
	if err := s.plane.Client.Delete(ctx, "/api/v1/namespaces/kube-system/secrets/"+passwordSecret(n.GetName())); err != nil {
		return err
	}
	return s.removeMember(ctx, n.GetAnnotations()[annotationMember])
}

func (s *server) removeMember(ctx context.Context, name string) error {
	if name == "" || s.store == nil || !datastore.Has(s.etcd()) {
		return nil
	}
	members, err := datastore.Members(ctx, s.client)
	if err != nil {
		return err
	}
	for _, m := range members {
		if m.Name == name {
			return datastore.Remove(ctx, s.client, m.ID)
		}
	}
	return nil
}

// removeMarked takes the members out whose nodes are annotated so.
func (s *server) removeMarked(ctx context.Context) {
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if !s.leads() {
			continue
		}
		nodes, err := s.plane.Client.List(ctx, "/api/v1/nodes")
		if err != nil {
			continue
		}
		for _, n := range nodes {
			a := n.GetAnnotations()
			if a[annotationRemove] != "true" || a[annotationMember] == "" || a[annotationRemoved] != "" {
				continue
			}
			// Noted first: removing this server's own member ends the process.
			err := s.plane.Client.Merge(ctx, "/api/v1/nodes/"+n.GetName(), map[string]any{"metadata": map[string]any{"annotations": map[string]any{annotationRemoved: a[annotationMember]}}})
			if err = errors.Join(err, s.removeMember(ctx, a[annotationMember])); err != nil {
				s.log.Error("removing etcd member", "node", n.GetName(), "error", err)
			}
		}
	}
}
