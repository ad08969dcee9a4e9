// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealerio/sealer/cluster"
	"github.com/sealerio/sealer/cluster/kube"
	"github.com/sealerio/sealer/clusterfile"
)

type upgradeFlags struct {
	runFlags
	yes          bool
	batch        string
	pauseAfter   int
	skip         []string
	drainTimeout time.Duration
	forceDrain   bool
	noSnapshot   bool
	skipCMD      bool
	back         bool
}

func newUpgrade(a *app) *cobra.Command {
	var o upgradeFlags
	cmd := &cobra.Command{
		Use:   "upgrade IMAGE",
		Short: "Take a running cluster to what another ClusterImage holds",
		Long: `upgrade takes the nodes of a cluster to another ClusterImage of the same kind, at most one
minor version of Kubernetes on. Before anything is touched it looks at versions, nodes,
datastore, certificates, disks and what the image packs; then it shows its plan and asks.

It sends what the hosts lack, saves the cluster's data on a control plane, and upgrades
control planes one by one, then workers in batches: each node is drained, upgraded, waited
for and given pods again. An upgrade that was cut is continued by the same command.`,
		Example: `  sealer upgrade registry.example.com/team/shop:v2
  sealer upgrade shop:v2 --dry-run
  sealer upgrade shop:v2 --yes --batch 25% --pause-after 2
  sealer upgrade shop:v2 --yes -f Clusterfile --skip 10.0.0.9`,
		Args: exactArgs("IMAGE"),
	}
	o.addTo(a, cmd)
	cmd.Flags().BoolVar(&o.skipCMD, "skip-cmd", false, "do not run again what the image's CMD and LAUNCH start")
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return a.upgrade(cmd, o, args[0]) }
	return cmd
}

func newRollback(a *app) *cobra.Command {
	o := upgradeFlags{back: true}
	cmd := &cobra.Command{
		Use:   "rollback IMAGE",
		Short: "Take a cluster back to an older ClusterImage of the same minor version",
		Long: `rollback goes the way of upgrade back to an older image, as far as Kubernetes allows it:
within one minor version. Over a minor version there is no way back for a running cluster, as
its data may be of the newer one: make a cluster of the older image anew, and restore into it
what upgrade has saved before it began, with sealer etcd restore.`,
		Example: `  sealer rollback registry.example.com/team/shop:v1
  sealer rollback shop:v1 --dry-run`,
		Args: exactArgs("IMAGE"),
	}
	o.addTo(a, cmd)
	cmd.Flags().BoolVar(&o.skipCMD, "skip-cmd", false, "do not run again what the image's CMD and LAUNCH start")
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return a.upgrade(cmd, o, args[0]) }
	return cmd
}

func (o *upgradeFlags) addTo(a *app, cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVarP(&o.clusterfile, "Clusterfile", "f", "", "file that describes the cluster (default: what the run has kept)")
	f.StringVar(&o.name, "name", "", "name of the cluster (default "+clusterfile.DefaultName+")")
	f.StringArrayVarP(&o.env, "env", "e", nil, "value for the image's templates and commands (NAME=VALUE, repeatable)")
	f.BoolVarP(&o.yes, "yes", "y", false, "do not ask")
	f.BoolVar(&o.dryRun, "dry-run", false, "look at the hosts, print the plan and change nothing")
	o.batch = "10%"
	f.Var(batchValue{&o.batch}, "batch", "how many workers at once: a number, or a share of all")
	numberVar(f, &o.pauseAfter, "pause-after", "", 0, 0, math.MaxInt, "stop after so many nodes; the same command goes on")
	f.StringSliceVar(&o.skip, "skip", nil, "leave these workers as they are: addresses or names of nodes")
	timeVar(f, &o.drainTimeout, "drain-timeout", kube.DefaultDrainTimeout, "how long pods may take to leave a node")
	f.BoolVar(&o.forceDrain, "force-drain", false, "delete pods that nothing makes anew and, when the time is up, those whose budgets forbid it")
	f.BoolVar(&o.noSnapshot, "no-snapshot", false, "do not save the cluster's data first")
	o.add(cmd)
	a.addRegistryFlags(cmd)
}

func (a *app) upgrade(cmd *cobra.Command, o upgradeFlags, image string) (err error) {
	verb := cmd.Name()
	known := deleteFlags{sshFlags: o.sshFlags, clusterfile: o.clusterfile, name: o.name, env: o.env}
	desired, err := known.known(a, cmd)
	if err != nil {
		return err
	}
	o.sshFlags = known.sshFlags
	confirm, err := a.confirmPlan(cmd, o.yes || o.dryRun, fmt.Sprintf("%s%s cluster %q? [y/N] ", strings.ToUpper(verb[:1]), verb[1:], desired.Name))
	if err != nil {
		return err
	}
	logFile, err := a.openRunLog(verb)
	if err != nil {
		return err
	}
	defer a.close(&err)
	ctx := cmd.Context()
	st, tag, img, err := a.openImage(cmd, image)
	if err != nil {
		return err
	}
	return cluster.Upgrade(ctx, cluster.UpgradeOptions{
		RunOptions: cluster.RunOptions{
			Image:       img,
			ImageName:   tag.Name,
			Content:     st.Content(),
			Clusterfile: desired,
			Operator:    a.operator(&o.sshFlags, logFile),
			Pusher:      &imagePusher{app: a, cmd: cmd, store: st},
			DryRun:      o.dryRun,
		},
		Recall: o.clusterfile == "",
		Batch:  o.batch, PauseAfter: o.pauseAfter, Skip: o.skip, DrainTimeout: o.drainTimeout, ForceDrain: o.forceDrain,
		NoSnapshot: o.noSnapshot, SkipCMD: o.skipCMD, Back: o.back, Confirm: confirm,
	})
}

// confirmPlan shows a plan and asks on a terminal; elsewhere it wants --yes. nil: nobody is asked.
func (a *app) confirmPlan(cmd *cobra.Command, yes bool, question string) (func(string) error, error) {
	if yes {
		return nil, nil
	}
	if !isTerminal(a.streams.In) {
		return nil, usagef(cmd, "--yes is missing, and there is no terminal to ask on")
	}
	return func(plan string) error {
		answer, err := a.ask(cmd, plan+question)
		if err != nil {
			return err
		}
		if !slices.Contains([]string{"y", "yes"}, strings.ToLower(answer)) {
			return errors.New("nothing was changed")
		}
		return nil
	}, nil
}
