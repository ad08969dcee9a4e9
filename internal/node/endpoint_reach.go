// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/sealerio/sealer/internal/balance"
)

// How long an API server may take to answer: one on this host, and one that is somewhere.
const (
	checkPatience = 2 * time.Second
	reachPatience = 5 * time.Second
)

// CheckServer is an error where the API server at host:port is not ready, or not within two seconds. Whose it is, is not looked at.
func CheckServer(ctx context.Context, server string) error {
	trust := &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12} //nolint:gosec // it is on this host, and is told nothing
	return balance.Readyz(checkPatience, trust)(ctx, server)
}

// Way is a way to the API servers of a cluster.
type Way struct {
	Server string `json:"server"` // host:port
	CA     string `json:"ca"`     // the cluster's, PEM
}

// What keeps a Way from being good.
const (
	WayName     = "name"     // its name has no address
	WayClosed   = "closed"   // nothing answers, or not in time
	WayForeign  = "foreign"  // what answers is none of the cluster's API servers
	WayUnnamed  = "unnamed"  // it is one, and its certificate does not say the way's name
	WayNotReady = "unready"  // it is one, and not ready
	WayTLS      = "protocol" // what answers speaks something else
)

// Tried is what came of a Way. Obstacle is empty where it leads to an API server of the cluster; Why is a sentence.
type Tried struct {
	Obstacle  string   `json:"obstacle,omitempty"`
	Why       string   `json:"why,omitempty"`
	Addresses []string `json:"addresses,omitempty"` // of the way's name, or its own
}

// Try goes the way once: an API server of the cluster is known by its certificate, which the cluster's CA has signed for the name of the way.
func (w Way) Try(ctx context.Context) (Tried, error) {
	name, _, err := net.SplitHostPort(w.Server)
	if err != nil {
		return Tried{}, fmt.Errorf("reaching the API servers: %q is not host:port", w.Server)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(w.CA)) {
		return Tried{}, errors.New("reaching the API servers: the CA is no certificate in PEM")
	}
	ctx, cancel := context.WithTimeout(ctx, reachPatience)
	defer cancel()
	var t Tried
	if t.Addresses, err = net.DefaultResolver.LookupHost(ctx, name); err != nil {
		t.Obstacle, t.Why = WayName, fmt.Sprintf("the name %s has no address: %v", name, err)
		return t, nil
	}
	slices.Sort(t.Addresses)
	err = balance.Readyz(reachPatience, trusting(pool, name))(ctx, w.Server)
	t.Obstacle, t.Why = obstacle(err)
	return t, nil
}

// trusting is as ever, but in another order: whether the server is one of ours comes before whether it is called so.
func trusting(pool *x509.CertPool, name string) *tls.Config {
	return &tls.Config{
		ServerName: name, MinVersion: tls.VersionTLS12,
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection does it
		VerifyConnection: func(state tls.ConnectionState) error {
			o := x509.VerifyOptions{Roots: pool, Intermediates: x509.NewCertPool()}
			for _, c := range state.PeerCertificates[1:] {
				o.Intermediates.AddCert(c)
			}
			if _, err := state.PeerCertificates[0].Verify(o); err != nil {
				return err
			}
			return state.PeerCertificates[0].VerifyHostname(name)
		},
	}
}

func obstacle(err error) (kind, why string) {
	if err == nil {
		return "", ""
	}
	if e, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return WayForeign, "what answers is no control plane of this cluster: " + certified(e.Cert)
	}
	if e, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		return WayForeign, "what answers has a certificate that is not valid: " + e.Error()
	}
	if e, ok := errors.AsType[x509.HostnameError](err); ok {
		names := slices.Clone(e.Certificate.DNSNames)
		for _, ip := range e.Certificate.IPAddresses {
			names = append(names, ip.String())
		}
		return WayUnnamed, fmt.Sprintf("a control plane answers whose certificate does not say %s; it says %s", e.Host, strings.Join(names, ", "))
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok || errors.Is(err, http.ErrSchemeMismatch) {
		return WayTLS, "what answers does not speak TLS"
	}
	if e, ok := errors.AsType[*net.OpError](err); ok {
		return WayClosed, e.Error()
	}
	if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
		return WayClosed, fmt.Sprintf("nothing answers within %s", reachPatience)
	}
	if errors.Is(err, io.EOF) {
		return WayClosed, "the connection is closed as soon as it is made, as balancers do that have no server behind them"
	}
	return WayNotReady, err.Error()
}

// certified says who has signed for whom.
func certified(c *x509.Certificate) string {
	if c == nil {
		return "its certificate is signed by another CA"
	}
	return fmt.Sprintf("its certificate is that of %q, signed by %q, not by the cluster's CA", c.Subject, c.Issuer)
}
