// SPDX-License-Identifier: Apache-2.0

package k3s

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"

	"github.com/sealerio/sealer/test/components/programs/doubles/client"
	"github.com/sealerio/sealer/test/components/programs/doubles/pki"
)

// retry is how often what may come right is tried again: the real one does for ever, and systemd waits.
const retry = 3 * time.Second

func encode64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func parseMode(s string) (os.FileMode, error) {
	n, err := strconv.ParseUint(s, 8, 32)
	return os.FileMode(n), err
}

// supervisor is a client of another server's supervisor, which has shown the authority that the token names.
func supervisor(ctx context.Context, server string, t token, user string, header http.Header) (*client.Client, []byte, error) {
	anyone := client.New(&tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}, nil, server) //nolint:gosec // the token's hash decides
	var ca []byte
	if err := anyone.Do(ctx, http.MethodGet, "/cacerts", nil, "", &ca); err != nil {
		return nil, nil, fmt.Errorf("failed to get CA certs: %w", err)
	}
	if t.hash != "" && pki.Hash(ca) != t.hash {
		return nil, nil, fmt.Errorf("failed to validate token: token CA hash does not match the Cluster CA certificate hash: %s != %s", t.hash, pki.Hash(ca))
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	h := header.Clone()
	if h == nil {
		h = http.Header{}
	}
	h.Set("Authorization", "Basic "+encode64(user+":"+t.password))
	return client.New(&tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, h, server), ca, nil
}

// join makes this server one of a running cluster. A wrong token and a setting that differs where it may not end the
// program; a server that does not answer is asked again and again.
func (s *server) join(ctx context.Context) error {
	if s.token.user == "node" || s.token.bootstrapToken() {
		return errors.New("failed to validate token: a server token is needed to join as a server")
	}
	remote, err := s.other(ctx)
	if err != nil {
		return err
	}
	var theirs shared
	if err := remote.Do(ctx, http.MethodGet, "/v1-k3s/config", nil, "", &theirs); err != nil {
		return fmt.Errorf("failed to retrieve configuration from server: %w", err)
	}
	for name, value := range s.shared().Critical {
		if theirs.Critical[name] != value {
			s.log.Warn("critical configuration mismatched: " + name)
			return fmt.Errorf("starting kubernetes: preparing server: failed to start managed database: critical configuration value mismatch between servers: %s", name)
		}
	}
	var sealed bundle
	if err := remote.Do(ctx, http.MethodGet, "/v1-k3s/server-bootstrap", nil, "", &sealed); err != nil {
		return fmt.Errorf("starting kubernetes: preparing server: failed to get bootstrap data: %w", err)
	}
	if err := errors.Join(s.openBootstrap(sealed.Data, s.token.password), s.makeAuthorities()); err != nil {
		return err
	}
	existing, err := s.askMembership(ctx, remote)
	if err != nil {
		return err
	}
	if err := s.startEtcd(ctx, existing); err != nil {
		return err
	}
	return s.promote(ctx)
}

// other waits for the server that is named in the settings.
func (s *server) other(ctx context.Context) (*client.Client, error) {
	tick := time.NewTicker(retry)
	defer tick.Stop()
	for {
		remote, _, err := supervisor(ctx, s.text("server"), s.token, "server", nil)
		if err == nil {
			if err = remote.Do(ctx, http.MethodGet, "/v1-k3s/server-bootstrap", nil, "", nil); err == nil {
				return remote, nil
			}
		}
		var answer *client.HTTPError
		if s.token.hash != "" && isHashError(err) || errors.As(err, &answer) && answer.Code == http.StatusUnauthorized {
			return nil, fmt.Errorf("starting kubernetes: preparing server: failed to validate server configuration: %w", err)
		}
		s.log.Warn("Waiting to retrieve server bootstrap data", "error", err)
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-tick.C:
		}
	}
}

// isHashError tells a token of another cluster from a server that is not there.
func isHashError(err error) bool {
	var failed *client.NetError
	return err != nil && !errors.As(err, &failed)
}

// askMembership asks until the cluster takes this server: another learner may be in the way.
func (s *server) askMembership(ctx context.Context, remote *client.Client) (string, error) {
	tick := time.NewTicker(retry)
	defer tick.Stop()
	query := url.Values{"name": {s.memberName()}, "address": {s.address}}
	for {
		var existing string
		err := remote.Do(ctx, http.MethodPost, "/v1-k3s/server-member?"+query.Encode(), nil, "", &existing)
		if err == nil {
			return existing, nil
		}
		s.log.Warn("failed to join etcd cluster", "error", err)
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-tick.C:
		}
	}
}

// promote makes this member a voter as soon as it has caught up.
func (s *server) promote(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for s.store.Learner() {
		limited, cancel := context.WithTimeout(ctx, 5*time.Second)
		_, err := s.store.MemberPromote(limited, s.store.ID())
		cancel()
		if err == nil {
			return nil
		}
		s.log.Info("Waiting for other members to finish joining etcd cluster", "error", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.store.Removed():
			return errRemoved
		case <-tick.C:
		}
	}
	return nil
}
