// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"
)

// What a worker of kubeadm has to be known by, and to know its cluster.
const (
	clusterCA  = "/etc/kubernetes/pki/ca.crt"
	kubeletPEM = "/var/lib/kubelet/pki/kubelet-client-current.pem" // certificate and key
)

const (
	followDelay    = 2 * time.Second // until connections are taken
	followInterval = 30 * time.Second
	followPatience = 5 * time.Second
)

// followed are the API servers that the cluster itself has named. They are tried beside the configuration's: an operator who replaces control planes
// may not have reached this host. They hold for that configuration alone: a new one knows better.
type followed struct {
	Beside  []string `json:"beside"`
	Servers []string `json:"servers"` // host:port
}

func (n *Node) followedFile() string { return filepath.Join(n.endpointDir(), "followed.json") }

// endpointServers are those of the configuration, and then those that the cluster has named besides.
func (n *Node) endpointServers() ([]string, error) {
	c, err := n.endpointConfig()
	if err != nil {
		return nil, err
	}
	f, err := n.readFollowed(c)
	if err != nil {
		n.log.Warn("reading which API servers the cluster has named", "error", err)
	}
	all := slices.Clone(c.Servers)
	for _, s := range f.Servers {
		if !slices.Contains(all, s) {
			all = append(all, s)
		}
	}
	return all, nil
}

func (n *Node) readFollowed(c EndpointConfig) (f followed, err error) {
	file, err := os.Open(n.followedFile())
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	if err != nil {
		return f, err
	}
	if err := errors.Join(readJSON(file, n.followedFile(), &f), file.Close()); err != nil {
		return followed{}, err
	}
	named := EndpointConfig{Listen: c.Listen, Servers: f.Servers, IPVS: c.IPVS}
	if !slices.Equal(f.Beside, c.Servers) || named.validate() != nil {
		return followed{}, nil
	}
	return f, nil
}

// follow asks the cluster which API servers there are, until ctx ends. Who cannot ask goes on with what there is.
func (n *Node) follow(ctx context.Context) {
	said := ""
	for wait := followDelay; ; wait = followInterval {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		err := n.followOnce(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			said = ""
		case err.Error() != said: // once, and not every time
			said = err.Error()
			n.log.Warn("asking the cluster which API servers there are", "error", err)
		}
	}
}

func (n *Node) followOnce(ctx context.Context) error {
	client, err := n.asKubelet()
	if err != nil || client == nil {
		return err
	}
	c, err := n.endpointConfig()
	if err != nil {
		return err
	}
	list, err := namedBy(ctx, client, c.Listen) // by the balancer, to each in its turn
	if err != nil {
		return err
	}
	data, err := json.MarshalIndent(followed{Beside: c.Servers, Servers: list}, "", "  ")
	if err != nil {
		return err
	}
	return writeIfOther(n.followedFile(), append(data, '\n'))
}

// asKubelet is a client that the cluster knows as this host's kubelet, and that talks to none but the cluster's API servers; nil where the host
// has no kubelet yet. The certificate is read each time: kubelets renew theirs.
func (n *Node) asKubelet() (*http.Client, error) {
	pair, err := tls.LoadX509KeyPair(n.kubeletPEM, n.kubeletPEM)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the kubelet's certificate: %w", err)
	}
	ca, err := os.ReadFile(n.clusterCA)
	if err != nil {
		return nil, fmt.Errorf("reading the cluster's CA: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("reading the cluster's CA: %s has no certificate in PEM", n.clusterCA)
	}
	// kubeadm's certificates of API servers have this name, whatever else is in them.
	trust := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool, ServerName: "kubernetes", Certificates: []tls.Certificate{pair}}
	return &http.Client{
		Timeout:       followPatience,
		Transport:     &http.Transport{TLSClientConfig: trust, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// namedBy asks an API server which ones there are. A kubelet may get Endpoints, and no EndpointSlices (NodeRules in Kubernetes'
// plugin/pkg/auth/authorizer/rbac/bootstrappolicy); of themselves API servers keep both.
func namedBy(ctx context.Context, client *http.Client, server string) (_ []string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+server+"/api/v1/namespaces/default/endpoints/kubernetes", http.NoBody)
	if err != nil {
		return nil, err
	}
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, res.Body.Close()) }()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answers %s", res.Status)
	}
	var endpoints struct {
		Subsets []struct {
			Addresses []struct{ IP string }
			Ports     []struct {
				Name string
				Port int
			}
		}
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, 1<<20)).Decode(&endpoints); err != nil {
		return nil, fmt.Errorf("reading its answer: %w", err)
	}
	var list []string
	for _, s := range endpoints.Subsets {
		for _, p := range s.Ports {
			for _, a := range s.Addresses {
				if p.Name == "https" {
					list = append(list, net.JoinHostPort(a.IP, strconv.Itoa(p.Port)))
				}
			}
		}
	}
	if len(list) == 0 {
		return nil, errors.New("it names no API server")
	}
	slices.Sort(list)
	return list, nil
}
