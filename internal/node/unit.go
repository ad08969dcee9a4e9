// SPDX-License-Identifier: Apache-2.0

package node

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/sealerio/sealer/internal/atomicfile"
)

// RegistryUnit is the systemd unit that runs `sealer-node registry serve`.
const RegistryUnit = "sealer-registry.service"

// exitNamespace is what systemd says where it could not set up a unit's mount namespace: EXIT_NAMESPACE, systemd.exec(5).
const exitNamespace = "226"

// maxRestarts is how often a registry that is being started may end before we give up.
const maxRestarts = 3

// UnitOptions say how the registry is run.
type UnitOptions struct {
	Program string        // sealer-node; default: this program
	Timeout time.Duration // for the registry to answer; default 60 s
}

func (o UnitOptions) withDefaults() (UnitOptions, error) {
	if o.Timeout == 0 {
		o.Timeout = time.Minute
	}
	if o.Program == "" {
		program, err := os.Executable()
		if err != nil {
			return o, fmt.Errorf("finding this program: %w", err)
		}
		o.Program = program
	}
	return o, nil
}

// UnitError is a registry that was started and does not answer.
type UnitError struct {
	Unit string
	Log  string // its last lines
	Err  error
}

func (e *UnitError) Error() string {
	msg := fmt.Sprintf("starting %s: %v", e.Unit, e.Err)
	if e.Log != "" {
		msg += "\n" + e.Log
	}
	return msg
}
func (e *UnitError) Unwrap() error { return e.Err }

// Hint says where to look.
func (e *UnitError) Hint() string { return "look at `journalctl -u " + e.Unit + "` on the host" }

// systemUnit is a systemd unit that runs a command of this program; under OpenRC it is a service.
type systemUnit struct {
	name    string
	command string // of this program: "registry serve"
	text    func(sandbox bool) string
	// answers: it does what it is for.
	answers func(context.Context) error
	// since is a file: what runs is older than it, and has to be started again. Empty: it follows what changes.
	since string
}

// install writes the unit, enables and starts it, and waits until it answers. One that answers
// already and has nothing new is left alone. Where systemd cannot sandbox the unit, as in some containers, it runs without.
func (n *Node) install(ctx context.Context, u systemUnit, o UnitOptions) error {
	if n.initDir != "" {
		return n.startService(ctx, o, u)
	}
	err := n.startUnit(ctx, o, u, true)
	if err != nil && exitStatus(ctx, u.name) == exitNamespace {
		n.log.Warn("systemd cannot sandbox the unit here; running it without", "unit", u.name)
		err = n.startUnit(ctx, o, u, false)
	}
	return err
}

func (n *Node) startUnit(ctx context.Context, o UnitOptions, u systemUnit, sandbox bool) error {
	file := filepath.Join(n.unitDir, u.name)
	text := u.text(sandbox)
	old, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("reading the unit: %w", err)
	}
	changed := string(old) != text
	if !changed && u.upToDate(ctx) && u.answers(ctx) == nil {
		return nil
	}
	if changed {
		if err := atomicfile.Write(file, []byte(text), 0o644); err != nil {
			return err
		}
	}
	if err := systemctl(ctx, "daemon-reload"); err != nil {
		return &UnitError{u.name, "", err}
	}
	_ = systemctl(ctx, "reset-failed", u.name) // its counters; an error where there is nothing to reset
	for _, args := range [][]string{{"enable", u.name}, {"restart", u.name}} {
		if err := systemctl(ctx, args...); err != nil {
			return &UnitError{u.name, unitLog(ctx, u.name), err}
		}
	}
	return u.wait(ctx, o, u.name, func() string { return unitLog(ctx, u.name) }, func(limited context.Context, err error) error {
		if exitStatus(limited, u.name) == exitNamespace {
			return &UnitError{u.name, "", errors.New("systemd cannot sandbox it")}
		}
		if n, convErr := strconv.Atoi(property(limited, u.name, "NRestarts")); convErr == nil && n >= maxRestarts {
			return &UnitError{u.name, unitLog(ctx, u.name), fmt.Errorf("it has ended %d times: %w", n, err)}
		}
		return nil
	})
}

// wait asks until there is an answer, for o.Timeout, or until ended says why there will be none. log is what the service
// has said.
func (u systemUnit) wait(ctx context.Context, o UnitOptions, name string, log func() string, ended func(context.Context, error) error) error {
	limited, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		err := u.answers(limited)
		if err == nil {
			return nil
		}
		if why := ended(limited, err); why != nil {
			return why
		}
		select {
		case <-tick.C:
		case <-limited.Done():
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return &UnitError{name, log(), fmt.Errorf("no answer in %s: %w", o.Timeout, err)}
		}
	}
}

// upToDate tells whether what runs is started from the program and the configuration that are there now.
func (u systemUnit) upToDate(ctx context.Context) bool {
	return u.freshProcess(property(ctx, u.name, "MainPID"))
}

func (u systemUnit) freshProcess(pid string) bool {
	if pid == "" || pid == "0" {
		return false
	}
	exe, err := os.Readlink("/proc/" + pid + "/exe")
	if err != nil || strings.HasSuffix(exe, " (deleted)") {
		return false
	}
	if u.since == "" {
		return true
	}
	started, err := os.Stat("/proc/" + pid)
	config, cerr := os.Stat(u.since)
	return err == nil && cerr == nil && !config.ModTime().After(started.ModTime())
}

// uninstall stops and removes a unit. One that is not there is no error.
func (n *Node) uninstall(ctx context.Context, unit string) error {
	if n.initDir != "" {
		return n.removeService(ctx, service(unit))
	}
	file := filepath.Join(n.unitDir, unit)
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("removing %s: %w", unit, err)
	}
	if !strings.Contains(string(text), " --root "+n.quotedRoot()+" ") {
		return nil // that of another root folder
	}
	if err := systemctl(ctx, "disable", "--now", unit); err != nil {
		return fmt.Errorf("stopping %s: %w", unit, err)
	}
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing %s: %w", unit, err)
	}
	if err := systemctl(ctx, "daemon-reload"); err != nil {
		return fmt.Errorf("removing %s: %w", unit, err)
	}
	_ = systemctl(ctx, "reset-failed", unit) // it is an error where it has not failed
	return nil
}

// InstallRegistry runs the registry as a unit.
func (n *Node) InstallRegistry(ctx context.Context, o UnitOptions) error {
	o, err := o.withDefaults()
	if err != nil {
		return err
	}
	c, err := n.registryConfig()
	if err != nil {
		return err
	}
	client, err := n.registryClient()
	if err != nil {
		return err
	}
	return n.install(ctx, systemUnit{
		name:    RegistryUnit,
		command: "registry serve",
		text:    func(sandbox bool) string { return n.unit(o.Program, c.Port, sandbox) },
		answers: func(ctx context.Context) error { return answers(ctx, client, c.Port) },
		since:   filepath.Join(n.registryDir(), configFile),
	}, o)
}

// UninstallRegistry stops and removes the unit. One that is not there is no error.
func (n *Node) UninstallRegistry(ctx context.Context) error { return n.uninstall(ctx, RegistryUnit) }

// unit is the text of the registry's unit. It needs no right but to read and write its folder.
func (n *Node) unit(program string, port int, sandbox bool) string {
	text := fmt.Sprintf(`# Written by sealer-node; "sealer-node registry uninstall" removes it.
[Unit]
Description=sealer image registry
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
ExecStart=%s --root %s registry serve
Restart=always
RestartSec=2
LimitNOFILE=1048576
UMask=0077
`, quoteUnit(program), n.quotedRoot())
	if sandbox {
		text += sandboxing(port) + "ReadWritePaths=" + quoteUnit(n.registryDir()) + "\n"
	}
	return text + "\n[Install]\nWantedBy=multi-user.target\n"
}

// sandboxing takes all rights away but to talk on the network, and to listen on the port.
func sandboxing(port int) string {
	capability := ""
	if port < 1024 {
		capability = "CAP_NET_BIND_SERVICE"
	}
	return fmt.Sprintf(`NoNewPrivileges=yes
CapabilityBoundingSet=%s
ProtectSystem=strict
ProtectHome=read-only
PrivateTmp=yes
PrivateDevices=yes
ProtectHostname=yes
ProtectClock=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
`, capability)
}

func (n *Node) quotedRoot() string { return quoteUnit(n.root) }

// quoteUnit quotes one word of a unit file (systemd.syntax(7), "Quoting"); % and $ are doubled.
func quoteUnit(s string) string {
	s = strings.NewReplacer("%", "%%", "$", "$$").Replace(s)
	if strings.ContainsAny(s, " \t\"'\\;") {
		return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
	}
	return s
}

// registryClient asks this host's registry.
func (n *Node) registryClient() (*http.Client, error) {
	transport, err := n.registryTransport()
	if err != nil {
		return nil, err
	}
	transport.DisableKeepAlives = true
	return &http.Client{Timeout: 3 * time.Second, Transport: transport}, nil
}

// registryTransport trusts the registry's own CA, and those of AcceptRegistry, as they are when a connection is made; nothing else.
func (n *Node) registryTransport() (*http.Transport, error) {
	if _, err := n.registryRoots(); err != nil {
		return nil, err
	}
	return &http.Transport{DialTLSContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		roots, err := n.registryRoots()
		if err != nil {
			return nil, err
		}
		d := tls.Dialer{NetDialer: &net.Dialer{Timeout: dialPatience}, Config: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
		return d.DialContext(ctx, network, address)
	}}, nil
}

func (n *Node) registryRoots() (*x509.CertPool, error) {
	ca, err := os.ReadFile(filepath.Join(n.registryDir(), caFile))
	if err != nil {
		return nil, fmt.Errorf("reading the registry's CA: %w", err)
	}
	trusted, err := n.trusted()
	if err != nil {
		return nil, fmt.Errorf("reading the registry's CA: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	roots.AppendCertsFromPEM(trusted)
	return roots, nil
}

// answers: 200, or 401 where it asks who we are. https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#determining-support
func answers(ctx context.Context, client *http.Client, port int) error {
	url := "https://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) + "/v2/"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, io.LimitReader(res.Body, 64<<10))
	if err = errors.Join(err, res.Body.Close()); err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK && res.StatusCode != http.StatusUnauthorized {
		return fmt.Errorf("%s answers %s", url, res.Status)
	}
	return nil
}

func systemctl(ctx context.Context, args ...string) error {
	out, err := exec.CommandContext(ctx, "systemctl", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("running systemctl %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

// property is one of the unit's, "" where systemd does not say.
func property(ctx context.Context, unit, name string) string {
	out, err := exec.CommandContext(ctx, "systemctl", "show", "--property", name, "--value", unit).Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

func exitStatus(ctx context.Context, unit string) string {
	return property(ctx, unit, "ExecMainStatus")
}

// unitLog are the last lines that the unit wrote.
func unitLog(ctx context.Context, unit string) string {
	out, err := exec.CommandContext(ctx, "journalctl", "--unit", unit, "--lines", "20", "--no-pager", "--output", "cat").Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}
