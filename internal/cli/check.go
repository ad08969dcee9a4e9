// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/sealerio/sealer/cluster"
	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/runtime"
)

type checkFlags struct {
	viewFlags
	env             []string
	pre, post, list bool
	output          string
}

func newCheck(a *app) *cobra.Command {
	var o checkFlags
	cmd := &cobra.Command{
		Use:   "check --pre IMAGE | --post",
		Short: "Look for what stands in the way of a cluster, or what is wrong with one",
		Long: `check --pre looks at hosts as sealer run does before it touches anything: everything that would
make the installation fail, on all hosts, each with its name and what to do. check --post looks at a
running cluster: hosts, nodes, services, the registry and pods. Both exit with 1 where they find something.`,
		Example: `  sealer check --pre registry.example.com/team/shop:v1 --masters 10.0.0.1 --nodes 10.0.0.2,10.0.0.3
  sealer check --post --name shop -o json
  sealer check --list`,
		Args: func(cmd *cobra.Command, args []string) error {
			if o.pre && o.clusterfile == "" || len(args) > 1 {
				return exactArgs("IMAGE")(cmd, args)
			}
			return nil
		},
	}
	o.addTo(cmd)
	f := cmd.Flags()
	f.BoolVar(&o.pre, "pre", false, "look at hosts before an installation")
	f.BoolVar(&o.post, "post", false, "look at a running cluster")
	f.BoolVar(&o.list, "list", false, "list the checks of --pre, and why they are made")
	f.StringArrayVarP(&o.env, "env", "e", nil, "value for the image's templates and commands (NAME=VALUE, repeatable)")
	addOutput(cmd, &o.output)
	a.addRegistryFlags(cmd)
	cmd.MarkFlagsOneRequired("pre", "post", "list")
	cmd.MarkFlagsMutuallyExclusive("pre", "post", "list")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch {
		case o.list:
			return a.listChecks(cmd, o.output)
		case o.post:
			return a.checkAfter(cmd, &o)
		}
		image := ""
		if len(args) > 0 {
			image = args[0]
		}
		return a.checkBefore(cmd, &o, image)
	}
	return cmd
}

func (a *app) listChecks(cmd *cobra.Command, output string) error {
	type check struct {
		Name string `json:"name"`
		Why  string `json:"why"`
	}
	var list []check
	for _, c := range runtime.Checks() {
		list = append(list, check(c))
	}
	return a.print(cmd, output, list, func(t *table) {
		t.line("CHECK", "WHY")
		for _, c := range list {
			t.line(c.Name, c.Why)
		}
	})
}

// finding is one thing that is not as it should be.
type finding struct {
	Host  string `json:"host,omitempty"`
	Check string `json:"check"`
	What  string `json:"what"`
	Fix   string `json:"fix,omitempty"`
}

func (a *app) checkBefore(cmd *cobra.Command, o *checkFlags, image string) (err error) {
	run := runFlags{sshFlags: o.sshFlags, clusterfile: o.clusterfile, name: o.name, env: o.env}
	desired, err := run.desired(a, cmd)
	if err != nil {
		return err
	}
	if image == "" {
		image = desired.Image
	}
	if image == "" {
		return usagef(cmd, "IMAGE is missing, and the Clusterfile names none")
	}
	defer a.close(&err)
	ctx := cmd.Context()
	st, tag, img, err := a.openImage(cmd, image)
	if err != nil {
		return err
	}
	operator := a.operator(&run.sshFlags, "")
	operator.Out = io.Discard
	look := func() error {
		return cluster.Run(ctx, cluster.RunOptions{
			Operator: operator, Image: img, ImageName: tag.Name, Content: st.Content(), Clusterfile: desired,
			Pusher: &imagePusher{app: a, cmd: cmd, store: st}, DryRun: true,
		})
	}
	found := []finding{}
	hosts := len(desired.Machines())
	err = look()
	if silent, ok := errors.AsType[*cluster.ConnectError](err); ok && len(silent.Hosts) > 0 && ctx.Err() == nil {
		found = append(found, unreachable(silent)...)
		rest := *desired
		rest.Hosts = slices.DeleteFunc(slices.Clone(desired.Hosts), func(h clusterfile.Host) bool { return slices.Contains(silent.Hosts, h.Address) })
		if !slices.ContainsFunc(rest.Hosts, func(h clusterfile.Host) bool { return h.Role == clusterfile.ControlPlane }) {
			return a.printChecks(cmd, o.output, found, hosts)
		}
		desired = &rest
		err = look() // at the others
	}
	problems, checked := errors.AsType[*runtime.PreflightError](err)
	if err != nil && !checked {
		return err
	}
	if checked {
		for _, p := range problems.Problems {
			found = append(found, finding(p))
		}
	}
	return a.printChecks(cmd, o.output, found, hosts)
}

// unreachable are the hosts that could not be asked for anything.
func unreachable(e *cluster.ConnectError) []finding {
	list := make([]finding, 0, len(e.Errs))
	for i, err := range e.Errs {
		f := finding{Host: e.Hosts[i], Check: "ssh", What: err.Error()}
		if hinter, ok := errors.AsType[interface {
			error
			Hint() string
		}](err); ok {
			f.Fix = hinter.Hint()
		}
		list = append(list, f)
	}
	return list
}

func (a *app) printChecks(cmd *cobra.Command, output string, found []finding, hosts int) error {
	err := a.print(cmd, output, found, func(t *table) {
		if len(found) == 0 {
			t.line(fmt.Sprintf("nothing is wrong: %d hosts were looked at", hosts))
			return
		}
		t.line("HOST", "CHECK", "WHAT", "WHAT TO DO")
		for _, f := range found {
			t.line(f.Host, f.Check, f.What, f.Fix)
		}
	})
	if err == nil && len(found) > 0 {
		return &findingsError{len(found)}
	}
	return err
}

// findingsError says that a check found something; what it is stands in the result.
type findingsError struct{ count int }

func (e *findingsError) Error() string {
	if e.count == 1 {
		return "one thing is not as it should be"
	}
	return fmt.Sprintf("%d things are not as they should be", e.count)
}

func (a *app) checkAfter(cmd *cobra.Command, o *checkFlags) error {
	return a.view(cmd, &o.viewFlags, func(v *cluster.View) error {
		ctx := cmd.Context()
		s, err := v.Status(ctx)
		if err != nil {
			return err
		}
		found := []finding{}
		for _, p := range s.Problems() {
			found = append(found, finding(p))
		}
		for _, text := range s.Drift {
			found = append(found, finding{Check: "drift", What: text, Fix: "sealer apply with the cluster's Clusterfile makes it so again; sealer status -f compares with another"})
		}
		if s.Contact != "" {
			pods, err := v.UnreadyPods(ctx)
			if err != nil {
				return err
			}
			for _, p := range pods {
				found = append(found, finding{Check: "pods", What: p, Fix: "kubectl describe tells its events"})
			}
		}
		return a.printChecks(cmd, o.output, found, len(s.Hosts))
	})
}

func newReset(a *app) *cobra.Command {
	var o deleteFlags
	cmd := &cobra.Command{
		Use:   "reset",
		Short: "Put the hosts of a cluster back as they were",
		Long: `reset takes a whole cluster off its hosts, as sealer delete --all does. Hosts that are installed
in part, and those that are clean already, are fine.`,
		Example: `  sealer reset --yes
  sealer reset --yes --force --name shop`,
		Args: noArgs,
	}
	o.addTo(cmd, "go on where a host cannot be reached, and say which")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		o.all = true
		return a.delete(cmd, o)
	}
	return cmd
}
