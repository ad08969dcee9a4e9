// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealerio/sealer/cluster"
)

type certFlags struct {
	viewFlags
	altNames []string
	output   string
	within   time.Duration
}

func newCert(a *app) *cobra.Command {
	var o certFlags
	cmd := &cobra.Command{
		Use:   "cert",
		Short: "Add names to a cluster's certificates, check them and renew them",
		Long: `cert --alt-names adds names and addresses to the certificates of the API servers, one control
plane after the other. Without it, cert lists the certificates as cert check does.`,
		Example: `  sealer cert --alt-names k8s.example.com,10.0.0.100
  sealer cert check
  sealer cert renew`,
		Args: noArgs,
	}
	o.addTo(cmd)
	o.addCheck(cmd)
	cmd.Flags().StringSliceVar(&o.altNames, "alt-names", nil, "names and addresses for the API servers' certificates")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if len(o.altNames) == 0 {
			return a.checkCertificates(cmd, &o)
		}
		return a.changeCluster(cmd, &o.viewFlags, "cert", func(c cluster.ChangeOptions) error {
			return cluster.AddServerNames(cmd.Context(), c, o.altNames)
		})
	}
	cmd.AddCommand(newCertCheck(a), newCertRenew(a))
	return cmd
}

func (o *certFlags) addCheck(cmd *cobra.Command) {
	addOutput(cmd, &o.output)
	timeOrNoneVar(cmd.Flags(), &o.within, "within", 0, "exit with 1 where one ends within this time: 720h")
}

func newCertCheck(a *app) *cobra.Command {
	var o certFlags
	cmd := &cobra.Command{
		Use:   "check",
		Short: "List the certificates on all hosts, with when they end",
		Long: `check lists the certificates that hosts keep, those that end first before the others. It exits
with 1 where one has ended, or ends within --within.`,
		Example: `  sealer cert check
  sealer cert check --within 720h -o json`,
		Args: noArgs,
	}
	o.addTo(cmd)
	o.addCheck(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return a.checkCertificates(cmd, &o) }
	return cmd
}

func (a *app) checkCertificates(cmd *cobra.Command, o *certFlags) error {
	return a.view(cmd, &o.viewFlags, func(v *cluster.View) error {
		list, failed := v.Certificates(cmd.Context())
		now := time.Now()
		var ending []string
		for _, c := range list {
			if c.NotAfter.Before(now.Add(o.within)) {
				ending = append(ending, c.Host+" "+c.Name)
			}
		}
		err := a.print(cmd, o.output, list, func(t *table) {
			t.line("HOST", "CERTIFICATE", "ENDS", "LEFT")
			for _, c := range list {
				name := c.Name
				if c.CA {
					name += " (CA)"
				}
				t.line(c.Host, name, c.NotAfter.Format("2006-01-02 15:04"), left(c.NotAfter.Sub(now)))
			}
		})
		switch {
		case err != nil:
			return err
		case failed != nil:
			return failed
		case len(ending) > 0:
			return &endingError{ending}
		}
		return nil
	})
}

// left is a time in days, or in hours where it is short.
func left(d time.Duration) string {
	if d < 0 {
		return "ended"
	}
	if d < 48*time.Hour {
		return fmt.Sprintf("%d hours", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}

// endingError is certificates that end too soon.
type endingError struct{ names []string }

func (e *endingError) Error() string {
	return fmt.Sprintf("%d certificates end too soon: %s", len(e.names), strings.Join(e.names, ", "))
}
func (*endingError) Hint() string { return "sealer cert renew makes them anew" }

func newCertRenew(a *app) *cobra.Command {
	var o viewFlags
	cmd := &cobra.Command{
		Use:   "renew",
		Short: "Make the certificates anew",
		Long: `renew makes all certificates but those of the CAs anew, on one control plane after the other; its
API server is away for a moment. Kubelets renew their own.`,
		Example: `  sealer cert renew
  sealer cert renew --name shop`,
		Args: noArgs,
	}
	o.addTo(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return a.changeCluster(cmd, &o, "cert-renew", func(c cluster.ChangeOptions) error {
			return cluster.RenewCertificates(cmd.Context(), c)
		})
	}
	return cmd
}

// changeCluster does something to a running cluster, with a log file of its own.
func (a *app) changeCluster(cmd *cobra.Command, o *viewFlags, verb string, do func(cluster.ChangeOptions) error) (err error) {
	desired, err := o.known(a, cmd)
	if err != nil {
		return err
	}
	logFile, err := a.openRunLog(verb)
	if err != nil {
		return err
	}
	if err := a.openDisplay(cmd); err != nil {
		return err
	}
	defer a.close(&err)
	return do(cluster.ChangeOptions{
		ViewOptions: cluster.ViewOptions{
			Clusterfile: desired, Dial: a.dialer(&o.sshFlags), Distributions: distributions(), Display: a.display,
			StateDir: filepath.Join(a.root, "clusters"),
		},
		LogFile: logFile,
	})
}
