// SPDX-License-Identifier: Apache-2.0

package k0s

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/runtime"
)

// restartMark is there from the moment that k0s' configuration is changed until k0s has started with it.
const restartMark = keptDir + "/restart"

// Init starts the cluster.
func (d Distribution) Init(c *runtime.Cluster, h *runtime.Host) []runtime.Step {
	balance := func(context.Context) (bool, error) { return balances(c), nil }
	return []runtime.Step{
		d.configure(c, h, false, balance),
		{
			Name: "starting the control plane (k0s)",
			Done: func(ctx context.Context) (bool, error) { return d.settled(ctx, c, h) },
			Do:   func(ctx context.Context, log io.Writer) error { return d.initialise(ctx, c, h, log) },
		},
		runtime.RootKubeconfig(h, keptDir, adminConf),
	}
}

// balances is the default for a new cluster: with nothing else before its control planes, each node finds them by a load balancer
// of its own. A cluster that begins with one of them may get more: it has balancers, too, where the image packs them; one on SQLite stays alone.
func balances(c *runtime.Cluster) bool {
	if textAt(c, "api", "externalAddress") != "" {
		return false
	}
	if len(c.ControlPlanes()) > 1 {
		return true
	}
	return joinable(c) && slices.ContainsFunc(c.Images, func(image string) bool { return runtime.Repository(image) == balancerImage(c) })
}

// configure writes k0s.yaml, once k0s itself on this host has found it good, and the unit. Validation looks at the
// machine that it runs on, at its cgroups for one.
func (d Distribution) configure(c *runtime.Cluster, h *runtime.Host, joins bool, balance func(context.Context) (bool, error)) runtime.Step {
	want := installFlags(c, h, joins)
	return runtime.Step{
		Name: "configuring k0s",
		Done: func(ctx context.Context) (bool, error) {
			have, there, err := installed(ctx, h)
			if err != nil || !there || !asWanted(have, want) {
				return false, err
			}
			if !isController(h) {
				return true, nil
			}
			data, err := d.wanted(ctx, c, h, balance)
			if err != nil {
				return false, err
			}
			return runtime.SameFile(ctx, h.Runner, configFile, data)
		},
		Do: func(ctx context.Context, log io.Writer) error {
			var data []byte
			if isController(h) {
				var err error
				if data, err = d.wanted(ctx, c, h, balance); err != nil {
					return err
				}
				if err := validateConfig(ctx, c, h, data, k0sBin, log); err != nil {
					return err
				}
			}
			if err := markRestart(ctx, h, log); err != nil {
				return err
			}
			if data != nil {
				if err := host.WriteFile(ctx, h.Runner, configFile, data, 0o600); err != nil {
					return err
				}
			}
			return installUnit(ctx, h, want, log)
		},
	}
}

func (d Distribution) wanted(ctx context.Context, c *runtime.Cluster, h *runtime.Host, balance func(context.Context) (bool, error)) ([]byte, error) {
	b, err := balance(ctx)
	if err != nil {
		return nil, err
	}
	now, err := readConfig(ctx, h)
	if err != nil {
		return nil, err
	}
	var kept []any
	if now.Spec != nil {
		kept = now.Spec.API.SANs
	}
	return config(c, h, b, kept)
}

// validateConfig asks the k0s at bin whether it takes the configuration, which is not yet in use.
func validateConfig(ctx context.Context, c *runtime.Cluster, h *runtime.Host, data []byte, bin string, log io.Writer) error {
	const candidate = configDir + "/k0s.candidate.yaml"
	if err := host.WriteFile(ctx, h.Runner, candidate, data, 0o600); err != nil {
		return err
	}
	argv := call(time.Minute, "config", "validate", "--config", candidate)
	argv[4] = bin
	if onlyIPv6(c) {
		argv = append(argv, gateIPv6)
	}
	err := run(ctx, h, log, argv...)
	if err != nil {
		err = fmt.Errorf("validating k0s.yaml: %w", err)
	}
	return errors.Join(err, remove(ctx, h, candidate))
}

func markRestart(ctx context.Context, h *runtime.Host, log io.Writer) error {
	return run(ctx, h, log, "sh", "-c", `mkdir -p "${1%/*}" && : >"$1"`, "sh", restartMark)
}

// status is what k0s says of itself (cmd/status of k0s); a part of it.
type status struct {
	Version                     string
	Role                        string
	WorkerToAPIConnectionStatus struct {
		Message string
		Success bool
	}
}

// readStatus asks the k0s that runs; false where none answers.
func readStatus(ctx context.Context, h *runtime.Host) (status, bool, error) {
	var s status
	out, err := host.Output(ctx, h.Runner, host.Command{Argv: call(20*time.Second, "status", "-o", "json")})
	if answered, err := ok(err); err != nil || !answered {
		return s, false, err
	}
	if err := json.Unmarshal(out, &s); err != nil {
		return s, false, fmt.Errorf("%s: reading the status of k0s: %w", h, err)
	}
	return s, true, nil
}

// serves: k0s answers, and on a control plane its API server is ready.
func serves(ctx context.Context, h *runtime.Host) (bool, error) {
	s, answers, err := readStatus(ctx, h)
	if err != nil || !answers {
		return false, err
	}
	if !isController(h) {
		return s.Role == "worker" && s.WorkerToAPIConnectionStatus.Success, nil
	}
	if s.Role != "controller" {
		return false, nil
	}
	return ok(h.Runner.Run(ctx, kubectl(20*time.Second, "get", "--raw", "/readyz", "--request-timeout", "10s")))
}

// settled: the node is part of the cluster, and runs with the configuration that it has now.
func (d Distribution) settled(ctx context.Context, c *runtime.Cluster, h *runtime.Host) (bool, error) {
	pending, err := succeeds(ctx, h.Runner, "test", "-e", restartMark)
	if err != nil || pending {
		return false, err
	}
	return d.isNode(ctx, c, h)
}

// isNode: k0s serves on the host, and the cluster has its node.
func (d Distribution) isNode(ctx context.Context, c *runtime.Cluster, h *runtime.Host) (bool, error) {
	there, err := succeeds(ctx, h.Runner, "test", "-e", joinedMark)
	if err != nil || !there {
		return false, err
	}
	well, err := serves(ctx, h)
	if err != nil || !well {
		return false, err
	}
	asked := c.Server()
	if asked.Runner == nil {
		asked = h
	}
	return hasNode(ctx, asked, h)
}

func hasNode(ctx context.Context, asked, h *runtime.Host) (bool, error) {
	out, err := host.Output(ctx, asked.Runner, kubectl(time.Minute, "get", "node", h.Facts.NodeName(), "--ignore-not-found", "--output", "name", "--request-timeout", "20s"))
	return len(bytes.TrimSpace(out)) > 0, err
}

// initialise starts the first control plane. k0s goes on by itself where an earlier start was cut; where it does not come up, and
// nothing depends on it yet, it begins anew.
func (d Distribution) initialise(ctx context.Context, c *runtime.Cluster, h *runtime.Host, log io.Writer) error {
	begun, err := succeeds(ctx, h.Runner, "sh", "-c", `[ -e "$1" ] || [ -e "$2" ]`, "sh", dataDir+"/pki/ca.key", etcdMark)
	if err != nil {
		return err
	}
	joined := others(c, h)
	if !begun && len(joined) > 0 {
		return &StuckError{Host: h.String(), Joined: joined[0].String(), Lost: true}
	}
	ready := func(ctx context.Context) (bool, error) { return d.isNode(ctx, c, h) }
	err = d.start(ctx, c, h, "", ready, log)
	var late *runtime.StartError
	if !begun || !errors.As(err, &late) {
		return err
	}
	if len(joined) > 0 {
		return &StuckError{Host: h.String(), Joined: joined[0].String(), Err: err}
	}
	if h.Facts.State.WasComplete() {
		return err // it is down, or its settings are wrong; it has all the cluster's data
	}
	_, _ = fmt.Fprintln(log, "an earlier start was cut, and does not go on: resetting")
	if err := d.reset(ctx, h, log); err != nil {
		return err
	}
	if err := installUnit(ctx, h, installFlags(c, h, false), log); err != nil {
		return err
	}
	return d.start(ctx, c, h, "", ready, log)
}

// start starts k0s, or restarts it where it runs with an older configuration, and waits until ready. guard is
// shell text that must hold right before.
func (d Distribution) start(ctx context.Context, c *runtime.Cluster, h *runtime.Host, guard string, ready func(context.Context) (bool, error), log io.Writer) error {
	s := service(h)
	s.Guard = guard
	pending, err := succeeds(ctx, h.Runner, "test", "-e", restartMark)
	if err != nil {
		return err
	}
	begin := s.Start
	if pending {
		begin = s.Restart
	}
	if err := begin(ctx, log); err != nil {
		return err
	}
	if err := s.Await(ctx, runtime.Patience{Timeout: d.timeout(), Interval: d.interval(), Secrets: c.File.Secrets()}, ready); err != nil {
		return err
	}
	return run(ctx, h, log, "rm", "-f", restartMark)
}

// StuckError is a first control plane that cannot be started, and on which other hosts depend.
type StuckError struct {
	Host, Joined string
	Lost         bool // its data is gone: started, it would make another cluster
	Err          error
}

func (e *StuckError) Error() string {
	if e.Lost {
		return fmt.Sprintf("%s: it holds nothing of the cluster that %s is part of, and would make a cluster of its own", e.Host, e.Joined)
	}
	return fmt.Sprintf("%s: the control plane does not answer, and cannot be started anew: %s has joined it: %v", e.Host, e.Joined, e.Err)
}

func (e *StuckError) Unwrap() error { return e.Err }

// Hint says what can be done.
func (e *StuckError) Hint() string {
	if e.Lost {
		return "take the host out of the cluster (sealer delete) and join it again (sealer join), or delete the cluster: sealer delete --all"
	}
	return "look at journalctl -u " + controllerUnit + " on the control plane, or delete the cluster: sealer delete --all"
}

// remove deletes a file, also when ctx has ended meanwhile.
func remove(ctx context.Context, h *runtime.Host, file string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	return h.Runner.Run(ctx, host.Command{Argv: []string{"rm", "-f", "--", file}, Mutates: true})
}

// balancesOn is how the running cluster has it, as a control plane's k0s.yaml says: control planes that disagree would each
// tell workers something else.
func balancesOn(ctx context.Context, c *runtime.Cluster, h *runtime.Host) (bool, error) {
	file, err := readConfig(ctx, h)
	if err != nil || file.Spec == nil {
		return balances(c), err
	}
	return file.Spec.Network.NodeLocalLoadBalancing.Enabled, nil
}

// configured is a part of a host's k0s.yaml.
type configured struct {
	Spec *struct {
		API struct {
			SANs []any `json:"sans"`
		} `json:"api"`
		Network struct {
			NodeLocalLoadBalancing struct{ Enabled bool } `json:"nodeLocalLoadBalancing"`
		} `json:"network"`
	} `json:"spec"`
}

// readConfig reads the host's k0s.yaml; Spec is nil where there is none.
func readConfig(ctx context.Context, h *runtime.Host) (configured, error) {
	var file configured
	data, err := host.ReadFile(ctx, h.Runner, configFile)
	if errors.Is(err, fs.ErrNotExist) {
		return file, nil
	}
	if err != nil {
		return file, err
	}
	if err := yaml.Unmarshal(data, &file); err != nil {
		return file, fmt.Errorf("%s: reading %s: %w", h, path.Base(configFile), err)
	}
	return file, nil
}
