// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealerio/sealer/cluster"
	"github.com/sealerio/sealer/host"
)

func newBundleLogs(a *app) *cobra.Command {
	var o viewFlags
	var output string
	var since time.Duration
	cmd := &cobra.Command{
		Use:   "bundle-logs",
		Short: "Collect what support needs to know of a cluster in one file",
		Long: `bundle-logs asks all hosts and the cluster, and writes one tar.gz that only you can read: versions,
what sealer has done and its logs, the hosts' facts, disks, memory, networks and journals, when
certificates end, and the nodes, workloads, events and logs of Kubernetes, each up to a bound.

Secrets are left out: none of Kubernetes' Secrets is in it, and passwords, tokens, keys and what
the cluster keeps secret are taken out of everything else. Hosts that cannot be reached are
named, and do not stop it. Look at what is in it before it leaves your hands.`,
		Example: `  sealer bundle-logs
  sealer bundle-logs --name shop --since 2h -o shop.tar.gz`,
		Args: noArgs,
	}
	o.addTo(cmd)
	cmd.Flags().StringVarP(&output, "output", "o", "", "file to write (default: sealer-NAME-TIME.tar.gz in this folder)")
	timeVar(cmd.Flags(), &since, "since", 24*time.Hour, "how far back the hosts' journals go")
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		if err := o.onlyCluster(a, cmd); err != nil {
			return err
		}
		desired, err := o.known(a, cmd)
		if err != nil {
			return err
		}
		if output == "" {
			output = "sealer-" + desired.Name + "-" + time.Now().UTC().Format("20060102T150405Z") + ".tar.gz"
		}
		if err := a.openDisplay(cmd); err != nil {
			return err
		}
		defer a.close(&err)
		ctx := cmd.Context()
		v, openErr := cluster.Open(ctx, cluster.ViewOptions{
			Clusterfile: desired, Dial: a.dialer(&o.sshFlags), Distributions: distributions(), Display: a.display,
			StateDir: filepath.Join(a.root, "clusters"),
		})
		switch _, unreachable := errors.AsType[*cluster.ConnectError](openErr); {
		case ctx.Err() != nil:
			return openErr
		case unreachable:
			a.log.Warn("none of the hosts can be reached: the bundle has what this machine knows")
		case openErr != nil:
			return openErr
		default:
			defer func() { err = errors.Join(err, v.Close()) }()
		}
		secrets := []host.Secret{o.password, o.passphrase}
		for _, h := range desired.Hosts {
			secrets = append(secrets, h.SSH.Password, h.SSH.KeyPassword, h.SSH.SudoPassword)
		}
		report, err := cluster.Bundle(ctx, cluster.BundleOptions{
			View: v, Unreachable: openErr, Cluster: desired.Name, StateDir: filepath.Join(a.root, "clusters"), LogDir: filepath.Join(a.root, "logs"),
			Since: since, Secrets: secrets, Display: a.display, File: output,
		})
		if err != nil {
			return err
		}
		for _, lost := range report.Lost {
			a.log.Warn("could not be reached: " + lost)
		}
		_, err = fmt.Fprintln(a.streams.Out, output)
		return err
	}
	return cmd
}
