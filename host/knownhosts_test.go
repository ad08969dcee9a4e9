// SPDX-License-Identifier: Apache-2.0

package host_test

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/sealerio/sealer/host"
)

// deafConn loses what comes in once it is told to.
type deafConn struct {
	net.Conn
	deaf atomic.Bool
}

func (d *deafConn) Read(p []byte) (int, error) {
	for {
		n, err := d.Conn.Read(p)
		if err != nil || !d.deaf.Load() {
			return n, err
		}
	}
}

func TestDial_KnownHosts(t *testing.T) {
	srv := startServer(t, serverConfig{password: "right"})
	other := newKey(t, filepath.Join(t.TempDir(), "k"), "")
	ecOther, _, err := newECDSA()
	require.NoError(t, err)
	addr := knownhosts.Normalize(fmt.Sprintf("127.0.0.1:%d", srv.port))
	line := func(key ssh.PublicKey, hosts ...string) string { return knownhosts.Line(hosts, key) }
	mine := line(srv.key, addr)

	for name, c := range map[string]struct {
		lines []string
		want  any // nil: it gets in
		known string
	}{
		"plain":                                {lines: []string{mine}},
		"hashed":                               {lines: []string{line(srv.key, knownhosts.HashHostname(addr))}},
		"pattern":                              {lines: []string{line(srv.key, "[127.0.0.*]:*")}},
		"among lines that make no sense":       {lines: []string{"junk", "h ssh-future AAAA", "# note", "", mine}},
		"known by ECDSA and ed25519":           {lines: []string{line(srv.ecKey, addr), mine}},
		"known by ECDSA alone":                 {lines: []string{line(srv.ecKey, addr)}},
		"authority of others":                  {lines: []string{"@cert-authority *.example.com " + strings.TrimSpace(string(ssh.MarshalAuthorizedKey(other))), mine}},
		"authority of this one, key known too": {lines: []string{"@cert-authority * " + strings.TrimSpace(string(ssh.MarshalAuthorizedKey(other))), mine}},
		"nothing known":                        {want: new(*host.HostKeyError)},
		"known at another port":                {lines: []string{line(srv.key, "127.0.0.1")}, want: new(*host.HostKeyError)},
		"negated":                              {lines: []string{line(srv.key, "[127.0.0.*]:*", "!"+addr)}, want: new(*host.HostKeyError)},
		"changed":                              {lines: []string{"# note", line(other, addr)}, want: new(*host.ChangedHostKeyError), known: ":2"},
		"changed, other kind":                  {lines: []string{line(ecOther, addr)}, want: new(*host.ChangedHostKeyError), known: ":1"},
		"revoked":                              {lines: []string{"@revoked " + mine, mine}, want: new(*host.ChangedHostKeyError), known: ":1"},
	} {
		for _, accept := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, accept %v", name, accept), func(t *testing.T) {
				dir := t.TempDir()
				file := filepath.Join(dir, "known_hosts")
				require.NoError(t, os.WriteFile(file, []byte(strings.Join(c.lines, "\n")+"\n"), 0o600))
				own := filepath.Join(dir, "own", "known_hosts")
				before := srv.attempts.Load()
				s, err := host.Dial(t.Context(), host.Config{
					Address: "127.0.0.1", Port: srv.port, Password: "right",
					KnownHosts: []string{file, filepath.Join(dir, "none")}, AcceptNewHostKeys: accept, NewHostKeys: own,
				})
				_, unknown := c.want.(**host.HostKeyError)
				if c.want == nil || unknown && accept {
					require.NoError(t, err)
					require.NoError(t, s.Close())
					if unknown {
						require.Contains(t, string(must(os.ReadFile(own))), addr+" ")
					} else {
						require.NoFileExists(t, own)
					}
					return
				}
				require.ErrorAs(t, err, c.want)
				require.ErrorContains(t, err, "SHA256:")
				require.Equal(t, before, srv.attempts.Load(), "no credential may be sent")
				require.NoFileExists(t, own)
				if c.known != "" {
					require.ErrorContains(t, err, file+c.known)
				}
			})
		}
	}
}

func TestHostKeyError_Hint(t *testing.T) {
	e := &host.HostKeyError{Host: "h", Address: "[10.0.0.7]:2222"}
	require.Contains(t, e.Hint(), "ssh-keyscan -p 2222 10.0.0.7 >> ~/.ssh/known_hosts")
	require.Contains(t, e.Hint(), "--accept-new-host-keys")
	e.Address = "fd00::7"
	require.Contains(t, e.Hint(), "ssh-keyscan fd00::7 >>")
}

func TestDial_AcceptedKeyIsKnownFromThenOn(t *testing.T) {
	own := filepath.Join(t.TempDir(), "known_hosts")
	require.NoError(t, os.WriteFile(own, []byte("# no line break at the end"), 0o600))
	servers := make([]*server, 6)
	for i := range servers {
		servers[i] = startServer(t, serverConfig{password: "right"})
	}
	config := func(s *server) host.Config {
		return host.Config{Address: "127.0.0.1", Port: s.port, Password: "right", KnownHosts: []string{}, NewHostKeys: own}
	}
	var wg sync.WaitGroup
	errs := make([]error, 2*len(servers))
	for i := range errs { // each twice, all at once
		wg.Go(func() {
			cfg := config(servers[i/2])
			cfg.AcceptNewHostKeys = true
			s, err := host.Dial(t.Context(), cfg)
			if err == nil {
				err = s.Close()
			}
			errs[i] = err
		})
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
	require.Equal(t, 1+len(servers), strings.Count(string(must(os.ReadFile(own))), "\n"))
	for _, s := range servers {
		dial(t, config(s))
	}
}

func TestDial_HostCertificate(t *testing.T) {
	caFile := filepath.Join(t.TempDir(), "ca")
	caKey := newKey(t, caFile, "")
	ca, err := ssh.ParsePrivateKey(must(os.ReadFile(caFile)))
	require.NoError(t, err)
	srv := startServer(t, serverConfig{password: "right", certify: func(key ssh.Signer) ssh.Signer {
		cert := &ssh.Certificate{Key: key.PublicKey(), CertType: ssh.HostCert, ValidPrincipals: []string{"127.0.0.1"}, ValidBefore: ssh.CertTimeInfinity}
		require.NoError(t, cert.SignCert(rand.Reader, ca))
		return must(ssh.NewCertSigner(cert, key))
	}})
	file := filepath.Join(t.TempDir(), "known_hosts")
	require.NoError(t, os.WriteFile(file, append([]byte("@cert-authority [127.0.0.1]:* "), ssh.MarshalAuthorizedKey(caKey)...), 0o600))
	dial(t, host.Config{Address: "127.0.0.1", Port: srv.port, Password: "right", KnownHosts: []string{file}})
}
