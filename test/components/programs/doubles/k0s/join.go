// SPDX-License-Identifier: Apache-2.0

package k0s

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/sealerio/sealer/test/components/programs/doubles/client"
	"github.com/sealerio/sealer/test/components/programs/doubles/datastore"
	"github.com/sealerio/sealer/test/components/programs/doubles/pki"
	"github.com/sealerio/sealer/test/components/programs/doubles/plane"
)

// invitation is what a join token holds.
type invitation struct {
	server, user, token string
	ca                  []byte
}

func (i invitation) String() string {
	content := fmt.Sprintf(`apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: %s
    server: %s
  name: k0s
contexts:
- context:
    cluster: k0s
    user: %[3]s
  name: k0s
current-context: k0s
kind: Config
preferences: {}
users:
- name: %[3]s
  user:
    token: %[4]s
`, base64.StdEncoding.EncodeToString(i.ca), i.server, i.user, i.token)
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write([]byte(content)) // a buffer takes all
	_ = z.Close()
	return base64.StdEncoding.EncodeToString(b.Bytes())
}

func parseInvitation(text string) (*invitation, error) {
	raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text))
	if err != nil {
		return nil, fmt.Errorf("failed to decode token: %w", err)
	}
	z, err := gzip.NewReader(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("failed to decode token: %w", err)
	}
	content, err := io.ReadAll(io.LimitReader(z, 1<<20))
	if err != nil {
		return nil, fmt.Errorf("failed to decode token: %w", err)
	}
	var k struct {
		Clusters []struct {
			Cluster struct {
				Server string `json:"server"`
				CA     []byte `json:"certificate-authority-data"`
			} `json:"cluster"`
		} `json:"clusters"`
		Users []struct {
			Name string `json:"name"`
			User struct {
				Token string `json:"token"`
			} `json:"user"`
		} `json:"users"`
	}
	if err := yaml.Unmarshal(content, &k); err != nil || len(k.Clusters) != 1 || len(k.Users) != 1 {
		return nil, errors.New("failed to decode token: it holds no kubeconfig of one cluster and user")
	}
	return &invitation{server: k.Clusters[0].Cluster.Server, ca: k.Clusters[0].Cluster.CA, user: k.Users[0].Name, token: k.Users[0].User.Token}, nil
}

// joinToken is the token of the command line, its file or the environment; nil where there is none.
func joinToken(cmd *cobra.Command, args []string) (*invitation, error) {
	content := ""
	path := text(cmd, "token-file")
	switch {
	case len(args) > 0 && path != "":
		return nil, errors.New("you can only pass one token argument either as a CLI argument 'k0s worker [token]' or as a flag 'k0s worker --token-file [path]'")
	case len(args) > 0:
		content = args[0]
	case path != "":
		raw, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("failed to read token file: %w", err)
		}
		if content = string(raw); strings.TrimSpace(content) == "" {
			return nil, fmt.Errorf("token file %q is empty", path)
		}
	default:
		content = os.Getenv("K0S_TOKEN")
	}
	if content == "" {
		return nil, nil
	}
	return parseInvitation(content)
}

// client of the server that invites.
func (i invitation) client() *client.Client {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(i.ca)
	return client.New(&tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, http.Header{"Authorization": {"Bearer " + i.token}}, i.server)
}

// shared are the files that all controllers have alike.
func sharedFiles() []string {
	return []string{"ca.crt", "ca.key", "front-proxy-ca.crt", "front-proxy-ca.key", "etcd/ca.crt", "etcd/ca.key", "sa.key"}
}

const retry = 3 * time.Second

// join fetches the authorities and makes this host a member of etcd. It asks again as long as the other does not
// answer, but not when it is told no.
func (c *controller) join(ctx context.Context, i *invitation) (existing string, err error) {
	if i.user != "controller-bootstrap" {
		return "", fmt.Errorf("wrong token type %s, expected type: controller-bootstrap", i.user)
	}
	remote := i.client()
	var files map[string][]byte
	if err := c.ask(ctx, func() error { return remote.Do(ctx, http.MethodGet, "/v1beta1/ca", nil, "", &files) }); err != nil {
		return "", fmt.Errorf("failed to sync CA: %w", err)
	}
	for _, name := range sharedFiles() {
		mode := os.FileMode(0o644)
		if strings.HasSuffix(name, ".key") {
			mode = 0o600
		}
		if err := pki.WriteFile(c.pki(name), files[name], mode); err != nil {
			return "", err
		}
	}
	body, err := json.Marshal(map[string]string{"node": c.name, "peerAddress": c.config.peerAddress()})
	if err != nil {
		return "", err
	}
	err = c.ask(ctx, func() error {
		return remote.Do(ctx, http.MethodPost, "/v1beta1/etcd/members", body, "application/json", &existing)
	})
	if err != nil {
		return "", fmt.Errorf("failed to join etcd cluster: %w", err)
	}
	return existing, nil
}

func (c *controller) ask(ctx context.Context, do func() error) error {
	tick := time.NewTicker(retry)
	defer tick.Stop()
	for {
		err := do()
		var answer *client.HTTPError
		if err == nil || errors.As(err, &answer) && answer.Code < http.StatusInternalServerError {
			return err
		}
		c.log.Warn("joining", "error", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// serveJoin serves the two requests of controllers that join.
func (c *controller) serveJoin(ctx context.Context) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", fmt.Sprintf(":%d", c.config.Spec.API.K0sAPIPort))
	if err != nil {
		return err
	}
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(io.Discard, "", 0), Handler: http.HandlerFunc(c.answerJoin), TLSConfig: &tls.Config{MinVersion: tls.VersionTLS12}}
	go func() { _ = server.ServeTLS(listener, c.pki("k0s-api.crt"), c.pki("k0s-api.key")) }()
	context.AfterFunc(ctx, func() { _ = server.Close() })
	return nil
}

func (c *controller) answerJoin(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 10*time.Second)
	defer cancel()
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !c.plane.BootstrapToken(ctx, token, "controller-join") {
		http.Error(w, "go away", http.StatusUnauthorized)
		return
	}
	var out any
	var err error
	switch r.Method + " " + r.URL.Path {
	case "GET /v1beta1/ca":
		files := map[string][]byte{}
		for _, name := range sharedFiles() {
			var content []byte
			content, err = os.ReadFile(c.pki(name))
			files[name] = content
			if err != nil {
				break
			}
		}
		out = files
	case "POST /v1beta1/etcd/members":
		var body struct{ Node, PeerAddress string }
		if err = json.NewDecoder(io.LimitReader(r.Body, 1<<16)).Decode(&body); err == nil {
			out, err = datastore.Add(ctx, c.store.Client, body.Node, datastore.PeerURL(body.PeerAddress), false)
		}
	default:
		http.NotFound(w, r)
		return
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_ = json.NewEncoder(w).Encode(out)
}

// admin is a client of this host's API for the commands.
func (f folders) admin() (*client.Client, error) {
	authority, err := pki.ReadCA(f.pki("ca"))
	if err != nil {
		return nil, err
	}
	pair, err := tls.LoadX509KeyPair(f.pki("admin.crt"), f.pki("admin.key"))
	if err != nil {
		return nil, err
	}
	return client.New(&tls.Config{RootCAs: authority.Pool(), Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}, nil, "https://127.0.0.1:6443"), nil
}

func (p *program) tokenCreate(cmd *cobra.Command, _ []string) error {
	role := text(cmd, "role")
	if role != "worker" && role != "controller" {
		return fmt.Errorf("unsupported role %q, supported roles are %q and %q", role, "controller", "worker")
	}
	ttl, err := time.ParseDuration(text(cmd, "expiry"))
	if text(cmd, "expiry") == "" || text(cmd, "expiry") == "0" {
		ttl, err = 0, nil
	}
	if err != nil {
		return err
	}
	s, err := askStatus(cmd.Context(), statusSocket(cmd))
	switch {
	case err != nil:
		return err
	case s.SingleNode:
		return errors.New("refusing to create token: cannot join into a single node cluster")
	case s.Role != "controller":
		return errors.New("refusing to create token on worker")
	}
	f := dataOf(cmd)
	api, err := f.admin()
	if err != nil {
		return err
	}
	authority, err := pki.ReadCA(f.pki("ca"))
	if err != nil {
		return err
	}
	spec := s.ClusterConfig.Spec.API
	address := spec.Address
	if spec.ExternalAddress != "" {
		address = spec.ExternalAddress
	}
	t, i := plane.NewToken(ttl, "authentication", "signing"), invitation{ca: authority.PEM, user: "kubelet-bootstrap", server: "https://" + net.JoinHostPort(address, strconv.Itoa(spec.Port))}
	if role == "controller" {
		t = plane.NewToken(ttl, "controller-join")
		i.user, i.server = "controller-bootstrap", "https://"+net.JoinHostPort(address, strconv.Itoa(spec.K0sAPIPort))
	}
	t.Description = role
	i.token = t.String()
	if err := plane.Keep(cmd.Context(), api, t); err != nil {
		return err
	}
	_, err = fmt.Fprintln(p.out, i)
	return err
}

func (p *program) tokenList(cmd *cobra.Command, _ []string) error {
	role := text(cmd, "role")
	if role != "worker" && role != "controller" { // against its own help: as observed
		return fmt.Errorf("unsupported role %q", role)
	}
	api, err := dataOf(cmd).admin()
	if err != nil {
		return err
	}
	list, err := plane.Tokens(cmd.Context(), api)
	if err != nil {
		return err
	}
	fmt.Fprintln(p.out, "ID       ROLE         EXPIRES AT")
	for _, t := range list {
		expires := "-"
		if !t.Expires.IsZero() {
			expires = t.Expires.Format(time.RFC3339)
		}
		if t.Description == role {
			fmt.Fprintf(p.out, "%s   %s   %s\n", t.ID, t.Description, expires)
		}
	}
	return nil
}

func (p *program) tokenInvalidate(cmd *cobra.Command, args []string) error {
	api, err := dataOf(cmd).admin()
	if err != nil {
		return err
	}
	for _, a := range args {
		id, _, _ := strings.Cut(a, ".")
		if err := plane.Forget(cmd.Context(), api, id); err != nil {
			return err
		}
		fmt.Fprintf(p.out, "token: %s deleted successfully\n", id)
	}
	return nil
}
