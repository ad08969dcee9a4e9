// SPDX-License-Identifier: Apache-2.0

package k3s

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/runtime"
)

// A stamp stands for the files that a k3s was started with, and for the program itself: it takes none of them up later. What
// runs is a copy that k3s unpacks below its data, so the process does not tell that the program was replaced.
const (
	stampText = `stamp() {
	cat /etc/rancher/k3s/config.yaml /etc/rancher/k3s/registries.yaml "$1" 2>/dev/null | sha256sum
	stat -c "%i %s %Y" /usr/local/bin/k3s 2>/dev/null
}
`
	stampFresh = stampText + `[ "$(cat "$2/started" 2>/dev/null)" = "$(stamp "$1")" ]`
	stampWrite = stampText + `set -eu; umask 077; mkdir -p "$2"; stamp "$1" >"$2/started.new"; mv -f "$2/started.new" "$2/started"`
)

// wasUp: k3s was part of the cluster here once. What it was started with before may still be changed: it may have been wrong.
func wasUp(ctx context.Context, h *runtime.Host) (bool, error) {
	return succeeds(ctx, h, "test", "-e", keptDir+"/started")
}

// maxRestarts of a service that comes up by itself after a time: a server that joins may end until etcd lets it in.
const maxRestarts = 4

// runs: the service is active, and has been started with the files that are there now.
func runs(ctx context.Context, h *runtime.Host) (bool, error) {
	active, err := service(h).Active(ctx)
	if err != nil || !active {
		return false, err
	}
	return succeeds(ctx, h, "sh", "-c", stampFresh, "sh", service(h).File(), keptDir)
}

// write puts the configuration on the host. It holds tokens: mode 0600.
func write(ctx context.Context, h *runtime.Host, s settings) error {
	data, err := s.marshal()
	if err != nil {
		return err
	}
	if same, err := runtime.SameFile(ctx, h.Runner, configFile, data); err != nil || same {
		return err
	}
	return host.WriteFile(ctx, h.Runner, configFile, data, 0o600)
}

// written tells whether the host has this configuration.
func written(ctx context.Context, h *runtime.Host, s settings) (bool, error) {
	data, err := s.marshal()
	if err != nil {
		return false, err
	}
	return runtime.SameFile(ctx, h.Runner, configFile, data)
}

// restart starts k3s with the files that are there, and waits until ready says that it is part of the cluster.
// secrets are kept out of what is said of a k3s that does not come up.
func (d Distribution) restart(ctx context.Context, h *runtime.Host, log io.Writer, secrets []host.Secret, ready func(context.Context) (bool, error)) error {
	fresh, err := runs(ctx, h)
	if err != nil {
		return err
	}
	if !fresh {
		if err := halt(ctx, h, log); err != nil {
			return err
		}
		if err := service(h).Start(ctx, log); err != nil {
			return err
		}
	}
	up := func(ctx context.Context) (bool, error) {
		active, err := service(h).Active(ctx) // it says so itself when it serves
		if err != nil || !active {
			return false, err
		}
		return ready(ctx)
	}
	if err := d.await(ctx, h, secrets, up); err != nil {
		return err
	}
	return run(ctx, h, log, "sh", "-c", stampWrite, "sh", service(h).File(), keptDir)
}

// halt waits until k3s has ended: the old one must not be taken for the new one. Its pods go on running.
func halt(ctx context.Context, h *runtime.Host, log io.Writer) error {
	argv := []string{"systemctl", "stop", service(h).Name}
	if h.Facts.Init == runtime.OpenRC {
		argv = []string{"rc-service", "--quiet", "--ifstarted", service(h).Name, "stop"}
	}
	return run(ctx, h, log, argv...)
}

// await polls: systemctl would wait for ever on a k3s that cannot join.
func (d Distribution) await(ctx context.Context, h *runtime.Host, secrets []host.Secret, ready func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, d.StartTimeout, errTimeout)
	defer cancel()
	tick := time.NewTicker(d.Poll)
	defer tick.Stop()
	first := -1
	for {
		done, err := ready(ctx)
		if err == nil && !done {
			var n int
			var failed bool
			if n, failed, err = restarts(ctx, h); err == nil {
				if first < 0 || n < first {
					first = n
				}
				if failed || n-first >= maxRestarts {
					return d.startError(ctx, h, n-first, secrets)
				}
			}
		}
		if err == nil && done {
			return nil
		}
		if err != nil && ctx.Err() == nil {
			return err
		}
		select {
		case <-ctx.Done():
			if !errors.Is(context.Cause(ctx), errTimeout) {
				return context.Cause(ctx)
			}
			return d.startError(context.WithoutCancel(ctx), h, 0, secrets)
		case <-tick.C:
		}
	}
}

var errTimeout = errors.New("k3s did not come up in time")

// restarts is how often systemd has started the service anew, and whether it has given up.
func restarts(ctx context.Context, h *runtime.Host) (n int, failed bool, err error) {
	failed, err = service(h).Failed(ctx)
	if err != nil || h.Facts.Init == runtime.OpenRC {
		return 0, failed, err
	}
	out, err := host.Output(ctx, h.Runner, host.Command{Argv: []string{"systemctl", "show", "--property=NRestarts", "--value", service(h).Name}})
	if _, err := answer(err); err != nil {
		return 0, failed, err
	}
	n, err = strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		n = 0 // an old systemd does not count
	}
	return n, failed, nil
}

// StartError is a k3s that does not come up.
type StartError struct {
	Host, Service string
	After         time.Duration // how long it was waited for; 0 where Restarts say enough
	Restarts      int
	Log           string // the end of what it has written
}

func (e *StartError) Error() string {
	what := fmt.Sprintf("%s: %s does not come up: ", e.Host, e.Service)
	if e.Restarts > 0 {
		what += fmt.Sprintf("it has ended %d times", e.Restarts)
	} else {
		what += fmt.Sprintf("it is not part of the cluster after %s", e.After)
	}
	if e.Log != "" {
		what += "; the last it wrote:\n" + e.Log
	}
	return what
}

// Hint says where to read more.
func (e *StartError) Hint() string {
	return "see journalctl -u " + e.Service + " (under OpenRC /var/log/" + e.Service + ".log) on the host"
}

func (d Distribution) startError(ctx context.Context, h *runtime.Host, n int, secrets []host.Secret) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	text := service(h).Log(ctx, 25)
	for _, s := range secrets {
		for _, form := range []string{s.Reveal(), bare(s)} {
			if form != "" {
				text = strings.ReplaceAll(text, form, "[redacted]")
			}
		}
	}
	e := &StartError{Host: h.String(), Service: service(h).Name, Restarts: n, Log: text}
	if n == 0 {
		e.After = d.StartTimeout
	}
	return e
}

// bare is the secret in a token of the form K10HASH::USER:SECRET, which all of its forms have.
func bare(s host.Secret) string {
	_, rest, ok := strings.Cut(s.Reveal(), "::")
	if !ok {
		return ""
	}
	_, secret, _ := strings.Cut(rest, ":")
	return secret
}

// apiReady asks the API server of a control plane itself.
func (d Distribution) apiReady(ctx context.Context, h *runtime.Host) (bool, error) {
	return answer(h.Runner.Run(ctx, d.Kubectl().Command("get", "--raw", "/readyz", "--request-timeout", "10s")))
}

// hasNode asks on a control plane whether the cluster has the node.
func (d Distribution) hasNode(ctx context.Context, server, h *runtime.Host) (bool, error) {
	out, err := host.Output(ctx, server.Runner, d.Kubectl().Command(
		"get", "node", h.Facts.NodeName(), "--ignore-not-found", "--output", "name", "--request-timeout", "20s"))
	if _, asked := errors.AsType[*host.ExitError](err); asked {
		return false, nil
	}
	return strings.TrimSpace(string(out)) != "", err
}
