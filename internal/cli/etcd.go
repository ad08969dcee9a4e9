// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sealerio/sealer/cluster"
	"github.com/sealerio/sealer/clusterfile"
)

type etcdFlags struct {
	deleteFlags
	output string
}

func newEtcd(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "etcd",
		Short: "Save and restore a cluster's data",
		Example: `  sealer etcd snapshot -o shop.db
  sealer etcd restore shop.db --yes`,
		Args: noCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newEtcdSnapshot(a), newEtcdRestore(a))
	return cmd
}

func (o *etcdFlags) addTo(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVarP(&o.clusterfile, "Clusterfile", "f", "", "file that describes the cluster (default: what the run has kept)")
	f.StringVar(&o.name, "name", "", "name of the cluster (default "+clusterfile.DefaultName+")")
	o.add(cmd)
}

func newEtcdSnapshot(a *app) *cobra.Command {
	var o etcdFlags
	cmd := &cobra.Command{
		Use:   "snapshot",
		Short: "Save the cluster's data while it runs, and print where",
		Long: `snapshot has a control plane save the cluster's data, below ` + cluster.SnapshotDir + `, and prints
HOST:FILE. With --output the file comes to this machine. It holds all the cluster's secrets: its mode is 0600.`,
		Example: `  sealer etcd snapshot
  sealer etcd snapshot --name shop -o shop.db`,
		Args: noArgs,
	}
	o.addTo(cmd)
	cmd.Flags().StringVarP(&o.output, "output", "o", "", "file on this machine to write the snapshot to")
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		options, err := a.datastore(cmd, &o, "snapshot", o.output)
		if err != nil {
			return err
		}
		defer a.close(&err)
		return cluster.Snapshot(cmd.Context(), options)
	}
	return cmd
}

func newEtcdRestore(a *app) *cobra.Command {
	var o etcdFlags
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Put what a snapshot holds in the place of the cluster's data",
		Long: `restore stops all control planes, begins a new etcd with the snapshot on one of them, and joins
the others to it. FILE is one of this machine, or HOST:FILE as snapshot and upgrade print it. What was changed in
the cluster since the snapshot is lost; what etcd had is kept on the host, beside its data. All control planes must be
there; --force goes on without those that are gone for good.`,
		Example: `  sealer etcd restore shop.db
  sealer etcd restore 10.0.0.1:` + cluster.SnapshotDir + `/before-v1.36.3-20260901T120000Z.db --yes`,
		Args: exactArgs("FILE"),
	}
	o.addTo(cmd)
	cmd.Flags().BoolVarP(&o.yes, "yes", "y", false, "do not ask")
	cmd.Flags().BoolVar(&o.force, "force", false, "go on without control planes that cannot be reached: they are none of the cluster any more")
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		confirm, err := a.confirmPlan(cmd, o.yes, "Restore it? [y/N] ")
		if err != nil {
			return err
		}
		options, err := a.datastore(cmd, &o, "restore", args[0])
		if err != nil {
			return err
		}
		defer a.close(&err)
		options.Confirm, options.Force = confirm, o.force
		return cluster.Restore(cmd.Context(), options)
	}
	return cmd
}

// datastore opens log and display; the caller closes the app.
func (a *app) datastore(cmd *cobra.Command, o *etcdFlags, verb, file string) (cluster.DatastoreOptions, error) {
	desired, err := o.known(a, cmd)
	if err != nil {
		return cluster.DatastoreOptions{}, err
	}
	logFile, err := a.openRunLog("etcd-" + verb)
	if err != nil {
		return cluster.DatastoreOptions{}, err
	}
	if err := a.openDisplay(cmd); err != nil {
		return cluster.DatastoreOptions{}, fmt.Errorf("opening the display: %w", err)
	}
	return cluster.DatastoreOptions{
		Clusterfile: desired,
		Operator:    a.operator(&o.sshFlags, logFile),
		File:        file,
	}, nil
}
