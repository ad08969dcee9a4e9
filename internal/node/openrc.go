// SPDX-License-Identifier: Apache-2.0

package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/sealerio/sealer/internal/atomicfile"
)

// bootedByOpenRC is what scripts/facts.sh of package runtime asks, too.
func bootedByOpenRC() bool {
	_, err := os.Stat("/run/openrc")
	_, systemd := os.Stat("/run/systemd/system")
	return err == nil && errors.Is(systemd, fs.ErrNotExist)
}

// service is OpenRC's name for a unit.
func service(unit string) string { return strings.TrimSuffix(unit, ".service") }

// serviceText is a script of OpenRC (openrc-run(8), supervise-daemon(8)). A service that ends is started again, for ever.
func (n *Node) serviceText(u systemUnit, program string) string {
	name := service(u.name)
	return fmt.Sprintf(`#!/sbin/openrc-run
# Written by sealer-node; "sealer-node %s uninstall" removes it.
name=%s
supervisor=supervise-daemon
command=%s
command_args=%s
pidfile=/run/%[2]s.pid
output_log=/var/log/%[2]s.log
error_log=/var/log/%[2]s.log
respawn_delay=2
respawn_max=0
rc_ulimit="-n 1048576"
umask=0077
depend() {
	after localmount net
}
`, strings.Fields(u.command)[0], name, quoteShell(program), quoteShell(" --root "+quoteShell(n.root)+" "+u.command))
}

func quoteShell(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// startService is install under OpenRC.
func (n *Node) startService(ctx context.Context, o UnitOptions, u systemUnit) error {
	name := service(u.name)
	file := filepath.Join(n.initDir, name)
	text := n.serviceText(u, o.Program)
	old, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("reading the service: %w", err)
	}
	if string(old) == text && u.freshProcess(childOf("/run/"+name+".pid")) && u.answers(ctx) == nil {
		return nil
	}
	if string(old) != text {
		if err := atomicfile.Write(file, []byte(text), 0o755); err != nil {
			return err
		}
	}
	_ = openRC(ctx, "rc-service", "--quiet", "--ifcrashed", name, "zap") // one that has failed does not start before that is forgotten
	for _, argv := range [][]string{{"rc-update", "--quiet", "add", name, "default"}, {"rc-service", "--quiet", name, "restart"}} {
		if err := openRC(ctx, argv...); err != nil {
			return &UnitError{name, serviceLog(name), err}
		}
	}
	return u.wait(ctx, o, name, func() string { return serviceLog(name) }, func(context.Context, error) error { return nil })
}

// removeService is uninstall under OpenRC.
func (n *Node) removeService(ctx context.Context, name string) error {
	file := filepath.Join(n.initDir, name)
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("removing %s: %w", name, err)
	}
	if !strings.Contains(string(text), quoteInner(" --root "+quoteShell(n.root)+" ")) {
		return nil // that of another root folder
	}
	for _, argv := range [][]string{{"rc-service", "--quiet", "--ifstarted", name, "stop"}, {"rc-update", "--quiet", "del", name, "default"}} {
		if err := openRC(ctx, argv...); err != nil {
			return fmt.Errorf("stopping %s: %w", name, err)
		}
	}
	for _, path := range []string{file, "/var/log/" + name + ".log"} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing %s: %w", name, err)
		}
	}
	return nil
}

// quoteInner is how a text stands inside of quoteShell's quotes.
func quoteInner(s string) string { return strings.ReplaceAll(s, "'", `'\''`) }

// childOf is the process that the supervisor of a pidfile has started, "" where there is none.
func childOf(pidfile string) string {
	data, err := os.ReadFile(pidfile)
	if err != nil {
		return ""
	}
	supervisor := strings.TrimSpace(string(data))
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return ""
	}
	for _, stat := range stats {
		text, err := os.ReadFile(stat)
		if err != nil {
			continue // it has ended
		}
		// PID (NAME) STATE PARENT …: the name may hold anything, proc_pid_stat(5)
		_, rest, _ := strings.Cut(string(text[bytes.LastIndexByte(text, ')')+1:]), " ")
		if fields := strings.Fields(rest); len(fields) > 1 && fields[1] == supervisor {
			return filepath.Base(filepath.Dir(stat))
		}
	}
	return ""
}

func openRC(ctx context.Context, argv ...string) error {
	out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("running %s: %w: %s", strings.Join(argv, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

// serviceLog are the last lines that the service wrote, at most 4096 bytes.
func serviceLog(name string) string {
	text, err := os.ReadFile("/var/log/" + name + ".log")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text[max(0, len(text)-4096):]))
}
