// SPDX-License-Identifier: Apache-2.0

package k3s

import (
	"context"
	"errors"
	"io"
	"strings"

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
	patience := runtime.Patience{Timeout: d.StartTimeout, Interval: d.Poll, Secrets: append(bare(secrets), secrets...)}
	if err := service(h).Await(ctx, patience, up); err != nil { // systemctl would wait for ever on a k3s that cannot join
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

// bare are the secrets in tokens of the form K10HASH::USER:SECRET, which all forms of a token have.
func bare(tokens []host.Secret) []host.Secret {
	var list []host.Secret
	for _, t := range tokens {
		if _, rest, ok := strings.Cut(t.Reveal(), "::"); ok {
			_, secret, _ := strings.Cut(rest, ":")
			list = append(list, host.Secret(secret))
		}
	}
	return list
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
