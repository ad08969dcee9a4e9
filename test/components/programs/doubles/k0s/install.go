// SPDX-License-Identifier: Apache-2.0

package k0s

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sealerio/sealer/test/components/programs/doubles/journal"
	"github.com/sealerio/sealer/test/components/programs/doubles/pki"
)

// unit is what k0s install writes.
const unit = `[Unit]
Description=k0s - Zero Friction Kubernetes
Documentation=https://docs.k0sproject.io
ConditionFileIsExecutable=%[1]s

After=network-online.target
Wants=network-online.target

[Service]
StartLimitInterval=5
StartLimitBurst=10
ExecStart=%[1]s %[2]s
%[3]s
RestartSec=10
Delegate=yes
KillMode=process
LimitCORE=infinity
TasksMax=infinity
TimeoutStartSec=0
LimitNOFILE=999999
Restart=always

[Install]
WantedBy=multi-user.target
`

// script is what it writes under OpenRC.
const script = `#!/sbin/openrc-run%[3]s
supervisor=supervise-daemon
description="k0s - Zero Friction Kubernetes"
command=%[1]s
command_args="%[2]s"
name=$(basename $(readlink -f $command))
supervise_daemon_args="--stdout /var/log/${name}.log --stderr /var/log/${name}.err"

: "${rc_ulimit=-n 1048576 -u unlimited}"
depend() {
	need cgroups
	need net
	use dns
	after firewall
}
`

func openRC() bool {
	_, openrc := os.Stat("/run/openrc")
	_, systemd := os.Stat("/run/systemd/system")
	return openrc == nil && systemd != nil
}

func sysInit() string {
	if openRC() {
		return "linux-openrc"
	}
	return "linux-systemd"
}

func unitPath(role string) string {
	if openRC() {
		return "/etc/init.d/k0s" + role
	}
	return "/etc/systemd/system/k0s" + role + ".service"
}

// service asks the host's service manager to enable, disable, start or stop k0s, or whether it is-active.
func service(ctx context.Context, verb, role string) ([]byte, error) {
	name := "k0s" + role
	argv := []string{"systemctl", verb, name}
	if openRC() {
		argv = map[string][]string{
			"enable": {"rc-update", "add", name}, "disable": {"rc-update", "delete", name}, "is-active": {"rc-service", name, "status"},
			"start": {"rc-service", name, "start"}, "stop": {"rc-service", name, "stop"},
		}[verb]
	}
	out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, out)
	}
	return out, err
}

func (p *program) installController(cmd *cobra.Command, _ []string) error {
	if text(cmd, "config") == "-" {
		return errors.New("cannot use stdin as config source for install")
	}
	c, err := readConfig(text(cmd, "config"))
	if err == nil {
		err = p.validate(c)
	}
	if err == nil {
		err = p.checkController(cmd, c)
	}
	if err != nil {
		return fmt.Errorf("unable to install controller: %w", err)
	}
	return p.install(cmd, "controller")
}

func (p *program) installWorker(cmd *cobra.Command, _ []string) error {
	return p.install(cmd, "worker")
}

func (p *program) install(cmd *cobra.Command, role string) error {
	if os.Geteuid() != 0 {
		return errors.New("this command must be run as root")
	}
	path := unitPath(role)
	force := yes(cmd, "force")
	if _, err := os.Stat(path); err == nil && !force {
		return fmt.Errorf("failed to install k0s service: Init already exists: %s", path)
	} else if err == nil {
		_, _ = service(cmd.Context(), "disable", role) // the process goes on
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	args, environment, err := written(cmd, role)
	if err != nil {
		return err
	}
	form, mode := unit, fs.FileMode(0o644)
	if openRC() {
		form, mode, environment = script, 0o755, strings.ReplaceAll("\n"+strings.TrimSpace(environment), "\nEnvironment=", "\nexport ")
		for i := range args {
			args[i] = "'" + args[i] + "' "
		}
	}
	if err := pki.WriteFile(path, fmt.Appendf(nil, form, strings.TrimSuffix(self, " (deleted)"), strings.Join(args, " "), environment), mode); err != nil {
		return err
	}
	if !openRC() {
		if out, err := exec.CommandContext(cmd.Context(), "systemctl", "daemon-reload").CombinedOutput(); err != nil {
			return fmt.Errorf("systemctl daemon-reload: %w: %s", err, out)
		}
	}
	if _, err := service(cmd.Context(), "enable", role); err != nil {
		return err
	}
	if yes(cmd, "start") {
		_, err = service(cmd.Context(), "start", role)
	}
	return err
}

// written are the arguments for the unit: every flag that was set, with whole paths.
func written(cmd *cobra.Command, role string) (args []string, environment string, err error) {
	args = []string{role}
	cmd.Flags().Visit(func(f *pflag.Flag) {
		value := f.Value.String()
		switch f.Name {
		case "force", "start":
			return
		case "env":
			list, _ := cmd.Flags().GetStringArray("env")
			for _, e := range list {
				environment += fmt.Sprintf("Environment=%q\n", e)
			}
			return
		case "config", "token-file", "data-dir", "kubelet-root-dir":
			if value, err = filepath.Abs(value); err != nil {
				return
			}
		}
		if strings.HasPrefix(f.Value.Type(), "stringTo") || strings.HasPrefix(f.Value.Type(), "stringSlice") {
			value = strings.Trim(value, "[]")
		}
		one := "--" + f.Name + "=" + value
		if strings.ContainsAny(value, " \t\"") {
			one = fmt.Sprintf("%q", one)
		}
		args = append(args, one)
	})
	return args, environment, err
}

// installed is the role of the unit that is there.
func installed() (string, error) {
	for _, role := range []string{"controller", "worker"} {
		if _, err := os.Stat(unitPath(role)); err == nil {
			return role, nil
		}
	}
	return "", errors.New("k0s has not been installed as a service")
}

func (p *program) start(cmd *cobra.Command, _ []string) error {
	role, err := installed()
	if err != nil {
		return err
	}
	out, err := service(cmd.Context(), "is-active", role)
	switch {
	case err == nil:
		return errors.New("already running")
	case strings.TrimSpace(string(out)) == "failed":
		return errors.New("failed to start: the service is in state failed")
	}
	_, err = service(cmd.Context(), "start", role)
	return err
}

func (p *program) stop(cmd *cobra.Command, _ []string) error {
	role, err := installed()
	if err != nil {
		return err
	}
	if _, err := service(cmd.Context(), "is-active", role); err != nil {
		return errors.New("already stopped")
	}
	_, err = service(cmd.Context(), "stop", role)
	return err
}

// statusAnswer is what the running program says of itself.
type statusAnswer struct {
	Version    string
	Pid        int
	Role       string
	SysInit    string
	StubFile   string
	Output     string
	Workloads  bool
	SingleNode bool
	Args       []string
	Worker     struct {
		Message string
		Success bool
	} `json:"WorkerToAPIConnectionStatus"`
	ClusterConfig *clusterConfig `json:",omitempty"`
	K0sVars       map[string]any
}

// serveStatus answers k0s status until ctx ends.
func serveStatus(ctx context.Context, socket string, now func() statusAnswer) error {
	if err := os.MkdirAll(filepath.Dir(socket), 0o755); err != nil {
		return err
	}
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "unix", socket)
	if err != nil {
		return err
	}
	server := &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(now())
	})}
	go func() { _ = server.Serve(listener) }()
	context.AfterFunc(ctx, func() { _ = server.Close() })
	return nil
}

func askStatus(ctx context.Context, socket string) (*statusAnswer, error) {
	c := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost/status", nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.Do(req)
	if err != nil {
		return nil, fmt.Errorf("failed to get status: k0s is not running: %w", err)
	}
	defer resp.Body.Close()
	var s statusAnswer
	return &s, json.NewDecoder(resp.Body).Decode(&s)
}

func (p *program) status(cmd *cobra.Command, _ []string) error {
	s, err := askStatus(cmd.Context(), statusSocket(cmd))
	if err != nil {
		return err
	}
	switch text(cmd, "out") {
	case "json", "yaml": // JSON is YAML
		e := json.NewEncoder(p.out)
		e.SetIndent("", "   ")
		return e.Encode(s)
	}
	fmt.Fprintf(p.out, "Version: %s\nProcess ID: %d\nRole: %s\nWorkloads: %t\nSingleNode: %t\n", s.Version, s.Pid, s.Role, s.Workloads, s.SingleNode)
	return nil
}

// reset removes what the real one removes: not /etc/k0s, nor the program, nor other CNIs' files.
func (p *program) reset(cmd *cobra.Command, _ []string) error {
	if os.Geteuid() != 0 {
		return errors.New("this command must be run as root")
	}
	if _, err := askStatus(cmd.Context(), statusSocket(cmd)); err == nil {
		return errors.New("another k0s process is still running, please stop k0s before reset")
	}
	var errs []error
	for _, role := range []string{"controller", "worker"} {
		path := unitPath(role)
		if _, err := os.Stat(path); err != nil {
			continue
		}
		_, _ = service(cmd.Context(), "disable", role)
		errs = append(errs, os.Remove(path))
	}
	if !openRC() {
		_ = exec.CommandContext(cmd.Context(), "systemctl", "daemon-reload").Run()
	}
	for _, path := range []string{dataOf(cmd).data, runFolder, "/etc/cni/net.d/10-kuberouter.conflist", "/etc/cni/net.d/10-calico.conflist", "/etc/cni/net.d/calico-kubeconfig"} {
		errs = append(errs, os.RemoveAll(path))
	}
	p.journal.Add(journal.Entry{Event: "reset"})
	p.log.Info("k0s cleanup operations done. To ensure a full reset, a node reboot is recommended.")
	return errors.Join(errs...)
}

// check is one line of k0s sysinfo.
type check struct {
	Name     string `json:"name"`
	Value    string `json:"value"`
	Category string `json:"category"` // pass, warning, rejected, error
	Error    string `json:"error,omitempty"`
}

// checks are the preflight checks that the double has.
func (p *program) checks(worker bool) []check {
	out := []check{{Name: "Operating system", Value: "Linux", Category: "pass"}}
	if !worker {
		return out
	}
	c := check{Name: "Control Groups", Value: "version 2", Category: "pass"}
	if !unifiedCgroups() {
		c = check{Name: "Control Groups", Value: "version 1", Category: "warning"}
		if p.stamp.Minor() >= 35 {
			c.Category, c.Error = "rejected", "cgroup v1 is not supported"
		}
	}
	return append(out, c)
}

func rejected(list []check) error {
	if i := slices.IndexFunc(list, func(c check) bool { return c.Category == "rejected" || c.Category == "error" }); i >= 0 {
		return fmt.Errorf("pre-flight checks failed: %s: %s: %s", list[i].Name, list[i].Value, list[i].Error)
	}
	return nil
}

func (p *program) sysinfo(cmd *cobra.Command, _ []string) error {
	list := p.checks(yes(cmd, "worker"))
	if o := text(cmd, "output"); o == "json" || o == "yaml" {
		if err := json.NewEncoder(p.out).Encode(list); err != nil {
			return err
		}
	} else {
		for _, c := range list {
			fmt.Fprintf(p.out, "%s: %s (%s)\n", c.Name, c.Value, c.Category)
		}
	}
	if rejected(list) != nil {
		return errors.New("sysinfo failed")
	}
	return nil
}
