// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/host"
)

// passwordEnv is the environment variable of the SSH password, for scripts.
const passwordEnv = "SEALER_SSH_PASSWD" //nolint:gosec // a name, no credential

// sshFlags say how the hosts are reached.
type sshFlags struct {
	masters, nodes  string
	user, key       string
	port            int
	password        host.Secret
	passphrase      host.Secret
	passwordFile    string
	jump            string
	askPassword     bool
	acceptNewHosts  bool
	chosen          func(flag string) bool
	passwordFromEnv bool // which hosts' own passwords go before
}

func (o *sshFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVarP(&o.masters, "masters", "m", "", "addresses or names of the control plane hosts: 10.0.0.1,10.0.0.2 or 10.0.0.1-10.0.0.3")
	f.StringVarP(&o.nodes, "nodes", "n", "", "addresses or names of the worker hosts")
	f.StringVarP(&o.user, "user", "u", "root", "user to log in as; another than root needs sudo")
	numberVar(f, &o.port, "port", "", 22, 1, maxPort, "port of SSH")
	f.StringVar(&o.key, "pk", "", "private key file (default: the SSH agent and ~/.ssh/id_*)")
	f.Var(secretValue{&o.passphrase}, "pk-passwd", "passphrase of the private key")
	f.VarP(secretValue{&o.password}, "passwd", "p", "password to log in with; "+passwordEnv+", --passwd-file and --ask-passwd keep it out of the shell's history")
	f.StringVar(&o.passwordFile, "passwd-file", "", "file that holds the password")
	f.BoolVar(&o.askPassword, "ask-passwd", false, "ask for the password on the terminal")
	f.BoolVar(&o.acceptNewHosts, "accept-new-host-keys", false, "trust hosts that are seen for the first time; a changed key is refused all the same")
	f.Var(jumpValue{&o.jump}, "jump", "host through which the others are reached: [USER@]HOST[:PORT], with the same key or password")
	cmd.MarkFlagsMutuallyExclusive("passwd", "passwd-file", "ask-passwd")
	o.chosen = f.Changed
}

// resolve reads the password from where the user said it is.
func (o *sshFlags) resolve(a *app, cmd *cobra.Command) error {
	switch {
	case o.password != "":
		return nil
	case o.passwordFile != "":
		text, err := passwordFromFile(o.passwordFile)
		o.password = host.Secret(text)
		return err
	case o.askPassword:
		text, err := a.askPassword(cmd, "SSH password: ")
		o.password = host.Secret(text)
		return err
	}
	o.password, o.passwordFromEnv = host.Secret(os.Getenv(passwordEnv)), true
	return nil
}

// ssh is the login that the flags say, with their defaults.
func (o *sshFlags) ssh() clusterfile.SSH {
	login := clusterfile.SSH{
		User: o.user, Port: o.port, KeyFile: o.key,
		Password:    o.password,
		KeyPassword: o.passphrase,
	}
	login.Jump = o.jumpHost(login)
	return login
}

// given is the part of it that the user has said.
func (o *sshFlags) given() clusterfile.SSH {
	var login clusterfile.SSH
	if o.chosen("user") {
		login.User = o.user
	}
	if o.chosen("port") {
		login.Port = o.port
	}
	if o.chosen("pk") {
		login.KeyFile = o.key
	}
	return login
}

// jumpHost reads --jump; what it leaves open is as for the other hosts.
func (o *sshFlags) jumpHost(login clusterfile.SSH) *clusterfile.Jump {
	if o.jump == "" {
		return nil
	}
	user, name, port, err := parseJump(o.jump)
	if err != nil {
		return nil // such a flag is not taken
	}
	jump := &clusterfile.Jump{Host: name, SSH: login}
	jump.Port = port
	if user != "" {
		jump.User = user
	}
	return jump
}

// overlay fills what a host of a Clusterfile leaves open, and puts flags that
// were given over what it says.
func (o *sshFlags) overlay(h clusterfile.SSH) clusterfile.SSH {
	login := o.given()
	login.Password, login.KeyPassword = o.password, o.passphrase
	if o.passwordFromEnv && h.Password != "" {
		login.Password = h.Password
	}
	if login.KeyPassword == "" {
		login.KeyPassword = h.KeyPassword
	}
	jump := h.Jump
	h.Jump = nil
	login = login.Over(h)
	switch {
	case o.jump != "":
		login.Jump = o.jumpHost(login)
	case jump != nil: // what is kept of a cluster has no passwords
		j := *jump
		if j.Password == "" {
			j.Password = o.password
		}
		if j.KeyPassword == "" {
			j.KeyPassword = o.passphrase
		}
		login.Jump = &j
	}
	return login
}

// dialer connects to hosts; a host without an address is this machine. Jump hosts are connected to once, and left at
// the end of the command.
func (a *app) dialer(o *sshFlags) func(context.Context, clusterfile.Host) (host.Runner, error) {
	jumps := &jumpHosts{dial: a.dialJump, open: map[clusterfile.Jump]*host.SSH{}}
	a.closers = append(a.closers, jumps)
	return func(ctx context.Context, h clusterfile.Host) (host.Runner, error) {
		if h.Local() {
			return host.NewLocal(ctx, host.LocalConfig{Sudo: true, SudoPassword: o.password, Logger: a.log})
		}
		login := o.overlay(h.SSH)
		c := a.login(o, h.Address, login)
		c.Sudo, c.SudoPassword = true, login.SudoPassword
		if login.Jump != nil {
			through, err := jumps.get(ctx, o, *login.Jump)
			if err != nil {
				return nil, fmt.Errorf("reaching %s through %s: %w", h.Address, login.Jump.Host, err)
			}
			c.Dial = through.DialContext
		}
		return host.Dial(ctx, c)
	}
}

func (a *app) login(o *sshFlags, address string, login clusterfile.SSH) host.Config {
	return host.Config{
		Address: address, Port: login.Port, User: login.User,
		Password: login.Password,
		Agent:    os.Getenv("SSH_AUTH_SOCK") != "",
		KeyFile:  keyFile(login.KeyFile), KeyPassphrase: login.KeyPassword,
		NewHostKeys: filepath.Join(a.root, "known_hosts"), AcceptNewHostKeys: o.acceptNewHosts,
		Logger: a.log,
	}
}

func (a *app) dialJump(ctx context.Context, o *sshFlags, j clusterfile.Jump) (*host.SSH, error) {
	return host.Dial(ctx, a.login(o, j.Host, j.SSH))
}

// jumpHosts are the connections to jump hosts, one each.
type jumpHosts struct {
	dial func(context.Context, *sshFlags, clusterfile.Jump) (*host.SSH, error)
	mu   sync.Mutex
	open map[clusterfile.Jump]*host.SSH
}

func (j *jumpHosts) get(ctx context.Context, o *sshFlags, jump clusterfile.Jump) (*host.SSH, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if s := j.open[jump]; s != nil {
		return s, nil
	}
	s, err := j.dial(ctx, o, jump)
	if err == nil {
		j.open[jump] = s
	}
	return s, err
}

// Close leaves them.
func (j *jumpHosts) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	var errs []error
	for _, s := range j.open {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}

// resolveSecrets gets what a Clusterfile only refers to, and tells of what stands in it in clear.
func (a *app) resolveSecrets(cmd *cobra.Command, f *clusterfile.File) error {
	for _, place := range f.ClearText {
		a.log.Warn(place.String() + " stands there in clear: write env:NAME, file:PATH or prompt")
	}
	return f.ResolveSecrets(func(r clusterfile.Reference) (clusterfile.Secret, error) {
		switch r.Source {
		case clusterfile.FromEnv:
			value, ok := os.LookupEnv(r.Name)
			if !ok {
				return "", fmt.Errorf("the environment variable %s is not set", r.Name)
			}
			return clusterfile.Secret(value), nil
		case clusterfile.FromFile:
			if r.Whole {
				text, err := readPEM(r.Name)
				return clusterfile.Secret(text), err
			}
			text, err := passwordFromFile(r.Name)
			return clusterfile.Secret(text), err
		default:
			text, err := a.askPassword(cmd, strings.ToUpper(r.What[:1])+r.What[1:]+": ")
			return clusterfile.Secret(text), err
		}
	})
}

// keyFile is the first of the user's keys that is there, where none is named,
// in the order of ssh(1).
func keyFile(named string) string {
	if named != "" {
		return named
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	names := []string{"id_rsa", "id_ecdsa", "id_ed25519"}
	at := slices.IndexFunc(names, func(name string) bool {
		_, err := os.Stat(filepath.Join(home, ".ssh", name))
		return err == nil
	})
	if at < 0 {
		return ""
	}
	return filepath.Join(home, ".ssh", names[at])
}

// nodeBinary finds the sealer-node for a host's architecture: beside this
// program, as sealer-node-linux-ARCH or, for this machine's own, sealer-node.
func nodeBinary(arch string) (string, error) {
	dir, err := programFolder()
	if err != nil {
		return "", err
	}
	names := []string{"sealer-node-linux-" + arch}
	if arch == goruntime.GOARCH && goruntime.GOOS == "linux" {
		names = append(names, "sealer-node")
	}
	for _, name := range names {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", &nodeBinaryError{arch: arch, dir: dir, names: names}
}

// nodeBinaryError says that the program for the hosts is not installed.
type nodeBinaryError struct {
	arch, dir string
	names     []string
}

func (e *nodeBinaryError) Error() string {
	return fmt.Sprintf("looking for the program that runs on linux/%s hosts: %q holds none of %q", e.arch, e.dir, e.names)
}

func (e *nodeBinaryError) Hint() string {
	return "install sealer-node beside sealer ('make build' makes both)"
}
