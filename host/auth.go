// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// keysPerTry: sshd counts every key offered against MaxAuthTries (default 6) and then hangs up. With
// more keys than this the host is dialled again for the rest.
const keysPerTry = 4

// credentials are the ways to log in to one host, in their order.
type credentials struct {
	cfg     Config
	signers []ssh.Signer
	tried   []string // names of what signers and passwords are
	skipped []string
	agent   net.Conn
}

// gather opens the agent and reads the key file. A way that was asked for and cannot be used is noted, no error: another may do.
func gather(ctx context.Context, cfg Config) *credentials {
	c := &credentials{cfg: cfg}
	var fromAgent []ssh.Signer
	if cfg.Agent {
		fromAgent = c.askAgent(ctx)
	}
	if cfg.KeyFile != "" {
		c.readKey(fromAgent)
	} else {
		c.signers = fromAgent
	}
	return c
}

func (c *credentials) close() {
	if c.agent != nil {
		_ = c.agent.Close() // only read from
	}
}

func (c *credentials) skip(format string, args ...any) {
	c.skipped = append(c.skipped, fmt.Sprintf(format, args...))
}

func (c *credentials) askAgent(ctx context.Context) []ssh.Signer {
	if c.cfg.AgentSocket == "" {
		c.skip("agent (SSH_AUTH_SOCK is not set)")
		return nil
	}
	conn, err := new(net.Dialer).DialContext(ctx, "unix", c.cfg.AgentSocket)
	if err != nil {
		c.skip("agent (%v)", err)
		return nil
	}
	c.agent = conn
	signers, err := agent.NewClient(conn).Signers()
	switch {
	case err != nil:
		c.skip("agent (%v)", err)
	case len(signers) == 0:
		c.skip("agent (it holds no key)")
	default:
		c.tried = append(c.tried, fmt.Sprintf("agent (keys: %d)", len(signers)))
	}
	return signers
}

// readKey puts the key of the key file behind those of the agent; where the agent has the very same key, that one
// comes first: it is what the user chose, and asks for no passphrase.
func (c *credentials) readKey(fromAgent []ssh.Signer) {
	name := "key " + c.cfg.KeyFile
	src, err := os.ReadFile(c.cfg.KeyFile)
	if err != nil {
		c.signers = fromAgent
		c.skip("%s (%v)", name, errors.Unwrap(err))
		return
	}
	var signer ssh.Signer
	if c.cfg.KeyPassphrase != "" {
		signer, err = ssh.ParsePrivateKeyWithPassphrase(src, []byte(c.cfg.KeyPassphrase.Reveal()))
		if err != nil { // the key may not be encrypted at all
			if plain, plainErr := ssh.ParsePrivateKey(src); plainErr == nil {
				signer, err = plain, nil
			}
		}
	} else {
		signer, err = ssh.ParsePrivateKey(src)
	}
	var public ssh.PublicKey
	var locked *ssh.PassphraseMissingError
	switch {
	case err == nil:
		public = signer.PublicKey()
	case errors.As(err, &locked):
		public = locked.PublicKey // only the OpenSSH format tells it
	}
	if public != nil {
		i := slices.IndexFunc(fromAgent, func(s ssh.Signer) bool { return string(s.PublicKey().Marshal()) == string(public.Marshal()) })
		if i >= 0 {
			c.signers = slices.Concat(fromAgent[i:i+1], fromAgent[:i], fromAgent[i+1:])
			return
		}
	}
	c.signers = fromAgent
	switch {
	case locked != nil:
		c.skip("%s (it is encrypted and there is no passphrase)", name)
	case err != nil:
		c.skip("%s (%v)", name, err)
	default:
		c.tried = append(c.tried, name)
		if s := withCertificate(c.cfg.KeyFile, signer); s != nil {
			c.signers = append(slices.Clone(fromAgent), s)
		}
		c.signers = append(slices.Clone(c.signers), signer)
	}
}

// withCertificate is the signer with the certificate that ssh-keygen -s puts beside the key, nil where there is none.
func withCertificate(keyFile string, signer ssh.Signer) ssh.Signer {
	src, err := os.ReadFile(keyFile + "-cert.pub")
	if err != nil {
		return nil
	}
	public, _, _, _, err := ssh.ParseAuthorizedKey(src)
	cert, ok := public.(*ssh.Certificate)
	if err != nil || !ok {
		return nil
	}
	s, err := ssh.NewCertSigner(cert, signer)
	if err != nil {
		return nil
	}
	return s
}

// rounds are the connections to try, each with its methods; the password comes in the last one.
func (c *credentials) rounds() [][]ssh.AuthMethod {
	var rounds [][]ssh.AuthMethod
	for batch := range slices.Chunk(c.signers, keysPerTry) {
		rounds = append(rounds, []ssh.AuthMethod{ssh.PublicKeys(batch...)})
	}
	if c.cfg.Password == "" {
		return rounds
	}
	if len(rounds) == 0 {
		rounds = append(rounds, nil)
	}
	last := len(rounds) - 1
	rounds[last] = append(rounds[last], c.password()...)
	c.tried = append(c.tried, "password")
	return rounds
}

// password gives the password by whichever of the two methods the host asks first, once.
func (c *credentials) password() []ssh.AuthMethod {
	sent := false
	once := func() (string, error) {
		if sent {
			return "", errors.New("the password was refused")
		}
		sent = true
		return c.cfg.Password.Reveal(), nil
	}
	answer := func(_, _ string, questions []string, echos []bool) ([]string, error) {
		answers := make([]string, len(questions))
		for i, q := range questions {
			if echos[i] || i > 0 {
				return nil, fmt.Errorf("the host asks %q, which only a person can answer", q)
			}
			var err error
			if answers[i], err = once(); err != nil {
				return nil, err
			}
		}
		return answers, nil
	}
	return []ssh.AuthMethod{ssh.PasswordCallback(once), ssh.KeyboardInteractive(answer)}
}
