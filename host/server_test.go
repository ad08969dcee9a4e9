// SPDX-License-Identifier: Apache-2.0

package host_test

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"github.com/sealerio/sealer/host"
)

type serverConfig struct {
	password     string
	questions    []string // keyboard-interactive instead of password
	echo         bool
	passwordAlso bool     // both
	env          []string // of the commands
	certify      func(ssh.Signer) ssh.Signer
}

// server is an SSH server in this process: for passwords, which sshd checks against the machine's own accounts, and
// for users that the machine does not have. Commands run as whoever runs the test.
type server struct {
	port       int
	key, ecKey ssh.PublicKey
	attempts   atomic.Int32 // credentials received
	changed    atomic.Bool  // the password is another one now
	conns      chan net.Conn
}

func startServer(t *testing.T, c serverConfig) *server {
	t.Helper()
	s := &server{conns: make(chan net.Conn, 100)}
	cfg := new(ssh.ServerConfig)
	check := func(given string) (*ssh.Permissions, error) {
		s.attempts.Add(1)
		if given != c.password || s.changed.Load() {
			return nil, errors.New("wrong password")
		}
		return nil, nil
	}
	if c.questions == nil || c.passwordAlso {
		cfg.PasswordCallback = func(_ ssh.ConnMetadata, p []byte) (*ssh.Permissions, error) { return check(string(p)) }
	}
	if c.questions != nil {
		cfg.KeyboardInteractiveCallback = func(_ ssh.ConnMetadata, ask ssh.KeyboardInteractiveChallenge) (*ssh.Permissions, error) {
			echos := make([]bool, len(c.questions))
			for i := range echos {
				echos[i] = c.echo
			}
			answers, err := ask("", "", c.questions, echos)
			if err != nil {
				return nil, err
			}
			return check(strings.Join(answers, ""))
		}
	}
	dir := t.TempDir()
	s.key = newKey(t, filepath.Join(dir, "k"), "")
	signer, err := ssh.ParsePrivateKey(must(os.ReadFile(filepath.Join(dir, "k"))))
	require.NoError(t, err)
	if c.certify != nil {
		signer = c.certify(signer)
	}
	cfg.AddHostKey(signer)
	if c.certify == nil {
		var key any
		s.ecKey, key, err = newECDSA()
		require.NoError(t, err)
		cfg.AddHostKey(must(ssh.NewSignerFromKey(key)))
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	s.port = l.Addr().(*net.TCPAddr).Port
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			s.conns <- conn
			go serve(conn, cfg, c.env)
		}
	}()
	return s
}

func (s *server) config(t *testing.T) host.Config {
	return host.Config{Address: "127.0.0.1", Port: s.port, User: "alice", KnownHosts: []string{knownHostsFile(t, s.port, s.key)}}
}

func serve(conn net.Conn, cfg *ssh.ServerConfig, env []string) {
	_, chans, reqs, err := ssh.NewServerConn(conn, cfg)
	if err != nil {
		_ = conn.Close()
		return
	}
	go ssh.DiscardRequests(reqs)
	for c := range chans {
		ch, reqs, err := c.Accept()
		if err != nil {
			return
		}
		go func() {
			for r := range reqs {
				ok := r.Type == "exec"
				_ = r.Reply(ok, nil)
				if ok {
					var line struct{ Command string }
					_ = ssh.Unmarshal(r.Payload, &line)
					go execute(ch, line.Command, env)
				}
			}
		}()
	}
}

// execute does what sshd does for an exec request without a terminal.
func execute(ch ssh.Channel, line string, env []string) {
	cmd := exec.Command("/bin/sh", "-c", line)
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Stdout, cmd.Stderr = ch, ch.Stderr()
	var status struct{ Status uint32 }
	stdin, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err == nil {
		go func() {
			buf := make([]byte, 32<<10)
			for {
				n, err := ch.Read(buf)
				if _, werr := stdin.Write(buf[:n]); err != nil || werr != nil {
					_ = stdin.Close()
					return
				}
			}
		}()
		_ = cmd.Wait()
		ws := cmd.ProcessState.Sys().(syscall.WaitStatus)
		if ws.Signaled() {
			msg := struct {
				Signal string
				Core   bool
				Error  string
				Lang   string
			}{Signal: map[syscall.Signal]string{syscall.SIGKILL: "KILL", syscall.SIGTERM: "TERM"}[ws.Signal()]}
			_, _ = ch.SendRequest("exit-signal", false, ssh.Marshal(msg))
			_ = ch.Close()
			return
		}
		status.Status = uint32(ws.ExitStatus())
	}
	_, _ = ch.SendRequest("exit-status", false, ssh.Marshal(status))
	_ = ch.Close()
}

func TestDial_Password(t *testing.T) {
	for name, c := range map[string]struct {
		server   serverConfig
		given    host.Secret
		ok       bool
		attempts int32
	}{
		"password":                       {serverConfig{password: "right"}, "right", true, 1},
		"wrong password":                 {serverConfig{password: "right"}, "wrong", false, 1},
		"keyboard-interactive":           {serverConfig{password: "right", questions: []string{"Password: "}}, "right", true, 1},
		"keyboard-interactive, wrong":    {serverConfig{password: "right", questions: []string{"Password: "}}, "wrong", false, 1},
		"both, wrong: once":              {serverConfig{password: "right", questions: []string{"Password: "}, passwordAlso: true}, "wrong", false, 1},
		"one-time code":                  {serverConfig{password: "right", questions: []string{"Password: ", "Code: "}}, "right", false, 0},
		"a question that is no password": {serverConfig{password: "right", questions: []string{"Name: "}, echo: true}, "right", false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			srv := startServer(t, c.server)
			cfg := srv.config(t)
			cfg.Password = c.given
			s, err := host.Dial(t.Context(), cfg)
			require.Equal(t, c.attempts, srv.attempts.Load())
			if c.ok {
				require.NoError(t, err)
				require.NoError(t, s.Close())
				return
			}
			var refused *host.AuthError
			require.ErrorAs(t, err, &refused)
			require.Equal(t, []string{"password"}, refused.Tried)
			require.NotContains(t, err.Error(), c.given.Reveal())
		})
	}
}

// A password that was changed while a run went on is not tried again and again: that would lock the account.
func TestSSH_PasswordChanged(t *testing.T) {
	srv := startServer(t, serverConfig{password: "right"})
	cfg := srv.config(t)
	cfg.Password = "right"
	s, err := host.Dial(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	srv.changed.Store(true)
	require.NoError(t, (<-srv.conns).Close())
	var refused *host.AuthError
	require.Eventually(t, func() bool {
		return errors.As(s.Run(t.Context(), host.Command{Argv: []string{"true"}}), &refused)
	}, 10*time.Second, 10*time.Millisecond)
	for range 5 {
		require.ErrorAs(t, s.Run(t.Context(), host.Command{Argv: []string{"true"}}), &refused)
	}
	require.EqualValues(t, 3, srv.attempts.Load(), "the login, and two more")
}

// fakeSudo behaves as sudo does: env_reset, secure_path, three tries for a password that it reads a byte at a time.
const fakeSudo = `#!/bin/sh
echo "sudo $*" >>"$SUDO_LOG"
ask=
while :; do case $1 in -n) ask=no;; -S) ask=yes;; -H) ;; -p) shift;; --) shift; break;; *) exit 99;; esac; shift; done
if [ -n "$SUDO_WANTS" ]; then
  [ $ask = yes ] || { echo "sudo: a password is required" >&2; exit 1; }
  i=0
  while IFS= read -r p || exit 1; do
    echo try >>"$SUDO_LOG"
    [ "$p" != "$SUDO_WANTS" ] || break
    i=$((i+1)); [ $i -lt 3 ] || { echo "sudo: 3 incorrect password attempts" >&2; exit 1; }
    echo "Sorry, try again." >&2
  done
fi
exec env -i PATH=/usr/bin:/bin SUDO_USER=alice HOME=/root "$@"
`

func TestSSH_Sudo(t *testing.T) {
	for name, c := range map[string]struct {
		wants    string
		password host.Secret
		err      bool
	}{
		"nothing asked":                    {},
		"nothing asked, password given":    {password: "unused"},
		"password":                         {wants: "it's $x", password: "it's $x"},
		"wrong password":                   {wants: "right", password: "wrong", err: true},
		"password asked for and not given": {wants: "right", err: true},
	} {
		t.Run(name, func(t *testing.T) {
			bin := t.TempDir()
			log := filepath.Join(bin, "log")
			require.NoError(t, os.WriteFile(filepath.Join(bin, "sudo"), []byte(fakeSudo), 0o755))
			srv := startServer(t, serverConfig{password: "login", env: []string{
				"PATH=" + bin + ":" + os.Getenv("PATH"), "SUDO_LOG=" + log, "SUDO_WANTS=" + c.wants,
			}})
			cfg := srv.config(t)
			cfg.Password, cfg.Sudo = "login", true
			if cfg.SudoPassword = c.password; c.password == "" {
				cfg.SudoPassword = "login"
			}
			s, err := host.Dial(t.Context(), cfg)
			if c.err {
				var denied *host.SudoError
				require.ErrorAs(t, err, &denied)
				require.Equal(t, "alice", denied.User)
				require.LessOrEqual(t, strings.Count(string(must(os.ReadFile(log))), "try"), 1, "a wrong password is tried once")
				return
			}
			require.NoError(t, err)
			require.Equal(t, "alice\n", output(t, s, "sh", "-c", "echo $SUDO_USER"))
			testRunner(t, s)
			require.NoError(t, s.Close())
			if c.password != "" {
				require.NotContains(t, string(must(os.ReadFile(log))), c.password.Reveal(), "no password in argv")
			}
		})
	}
}

func TestDial_RootNeedsNoSudo(t *testing.T) {
	srv := startServer(t, serverConfig{password: "x", env: []string{"PATH=/usr/bin:/bin"}})
	cfg := srv.config(t)
	cfg.User, cfg.Password, cfg.Sudo = "root", "x", true
	require.Equal(t, "ok\n", output(t, dial(t, cfg), "echo", "ok"))
}
