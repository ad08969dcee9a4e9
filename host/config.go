// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// Config says how to reach one host. Logins are tried in the order agent, key file, password.
type Config struct {
	Address string // name, IPv4 or IPv6 address
	Port    int    // default 22
	User    string // default root

	Agent         bool   // ask an SSH agent
	AgentSocket   string // default $SSH_AUTH_SOCK
	KeyFile       string // private key; a certificate in KeyFile + "-cert.pub" is used where there is one
	KeyPassphrase Secret
	Password      Secret // sent at most once per connection, so that a wrong one locks no account

	// KnownHosts are the files of known keys; one that does not exist is empty. Default: DefaultKnownHosts.
	KnownHosts []string
	// AcceptNewHostKeys takes the key of a host that is in none of the files, and adds it to
	// NewHostKeys. A key other than the known one is refused all the same.
	AcceptNewHostKeys bool
	// NewHostKeys is sealer's own known_hosts file: read besides KnownHosts, written where
	// AcceptNewHostKeys is set. Its folder is made where it is missing.
	NewHostKeys string

	// Sudo runs every command as root where User is another. SudoPassword is for sudo's prompt; default Password.
	Sudo         bool
	SudoPassword Secret

	Timeout   time.Duration // for connecting and logging in; default 30 s
	KeepAlive time.Duration // how often a silent host is asked for a sign of life; gone after three without; default 10 s
	Sessions  int           // commands at once; default 8, of sshd's MaxSessions 10

	// Dial opens the connection; default net.Dialer. (*SSH).DialContext of another host makes that one the jump host.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	Logger *slog.Logger // default: silent
}

// DefaultKnownHosts are the user's and the machine's known_hosts files, as OpenSSH reads them.
func DefaultKnownHosts() []string {
	files := []string{"/etc/ssh/ssh_known_hosts"}
	if home, err := os.UserHomeDir(); err == nil {
		files = append([]string{filepath.Join(home, ".ssh", "known_hosts")}, files...)
	}
	return files
}

func (c Config) withDefaults() Config {
	if c.Port == 0 {
		c.Port = 22
	}
	if c.User == "" {
		c.User = "root"
	}
	if c.AgentSocket == "" {
		c.AgentSocket = os.Getenv("SSH_AUTH_SOCK")
	}
	if c.KnownHosts == nil {
		c.KnownHosts = DefaultKnownHosts()
	}
	if c.SudoPassword == "" {
		c.SudoPassword = c.Password
	}
	if c.Timeout == 0 {
		c.Timeout = 30 * time.Second
	}
	if c.KeepAlive == 0 {
		c.KeepAlive = 10 * time.Second
	}
	if c.Sessions == 0 {
		c.Sessions = 8
	}
	if c.Dial == nil {
		c.Dial = new(net.Dialer).DialContext
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// Validate reports every mistake at once.
func (c Config) Validate() error {
	var errs []error
	if c.Address == "" {
		errs = append(errs, errors.New("address: it is empty"))
	}
	if c.Port < 0 || c.Port > 65535 {
		errs = append(errs, errors.New("port: "+strconv.Itoa(c.Port)+" is not between 1 and 65535"))
	}
	if c.AcceptNewHostKeys && c.NewHostKeys == "" {
		errs = append(errs, errors.New("accepting new host keys: there is no file to keep them in"))
	}
	if c.Timeout < 0 || c.KeepAlive < 0 || c.Sessions < 0 {
		errs = append(errs, errors.New("timeout, keep-alive and sessions: less than 0"))
	}
	return errors.Join(errs...)
}

// name is how the host stands in messages.
func (c Config) name() string {
	if c.Port == 0 || c.Port == 22 {
		return c.Address
	}
	return c.hostPort()
}

func (c Config) hostPort() string { return net.JoinHostPort(c.Address, strconv.Itoa(c.Port)) }
