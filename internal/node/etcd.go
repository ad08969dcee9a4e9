// SPDX-License-Identifier: Apache-2.0

package node

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"time"
)

// EtcdClient asks the etcd of this host over its JSON gateway, which needs no client library and no etcdctl:
// https://etcd.io/docs/v3.6/dev-guide/api_grpc_gateway/.
type EtcdClient struct {
	Endpoint             string // https://127.0.0.1:2379
	CACert, Cert, KeyPEM string // files
}

// EtcdMember is a member of etcd. ID is a decimal number, as the gateway wants it back.
type EtcdMember struct {
	ID       string   `json:"id"`
	Name     string   `json:"name"` // empty where it has not started yet
	PeerURLs []string `json:"peerURLs"`
	Learner  bool     `json:"learner,omitempty"`
}

// Members are the members as a majority of them agrees.
func (e EtcdClient) Members(ctx context.Context) ([]EtcdMember, error) {
	var answer struct {
		Members []struct {
			ID        string   `json:"ID"`
			Name      string   `json:"name"`
			PeerURLs  []string `json:"peerURLs"`
			IsLearner bool     `json:"isLearner"`
		} `json:"members"`
	}
	if err := e.call(ctx, "/v3/cluster/member/list", map[string]any{"linearizable": true}, &answer); err != nil {
		return nil, fmt.Errorf("asking for the members of etcd: %w", err)
	}
	members := make([]EtcdMember, 0, len(answer.Members))
	for _, m := range answer.Members {
		members = append(members, EtcdMember{ID: m.ID, Name: m.Name, PeerURLs: m.PeerURLs, Learner: m.IsLearner})
	}
	return members, nil
}

// Remove takes a member out.
func (e EtcdClient) Remove(ctx context.Context, id string) error {
	if _, err := strconv.ParseUint(id, 10, 64); err != nil {
		return fmt.Errorf("removing the member %q of etcd: it is no number", id)
	}
	if err := e.call(ctx, "/v3/cluster/member/remove", map[string]string{"ID": id}, nil); err != nil {
		return fmt.Errorf("removing the member %s of etcd: %w", id, err)
	}
	return nil
}

// etcdTimeout is for an election, and some.
const etcdTimeout = 20 * time.Second

func (e EtcdClient) call(ctx context.Context, path string, in, out any) (err error) {
	ca, err := os.ReadFile(e.CACert)
	if err != nil {
		return err
	}
	pair, err := tls.LoadX509KeyPair(e.Cert, e.KeyPEM)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return fmt.Errorf("reading %q: it holds no certificate", e.CACert)
	}
	client := &http.Client{
		Timeout: etcdTimeout,
		Transport: &http.Transport{
			TLSClientConfig:   &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12},
			DisableKeepAlives: true,
		},
	}
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.Endpoint+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, res.Body.Close()) }()
	answer, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("it answers %s: %s", res.Status, bytes.TrimSpace(answer))
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(answer, out)
}
