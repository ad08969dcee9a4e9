// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealerio/sealer/cluster"
	"github.com/sealerio/sealer/cluster/kube"
	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/store"
)

type applyFlags struct {
	runFlags
	output                        string
	yes, force, noSnapshot, prune bool
	batch                         string
	timeout                       time.Duration
}

func newApply(a *app) *cobra.Command {
	var o applyFlags
	cmd := &cobra.Command{
		Use:   "apply -f CLUSTERFILE",
		Short: "Make a cluster what a Clusterfile says",
		Long: `apply compares a Clusterfile with the cluster as it is found on its hosts, shows what it
would do about the difference, asks, and does it: hosts join and leave, labels, taints, files
and settings change, the image is upgraded, applications come, change and go. Where there is no
cluster yet it is made. What a cluster that runs cannot change is refused before anything is touched.

Hosts that the Clusterfile does not name leave the cluster. An apply that was cut is continued
by the same command, and one that has nothing to do touches nothing.`,
		Example: `  sealer apply -f Clusterfile --dry-run
  sealer apply -f Clusterfile
  sealer apply -f Clusterfile --yes -o json`,
		Args: noArgs,
	}
	f := cmd.Flags()
	f.StringVarP(&o.clusterfile, "Clusterfile", "f", "", "file that describes the cluster; flags win over it")
	f.StringVar(&o.name, "name", "", "name of the cluster (default: that of the Clusterfile)")
	f.StringArrayVarP(&o.env, "env", "e", nil, "value for the image's templates and commands (NAME=VALUE, repeatable)")
	f.BoolVar(&o.dryRun, "dry-run", false, "look at the hosts, print the plan and change nothing")
	f.BoolVarP(&o.yes, "yes", "y", false, "do not ask")
	f.BoolVar(&o.force, "force", false, "take hosts out that cannot be reached; delete pods that do not leave a node")
	f.BoolVar(&o.prune, "prune", false, "delete applications, too, that were run by hand and are not in the Clusterfile")
	timeVar(f, &o.timeout, "timeout", kube.DefaultDrainTimeout, "how long pods may take to leave a node")
	o.batch = "10%"
	f.Var(batchValue{&o.batch}, "batch", "how many workers are upgraded at once: a number, or a share of all")
	f.BoolVar(&o.noSnapshot, "no-snapshot", false, "do not save the cluster's data before an upgrade")
	addOutput(cmd, &o.output)
	o.addEndpoint(cmd)
	o.add(cmd)
	a.addRegistryFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return a.apply(cmd, o) }
	return cmd
}

func (a *app) apply(cmd *cobra.Command, o applyFlags) (err error) {
	switch {
	case o.clusterfile == "":
		return usagef(cmd, "-f is missing: the Clusterfile to apply")
	case !slices.Contains([]string{"table", "json", "yaml"}, o.output):
		return usagef(cmd, "--output %q is not one of table, json, yaml", o.output)
	case !o.yes && !o.dryRun && !isTerminal(a.streams.In):
		return usagef(cmd, "--yes is missing, and there is no terminal to ask on")
	}
	desired, err := o.desired(a, cmd)
	if err != nil {
		return err
	}
	logFile, err := a.openRunLog("apply")
	if err != nil {
		return err
	}
	defer a.close(&err)
	st, err := a.openWork(cmd)
	if err != nil {
		return err
	}
	options := cluster.ApplyOptions{
		RunOptions: cluster.RunOptions{
			Operator: a.operator(&o.sshFlags, logFile), Content: st.Content(), Clusterfile: desired,
			Pusher: &imagePusher{app: a, cmd: cmd, store: st}, DryRun: o.dryRun,
		},
		FindImage: func(ctx context.Context, id, name string) (*clusterimage.Image, string, error) {
			return a.imageOfCluster(ctx, cmd, st, joinFlags{name: desired.Name}, id, name)
		},
		FindApplication: func(ctx context.Context, reference string) (*clusterimage.Image, string, error) {
			return a.readImage(ctx, cmd, st, reference)
		},
		Prune: o.prune,
		Force: o.force, DrainTimeout: o.timeout, Batch: o.batch, NoSnapshot: o.noSnapshot,
		Show: func(p *cluster.ApplyPlan) error { return a.showPlan(cmd, o.output, p) },
	}
	if o.output != "table" {
		options.Out = io.Discard // the plan is the result
	}
	if desired.Image != "" {
		if options.Image, options.ImageName, err = a.readImage(cmd.Context(), cmd, st, desired.Image); err != nil {
			return err
		}
	}
	if !o.yes {
		options.Confirm = func() error {
			answer, err := a.ask(cmd, "Apply it? [y/N] ")
			if err != nil {
				return err
			}
			if !slices.Contains([]string{"y", "yes"}, strings.ToLower(answer)) {
				return errors.New("nothing was changed")
			}
			return nil
		}
	}
	return cluster.Apply(cmd.Context(), options)
}

// readImage finds an image, or pulls it; the name is its whole one.
func (a *app) readImage(ctx context.Context, cmd *cobra.Command, st *store.Store, reference string) (*clusterimage.Image, string, error) {
	tag, err := a.findOrPull(ctx, cmd, st, reference)
	if err != nil {
		return nil, "", err
	}
	image, err := clusterimage.Read(ctx, st.Content(), tag.Descriptor)
	if err != nil {
		return nil, "", fmt.Errorf("reading image %q: %w", reference, err)
	}
	return image, tag.Name, nil
}

// showPlan prints a plan: the same for a dry run and before it is done.
func (a *app) showPlan(cmd *cobra.Command, output string, p *cluster.ApplyPlan) error {
	if output == "table" {
		_, err := io.WriteString(a.streams.Out, p.String())
		return err
	}
	return a.print(cmd, output, p, nil)
}
