// SPDX-License-Identifier: Apache-2.0

package hosts

import (
	"bytes"
	"context"
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
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
	"golang.org/x/sync/errgroup"
)

// Exec runs a program as root on the host, past its network and sshd, and returns what it printed on standard output.
// A program that fails is an *exec.ExitError inside the error, which ends with what it printed on standard error.
func (h Host) Exec(ctx context.Context, argv ...string) ([]byte, error) {
	var out bytes.Buffer
	err := h.Pipe(ctx, nil, &out, io.Discard, argv...)
	return out.Bytes(), err
}

// Pipe is Exec with streams. Without a stdin the program finds nothing to read.
func (h Host) Pipe(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer, argv ...string) error {
	args := []string{"exec"}
	if stdin != nil {
		args = append(args, "--interactive")
	}
	args = append(append(args, h.Container), argv...)
	if err := h.set.Engine.stream(ctx, stdin, stdout, stderr, args...); err != nil {
		return fmt.Errorf("running %s on %s: %w", strings.Join(argv, " "), h, err)
	}
	return nil
}

// Restart shuts the host down in peace, boots it, and waits until it is up. A host that does not shut down within 30
// seconds loses its power.
func (h Host) Restart(ctx context.Context) error {
	return h.change(ctx, "restarting", true, "restart", "--time", "30")
}

const killLimit = 2 * time.Minute

// Kill cuts the host's power: nothing on it gets to write anything. It stays off until Start. This machine forgets where the host was, so
// that who asks for it is told after three seconds that it is gone, and not after half a minute of silence.
func (h Host) Kill(ctx context.Context) error {
	if err := h.change(ctx, "killing", false, "kill"); err != nil {
		if !strings.Contains(err.Error(), "did not receive an exit event") {
			return err
		}
		// The engine waits ten seconds for what was killed to be gone. On a busy machine that takes longer.
		wait, cancel := context.WithTimeout(ctx, killLimit)
		defer cancel()
		if _, waiting := h.set.Engine.docker(wait, nil, "wait", h.Container); waiting != nil {
			return errors.Join(err, waiting)
		}
	}
	if out, err := exec.CommandContext(ctx, "ip", "neigh", "flush", "to", h.Address.String()).CombinedOutput(); err != nil {
		return fmt.Errorf("killing %s: forgetting where it was: %w: %s", h, err, out)
	}
	return nil
}

// Stop shuts the host down in peace. It stays off until Start.
func (h Host) Stop(ctx context.Context) error {
	return h.change(ctx, "stopping", false, "stop", "--time", "30")
}

// Start boots a host that is off and waits until it is up.
func (h Host) Start(ctx context.Context) error { return h.change(ctx, "starting", true, "start") }

// Pause stops every process on the host, which still holds its connections but answers nothing, until Resume.
func (h Host) Pause(ctx context.Context) error { return h.change(ctx, "pausing", false, "pause") }

// Resume lets the processes of a paused host go on.
func (h Host) Resume(ctx context.Context) error { return h.change(ctx, "resuming", false, "unpause") }

func (h Host) change(ctx context.Context, doing string, boots bool, args ...string) error {
	if _, err := h.set.Engine.docker(ctx, nil, append(args, h.Container)...); err != nil {
		return fmt.Errorf("%s %s: %w", doing, h, err)
	}
	if boots {
		if err := h.Wait(ctx); err != nil {
			return fmt.Errorf("%s %s: %w", doing, h, err)
		}
	}
	return nil
}

// Wait returns when the host has booted and lets root in with the set's key, as it does not for a while after a reboot
// that came from inside. It gives up after 3 minutes, or earlier with ctx.
func (h Host) Wait(ctx context.Context) error {
	config, err := h.set.ClientConfig("root", h)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, bootTime)
	defer cancel()
	return poll(ctx, 200*time.Millisecond, func(ctx context.Context) error { return h.booted(ctx, config) })
}

// booted asks over SSH, because that is what has to work.
func (h Host) booted(ctx context.Context, config *ssh.ClientConfig) error {
	// A host that is paused or that hangs must not use up all the time that there is.
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var dialer net.Dialer
	address := net.JoinHostPort(h.Address.String(), "22")
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	c, chans, reqs, err := ssh.NewClientConn(conn, address, config)
	if err != nil {
		if _, ok := errors.AsType[*knownhosts.KeyError](err); ok {
			return permanent(err)
		}
		return err
	}
	client := ssh.NewClient(c, chans, reqs)
	defer client.Close()
	session, err := client.NewSession()
	if err != nil {
		return err
	}
	defer session.Close()
	out, err := session.Output("if [ -d /run/openrc ]; then cat /run/openrc/softlevel; else systemctl is-system-running --wait; fi")
	// A unit that failed is a fact about the host, which a test may want to see, not a reason to wait. OpenRC names its runlevel.
	if state := strings.TrimSpace(string(out)); state != "running" && state != "degraded" && state != "default" {
		return fmt.Errorf("system is %q: %w", state, errors.Join(err))
	}
	return nil
}

// ClientConfig returns how to log in on a host of the set with its key, or with its password as a second try. Only the
// host's own key is accepted.
func (s *Set) ClientConfig(user string, h Host) (*ssh.ClientConfig, error) {
	data, err := os.ReadFile(s.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("reading the key of the set: %w", err)
	}
	signer, err := ssh.ParsePrivateKey(data)
	if err != nil {
		return nil, fmt.Errorf("reading the key of the set: %w", err)
	}
	known, err := knownhosts.New(s.KnownHosts)
	if err != nil {
		return nil, fmt.Errorf("reading the known hosts of the set: %w", err)
	}
	return &ssh.ClientConfig{
		User:              user,
		Auth:              []ssh.AuthMethod{ssh.PublicKeys(signer), ssh.Password(s.Password)},
		HostKeyCallback:   known,
		HostKeyAlgorithms: []string{h.HostKey.Type()},
	}, nil
}

// wait returns when every host has booted and each can reach the next one.
func (s *Set) wait(ctx context.Context) error {
	errs := make([]error, len(s.Hosts))
	var g errgroup.Group
	for i, h := range s.Hosts {
		g.Go(func() error {
			if err := h.Wait(ctx); err != nil {
				s.explain(ctx, h)
				errs[i] = fmt.Errorf("waiting for host %s: %w", h, err)
				return nil
			}
			next := s.Hosts[(i+1)%len(s.Hosts)]
			err := poll(ctx, 200*time.Millisecond, func(ctx context.Context) error {
				_, err := h.Exec(ctx, "timeout", "5", "bash", "-c", "exec 3<>/dev/tcp/"+next.Address.String()+"/22")
				return err
			})
			if err != nil {
				errs[i] = fmt.Errorf("reaching host %s from host %s: %w", next, h, err)
			}
			return nil
		})
	}
	_ = g.Wait() // the errors are in errs
	return errors.Join(errs...)
}

// explain logs what a host that does not come up says of itself.
func (s *Set) explain(ctx context.Context, h Host) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	out, err := h.Exec(ctx, "sh", "-c", "systemctl --failed --no-legend; systemctl list-jobs --no-legend; journalctl -n 20 --no-pager; rc-status --all")
	s.log.Warn("a host does not come up", "host", h.Name, "says", string(out), "error", err)
}

// makeKeys makes the key and the password that let users in, and returns the public half for authorized_keys.
func (s *Set) makeKeys() (string, error) {
	s.Password = rand.Text()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", fmt.Errorf("making the key of the set: %w", err)
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		return "", fmt.Errorf("making the key of the set: %w", err)
	}
	block, err := ssh.MarshalPrivateKey(private, "test hosts "+s.Name)
	if err != nil {
		return "", fmt.Errorf("making the key of the set: %w", err)
	}
	s.KeyFile = filepath.Join(runDir(s.Name), "id_ed25519")
	if err := writeFile(s.KeyFile, pem.EncodeToMemory(block), 0o600); err != nil {
		return "", fmt.Errorf("writing the key of the set: %w", err)
	}
	line := authorizedLine(key)
	if err := writeFile(s.KeyFile+".pub", []byte(line), 0o644); err != nil {
		return "", fmt.Errorf("writing the key of the set: %w", err)
	}
	return line, nil
}

func (s *Set) writeKnownHosts() error {
	var lines strings.Builder
	for _, h := range s.Hosts {
		names := []string{h.Address.String()}
		if h.Address6.IsValid() {
			names = append(names, h.Address6.String())
		}
		fmt.Fprintln(&lines, knownhosts.Line(names, h.HostKey))
	}
	s.KnownHosts = filepath.Join(runDir(s.Name), "known_hosts")
	if err := writeFile(s.KnownHosts, []byte(lines.String()), 0o644); err != nil {
		return fmt.Errorf("writing the known hosts of the set: %w", err)
	}
	return nil
}

// hostKeys are made here and not by the host, so that its key is known before the first connection.
type hostKeys struct {
	public                      ssh.PublicKey
	ed25519, ecdsa, ecdsaPublic string
}

func makeHostKeys() (hostKeys, error) {
	var keys hostKeys
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return keys, fmt.Errorf("making host keys: %w", err)
	}
	second, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return keys, fmt.Errorf("making host keys: %w", err)
	}
	if keys.public, err = ssh.NewPublicKey(public); err != nil {
		return keys, fmt.Errorf("making host keys: %w", err)
	}
	secondPublic, err := ssh.NewPublicKey(&second.PublicKey)
	if err != nil {
		return keys, fmt.Errorf("making host keys: %w", err)
	}
	first, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		return keys, fmt.Errorf("making host keys: %w", err)
	}
	other, err := ssh.MarshalPrivateKey(second, "")
	if err != nil {
		return keys, fmt.Errorf("making host keys: %w", err)
	}
	keys.ed25519, keys.ecdsa = string(pem.EncodeToMemory(first)), string(pem.EncodeToMemory(other))
	keys.ecdsaPublic = authorizedLine(secondPublic)
	return keys, nil
}

func authorizedLine(key ssh.PublicKey) string { return string(ssh.MarshalAuthorizedKey(key)) }
