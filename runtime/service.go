// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"cmp"
	"context"
	"errors"
	"io"
	"strconv"
	"strings"

	"github.com/sealerio/sealer/host"
)

// OpenRC is what Facts.Init is on a host that boots with OpenRC, whatever process 1 is called there.
const OpenRC = "openrc"

// Service is a program that a host starts when it boots, by systemd or by OpenRC.
type Service struct {
	Host *Host
	Name string // "k0scontroller"
	// Guard is shell text that must succeed right before the service starts: nothing else happens between the two.
	Guard string
	// LogName is that of its files below /var/log, .log and .err, under OpenRC. Default Name.
	LogName string
}

func (s Service) openRC() bool { return s.Host.Facts.Init == OpenRC }

// File is the path of the unit, or of the script in /etc/init.d.
func (s Service) File() string {
	if s.openRC() {
		return "/etc/init.d/" + s.Name
	}
	return "/etc/systemd/system/" + s.Name + ".service"
}

// A service that has failed too often does not start again before that is forgotten. Nothing here waits until the
// service says that it is ready: some never do.
const (
	startSystemd = `set -eu
systemctl daemon-reload
systemctl reset-failed "$1" 2>/dev/null || :
systemctl enable --quiet "$1"
if [ "$2" = restart ]; then # to its end: who asks afterwards must not be answered by the old one
	systemctl stop "$1" || ! systemctl is-active --quiet "$1"
fi
systemctl --no-block start "$1"
`
	startOpenRC = `set -eu
rc-update --quiet add "$1" default
rc-service --quiet --ifcrashed "$1" zap 2>/dev/null || :
rc-service --quiet "$1" "$2"
`
	stopSystemd = `set -eu
systemctl disable --quiet "$1" 2>/dev/null || :
systemctl stop "$1" 2>/dev/null || ! systemctl is-active --quiet "$1"
systemctl reset-failed "$1" 2>/dev/null || :
`
	stopOpenRC = `set -eu
[ -e "/etc/init.d/$1" ] || exit 0
rc-service --quiet --ifstarted "$1" stop
rc-update --quiet del "$1" default 2>/dev/null || :
`
)

// Start starts the service, now and at each boot, and returns at once.
func (s Service) Start(ctx context.Context, log io.Writer) error { return s.begin(ctx, log, "start") }

// Restart stops the service where it runs, and starts it as Start does.
func (s Service) Restart(ctx context.Context, log io.Writer) error {
	return s.begin(ctx, log, "restart")
}

func (s Service) begin(ctx context.Context, log io.Writer, verb string) error {
	script := startSystemd
	if s.openRC() {
		script = startOpenRC
	}
	if s.Guard != "" {
		script = "set -eu\n" + s.Guard + "\n" + script
	}
	return s.sh(ctx, log, script, s.Name, verb)
}

// Stop stops the service and keeps it from starting at boot. One that is not there is fine.
func (s Service) Stop(ctx context.Context, log io.Writer) error {
	if s.openRC() {
		return s.sh(ctx, log, stopOpenRC, s.Name)
	}
	return s.sh(ctx, log, stopSystemd, s.Name)
}

func (s Service) sh(ctx context.Context, log io.Writer, script string, args ...string) error {
	argv := append([]string{"sh", "-c", script, "sh"}, args...)
	return s.Host.Runner.Run(ctx, host.Command{Argv: argv, Stdout: log, Stderr: log, Mutates: true})
}

// Active tells whether the service runs.
func (s Service) Active(ctx context.Context) (bool, error) {
	if s.openRC() {
		return s.asks(ctx, "rc-service", "--quiet", s.Name, "status")
	}
	return s.asks(ctx, "systemctl", "is-active", "--quiet", s.Name)
}

// Failed tells whether the host has given up on the service.
func (s Service) Failed(ctx context.Context) (bool, error) {
	if s.openRC() {
		return s.asks(ctx, "sh", "-c", `rc-service "$1" status 2>&1 | grep -q crashed`, "sh", s.Name)
	}
	return s.asks(ctx, "systemctl", "is-failed", "--quiet", s.Name)
}

func (s Service) asks(ctx context.Context, argv ...string) (bool, error) {
	err := s.Host.Runner.Run(ctx, host.Command{Argv: argv})
	if _, answered := errors.AsType[*host.ExitError](err); answered {
		return false, nil
	}
	return err == nil, err
}

// logFile is where the service writes under OpenRC.
func (s Service) logFile(extension string) string {
	return "/var/log/" + cmp.Or(s.LogName, s.Name) + "." + extension
}

// Log is the end of what the service has written, at most so many lines; empty where it cannot be had.
func (s Service) Log(ctx context.Context, lines int) string {
	argv := []string{"journalctl", "--unit", s.Name, "--lines", strconv.Itoa(lines), "--no-pager", "--output", "cat"}
	if s.openRC() {
		argv = []string{"sh", "-c", `tail -q -n "$1" "$2" "$3" 2>/dev/null`, "sh", strconv.Itoa(lines), s.logFile("log"), s.logFile("err")}
	}
	out, err := host.Output(ctx, s.Host.Runner, host.Command{Argv: argv})
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}
