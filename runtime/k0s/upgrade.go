// SPDX-License-Identifier: Apache-2.0

package k0s

import (
	"context"
	"io"
	"path"
	"strings"
	"time"

	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/runtime"
)

// Upgrade replaces k0s between a stop and a start; drop-ins for its containerd change in between too, since neither k0s
// starts with those of the other. Before anything stops, the new k0s is asked for its version, drop-ins are looked at, and it
// looks at the configuration.
func (d Distribution) Upgrade(c *runtime.Cluster, h *runtime.Host) (running, drained []runtime.Step) {
	upgraded := func(ctx context.Context) (bool, error) { return d.upgraded(ctx, h) }
	balance := func(ctx context.Context) (bool, error) { return balancesOn(ctx, c, h) }
	running = []runtime.Step{{
		Name: "looking at what the new k0s would find",
		Done: upgraded,
		Do: func(ctx context.Context, log io.Writer) error {
			if err := checkProgram(ctx, c, h); err != nil {
				return err
			}
			format, err := dropInFormat(c)
			if err != nil {
				return err
			}
			return run(ctx, h, log, "sh", "-c", checkDropIns, "sh", path.Clean(h.Rootfs), dropIns, format, keptDir+"/drop-ins", dropIn)
		},
	}}
	if isController(h) {
		running = append(running, runtime.Step{
			Name: "having the new k0s look at the configuration",
			Done: upgraded,
			Do: func(ctx context.Context, log io.Writer) error {
				data, err := d.wanted(ctx, c, h, balance)
				if err != nil {
					return err
				}
				return validateConfig(ctx, c, h, data, path.Join(h.Rootfs, "bin", "k0s"), log)
			},
		})
	}
	placing := runtime.Step{
		Name: "replacing k0s",
		Done: func(ctx context.Context) (bool, error) { return placed(ctx, h) },
		Do: func(ctx context.Context, log io.Writer) error {
			if err := markRestart(ctx, h, log); err != nil {
				return err
			}
			return place(ctx, c, h, log)
		},
	}
	drained = []runtime.Step{
		{
			Name: "stopping k0s",
			Done: func(ctx context.Context) (bool, error) {
				if done, err := d.upgraded(ctx, h); err != nil || done {
					return done, err
				}
				active, err := service(h).Active(ctx)
				return !active, err
			},
			Do: func(ctx context.Context, log io.Writer) error { return service(h).Stop(ctx, log) },
		},
		placing,
		registryStep(c, h),
		d.configure(c, h, !isController(h), balance), // a control plane's unit keeps its token's flag where it has one
		{
			Name: "starting the new k0s",
			Done: func(ctx context.Context) (bool, error) {
				if done, err := d.upgraded(ctx, h); err != nil || !done {
					return false, err
				}
				return d.settled(ctx, c, h)
			},
			Do: func(ctx context.Context, log io.Writer) error {
				return d.start(ctx, c, h, "", func(ctx context.Context) (bool, error) {
					if done, err := d.upgraded(ctx, h); err != nil || !done {
						return false, err
					}
					return d.isNode(ctx, c, h)
				}, log)
			},
		},
	}
	return running, drained
}

// upgraded: the program is the image's, and it is what runs.
func (d Distribution) upgraded(ctx context.Context, h *runtime.Host) (bool, error) {
	same, err := placed(ctx, h)
	if err != nil || !same {
		return false, err
	}
	s, answers, err := readStatus(ctx, h)
	if err != nil || !answers {
		return false, err
	}
	out, err := host.Output(ctx, h.Runner, host.Command{Argv: call(30*time.Second, "version")})
	if answered, err := ok(err); err != nil || !answered {
		return false, err
	}
	return s.Version == strings.TrimSpace(string(out)), nil
}
