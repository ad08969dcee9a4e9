// SPDX-License-Identifier: Apache-2.0

package host_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/sealerio/sealer/host"
)

// sshd is a real OpenSSH server on a loopback port, with keys of its own.
type sshd struct {
	port    int
	dir     string
	hostKey ssh.PublicKey // ed25519; it has an ECDSA key too
	key     string        // file of a private key that root may log in with
	log     *bytes.Buffer
}

func startSSHD(t *testing.T, extra ...string) *sshd {
	t.Helper()
	bin, err := exec.LookPath("sshd")
	if err != nil {
		bin = "/usr/sbin/sshd"
	}
	if _, err := os.Stat(bin); err != nil {
		t.Skip("there is no sshd on this machine (package openssh-server)")
	}
	if os.Geteuid() != 0 {
		t.Skip("sshd lets nobody but root log in as root")
	}
	require.NoError(t, os.MkdirAll("/run/sshd", 0o755)) // sshd's own empty folder
	d := &sshd{dir: t.TempDir(), log: new(bytes.Buffer)}
	_, ecKey, err := newECDSA()
	require.NoError(t, err)
	writeKey(t, filepath.Join(d.dir, "host_ecdsa"), ecKey, "")
	d.hostKey = newKey(t, filepath.Join(d.dir, "host_ed25519"), "")
	d.key = filepath.Join(d.dir, "id")
	d.authorize(t, newKey(t, d.key, ""))

	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	d.port = l.Addr().(*net.TCPAddr).Port
	require.NoError(t, l.Close())
	conf := filepath.Join(d.dir, "sshd_config")
	require.NoError(t, os.WriteFile(conf, []byte(strings.Join(append(extra,
		"ListenAddress 127.0.0.1:"+strconv.Itoa(d.port), "ListenAddress [::1]:"+strconv.Itoa(d.port),
		"HostKey "+d.dir+"/host_ed25519", "HostKey "+d.dir+"/host_ecdsa",
		"AuthorizedKeysFile "+d.dir+"/authorized_keys",
		"PidFile none", "UsePAM no", "StrictModes no", "PermitRootLogin yes", "PasswordAuthentication no", "UseDNS no",
	), "\n")+"\n"), 0o600))
	cmd := exec.Command(bin, "-D", "-e", "-f", conf)
	cmd.Stderr = d.log
	cmd.WaitDelay = 5 * time.Second // a session that a test left open keeps the pipe
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(d.log)
		}
	})
	require.Eventually(t, func() bool {
		c, err := net.Dial("tcp", "127.0.0.1:"+strconv.Itoa(d.port))
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	}, 10*time.Second, 20*time.Millisecond)
	return d
}

// config is one that gets in by the key file.
func (d *sshd) config(t *testing.T) host.Config {
	return host.Config{
		Address: "127.0.0.1", Port: d.port, KeyFile: d.key, Timeout: 20 * time.Second,
		KnownHosts: []string{d.knows(t, d.hostKey)},
	}
}

// knows writes a known_hosts file.
func (d *sshd) knows(t *testing.T, keys ...ssh.PublicKey) string {
	return knownHostsFile(t, d.port, keys...)
}

func knownHostsFile(t *testing.T, port int, keys ...ssh.PublicKey) string {
	var lines []string
	for _, k := range keys {
		lines = append(lines, knownhosts.Line([]string{knownhosts.Normalize(fmt.Sprintf("127.0.0.1:%d", port))}, k))
	}
	file := filepath.Join(t.TempDir(), "known_hosts")
	require.NoError(t, os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o600))
	return file
}

func (d *sshd) authorize(t *testing.T, keys ...ssh.PublicKey) {
	f, err := os.OpenFile(filepath.Join(d.dir, "authorized_keys"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	require.NoError(t, err)
	for _, k := range keys {
		_, err = f.Write(ssh.MarshalAuthorizedKey(k))
		require.NoError(t, err)
	}
	require.NoError(t, f.Close())
}

func newECDSA() (ssh.PublicKey, crypto.PrivateKey, error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	p, err := ssh.NewPublicKey(k.Public())
	return p, k, err
}

// newKey writes a new ed25519 key, encrypted where there is a passphrase.
func newKey(t *testing.T, file, passphrase string) ssh.PublicKey {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	writeKey(t, file, private, passphrase)
	p, err := ssh.NewPublicKey(public)
	require.NoError(t, err)
	return p
}

func writeKey(t *testing.T, file string, key crypto.PrivateKey, passphrase string) {
	t.Helper()
	block, err := ssh.MarshalPrivateKey(key, "")
	if passphrase != "" {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(key, "", []byte(passphrase))
	}
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file, pem.EncodeToMemory(block), 0o600))
}

func dial(t *testing.T, cfg host.Config) *host.SSH {
	t.Helper()
	s, err := host.Dial(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func TestSSH(t *testing.T) {
	s := dial(t, startSSHD(t).config(t))
	testRunner(t, s)
}

// A command may wait for another one on the same host, however few sessions that allows.
func TestSSH_CommandsThatWaitForOneAnother(t *testing.T) {
	s := dial(t, startSSHD(t, "MaxSessions 1").config(t))
	in, out := io.Pipe()
	ended := make(chan error)
	go func() { ended <- s.Run(t.Context(), host.Command{Argv: []string{"cat"}, Stdin: in}) }()
	for range 2 {
		require.NoError(t, s.Run(t.Context(), host.Command{Argv: []string{"true"}}))
	}
	require.NoError(t, out.Close())
	require.NoError(t, <-ended)
}

func TestSSH_HostThatAllowsTwoSessions(t *testing.T) {
	for _, allowed := range []string{"1", "2"} {
		s := dial(t, startSSHD(t, "MaxSessions "+allowed).config(t))
		errs := make(chan error)
		for range 12 {
			go func() {
				errs <- s.Run(t.Context(), host.Command{Argv: []string{"sleep", "0.1"}})
			}()
		}
		for range 12 {
			require.NoError(t, <-errs)
		}
	}
}

func TestSSH_NoisyLogin(t *testing.T) {
	d := startSSHD(t, "SetEnv BASH_ENV=/dev/null")
	// A forced command stands for a start-up file that prints, as .bashrc files do.
	noise := `ForceCommand echo welcome; echo careful >&2; exec /bin/sh -c "$SSH_ORIGINAL_COMMAND"`
	noisy := startSSHD(t, noise)
	for _, d := range []*sshd{d, noisy} {
		var out, errs bytes.Buffer
		require.NoError(t, dial(t, d.config(t)).Run(t.Context(), host.Command{
			Argv: []string{"sh", "-c", "echo out; echo err >&2"}, Stdout: &out, Stderr: &errs,
		}))
		require.Equal(t, "out\n", out.String())
		require.Equal(t, "err\n", errs.String())
	}
}

func TestDial_Keys(t *testing.T) {
	d := startSSHD(t)
	dir := t.TempDir()
	locked := filepath.Join(dir, "locked")
	stranger := filepath.Join(dir, "stranger")
	d.authorize(t, newKey(t, locked, "open sesame"))
	newKey(t, stranger, "")
	ring := agent.NewKeyring()
	for i := range 9 { // more than sshd's MaxAuthTries; only the last may log in
		public, private, err := ed25519.GenerateKey(rand.Reader)
		require.NoError(t, err)
		require.NoError(t, ring.Add(agent.AddedKey{PrivateKey: private}))
		if i == 8 {
			p, err := ssh.NewPublicKey(public)
			require.NoError(t, err)
			d.authorize(t, p)
		}
	}
	socket := serveAgent(t, ring)

	for _, c := range []struct {
		name    string
		set     func(*host.Config)
		tried   []string // nil: it gets in
		skipped string
	}{
		{name: "key file", set: func(*host.Config) {}},
		{name: "passphrase", set: func(c *host.Config) { c.KeyFile, c.KeyPassphrase = locked, "open sesame" }},
		{name: "passphrase for a key that needs none", set: func(c *host.Config) { c.KeyPassphrase = "x" }},
		{name: "agent with many keys", set: func(c *host.Config) { c.KeyFile, c.Agent, c.AgentSocket = "", true, socket }},
		{name: "agent gone, key file", set: func(c *host.Config) { c.Agent, c.AgentSocket = true, filepath.Join(dir, "none") }},
		{name: "agent, then key file", set: func(c *host.Config) { c.Agent, c.AgentSocket = true, socket }},
		{
			name: "no passphrase", set: func(c *host.Config) { c.KeyFile = locked },
			tried: []string{}, skipped: "encrypted",
		},
		{
			name: "wrong passphrase", set: func(c *host.Config) { c.KeyFile, c.KeyPassphrase = locked, "nope" },
			tried: []string{}, skipped: locked,
		},
		{
			name: "no such file", set: func(c *host.Config) { c.KeyFile = filepath.Join(dir, "none") },
			tried: []string{}, skipped: "no such file",
		},
		{name: "stranger", set: func(c *host.Config) { c.KeyFile = stranger }, tried: []string{"key " + stranger}},
		{
			name: "stranger and a password", set: func(c *host.Config) { c.KeyFile, c.Password = stranger, "hunter2" },
			tried: []string{"key " + stranger, "password"},
		},
		{name: "nothing", set: func(c *host.Config) { c.KeyFile = "" }, tried: []string{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := d.config(t)
			c.set(&cfg)
			s, err := host.Dial(t.Context(), cfg)
			if c.tried == nil {
				require.NoError(t, err)
				require.NoError(t, s.Close())
				return
			}
			var refused *host.AuthError
			require.ErrorAs(t, err, &refused)
			require.ElementsMatch(t, c.tried, refused.Tried)
			require.Contains(t, strings.Join(refused.Skipped, ","), c.skipped)
			require.NotEmpty(t, refused.Hint())
			require.NotContains(t, err.Error(), "hunter2")
		})
	}
}

func TestDial_Certificate(t *testing.T) {
	dir := t.TempDir()
	ca := filepath.Join(dir, "ca")
	caPublic := newKey(t, ca, "")
	require.NoError(t, os.WriteFile(ca+".pub", ssh.MarshalAuthorizedKey(caPublic), 0o600))
	d := startSSHD(t, "TrustedUserCAKeys "+ca+".pub")
	id := filepath.Join(dir, "id")
	require.NoError(t, os.WriteFile(id+".pub", ssh.MarshalAuthorizedKey(newKey(t, id, "")), 0o600))
	signer, err := ssh.ParsePrivateKey(must(os.ReadFile(ca)))
	require.NoError(t, err)
	public, _, _, _, err := ssh.ParseAuthorizedKey(must(os.ReadFile(id + ".pub")))
	require.NoError(t, err)
	cert := &ssh.Certificate{Key: public, CertType: ssh.UserCert, ValidPrincipals: []string{"root"}, ValidBefore: ssh.CertTimeInfinity}
	require.NoError(t, cert.SignCert(rand.Reader, signer))
	require.NoError(t, os.WriteFile(id+"-cert.pub", ssh.MarshalAuthorizedKey(cert), 0o600))

	cfg := d.config(t)
	cfg.KeyFile = id
	dial(t, cfg)
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func serveAgent(t *testing.T, ring agent.Agent) string {
	socket := filepath.Join(t.TempDir(), "agent")
	l, err := net.Listen("unix", socket)
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _ = agent.ServeAgent(ring, c); _ = c.Close() }()
		}
	}()
	return socket
}

func TestSSH_ConnectionCut(t *testing.T) {
	d := startSSHD(t)
	var wire net.Conn
	cfg := d.config(t)
	cfg.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		var err error
		wire, err = new(net.Dialer).DialContext(ctx, network, address)
		return wire, err
	}
	s := dial(t, cfg)
	err := s.Run(t.Context(), host.Command{
		Argv:   []string{"sh", "-c", "echo started; sleep 30"},
		Stdout: writerFunc(func(p []byte) (int, error) { return len(p), wire.Close() }),
	})
	var lost *host.LostError
	require.ErrorAs(t, err, &lost)
	require.Equal(t, s.String(), lost.Host)
	require.Equal(t, "again\n", output(t, s, "echo", "again"), "the next command gets a new connection")
}

func TestSSH_HostThatFallsSilent(t *testing.T) {
	d := startSSHD(t)
	wire := new(deafConn)
	cfg := d.config(t)
	cfg.KeepAlive = 100 * time.Millisecond
	cfg.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, address)
		wire.Conn = c
		return wire, err
	}
	s := dial(t, cfg)
	err := s.Run(t.Context(), host.Command{
		Argv:   []string{"sh", "-c", "echo started; sleep 30"},
		Stdout: writerFunc(func(p []byte) (int, error) { wire.deaf.Store(true); return len(p), nil }),
	})
	var lost *host.LostError
	require.ErrorAs(t, err, &lost)
	require.ErrorContains(t, err, "no sign of life")
	require.ErrorContains(t, err, s.String())
}

func TestSSH_DialThrough(t *testing.T) {
	jump, target := startSSHD(t), startSSHD(t)
	cfg := target.config(t)
	cfg.Dial = dial(t, jump.config(t)).DialContext
	require.Equal(t, "there\n", output(t, dial(t, cfg), "echo", "there"))
}

func TestSSH_Closed(t *testing.T) {
	s := dial(t, startSSHD(t).config(t))
	require.NoError(t, s.Close())
	require.NoError(t, s.Close())
	require.ErrorIs(t, s.Run(t.Context(), host.Command{Argv: []string{"true"}}), net.ErrClosed)
}

func TestDial_Unreachable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // accepts, says nothing
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	silent := l.Addr().(*net.TCPAddr).Port
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, gone.Close())
	cancelled, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("changed my mind"))

	for name, c := range map[string]struct {
		ctx   context.Context
		port  int
		want  string
		typed bool
	}{
		"nobody listens": {t.Context(), gone.Addr().(*net.TCPAddr).Port, "connection refused", true},
		"silence":        {t.Context(), silent, "no answer in 200ms", true},
		"cancelled":      {cancelled, silent, "changed my mind", false},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := host.Dial(c.ctx, host.Config{
				Address: "127.0.0.1", Port: c.port, Password: "x", KnownHosts: []string{}, Timeout: 200 * time.Millisecond,
			})
			var unreachable *host.UnreachableError
			require.Equal(t, c.typed, errors.As(err, &unreachable))
			require.ErrorContains(t, err, c.want)
		})
	}
}
