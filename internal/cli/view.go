// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealerio/sealer/cluster"
	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/internal/atomicfile"
	"github.com/sealerio/sealer/store"
)

// viewFlags say which cluster is looked at, and which of its hosts.
type viewFlags struct {
	deleteFlags
	hosts string
	role  string
}

func (o *viewFlags) addTo(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVarP(&o.clusterfile, "Clusterfile", "f", "", "file that describes the cluster (default: what the run has kept)")
	f.StringVar(&o.name, "name", "", "name of the cluster (default "+clusterfile.DefaultName+")")
	o.add(cmd)
}

// addSelection declares the flags that choose among the hosts.
func (o *viewFlags) addSelection(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.hosts, "hosts", "", "only these hosts: 10.0.0.1,10.0.0.4-10.0.0.6")
	f.StringVarP(&o.role, "roles", "r", "", "only hosts of this role: master, node")
	mustComplete(cmd, "roles", []string{"master", "node"})
}

func (o *viewFlags) selection(cmd *cobra.Command) (cluster.Selection, error) {
	var s cluster.Selection
	if o.hosts != "" {
		s.Addresses = []string{o.hosts}
	}
	switch o.role {
	case "":
	case "master", "control-plane":
		s.Role = clusterfile.ControlPlane
	case "node", "worker":
		s.Role = clusterfile.Worker
	default:
		return s, usagef(cmd, "--roles %q is neither master nor node", o.role)
	}
	return s, nil
}

// view opens the cluster, does something with it and leaves it.
func (a *app) view(cmd *cobra.Command, o *viewFlags, do func(*cluster.View) error) (err error) {
	desired, err := o.known(a, cmd)
	if err != nil {
		return err
	}
	if err := a.openDisplay(cmd); err != nil {
		return err
	}
	defer a.close(&err)
	v, err := cluster.Open(cmd.Context(), cluster.ViewOptions{
		Clusterfile: desired, Dial: a.dialer(&o.sshFlags), Distributions: distributions(), Display: a.display,
		StateDir: filepath.Join(a.root, "clusters"), Lookup: lookup(cmd), Desired: o.clusterfile != "",
		FindImage: a.imageHere,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	return do(v)
}

// imageHere finds an image in the local store, by its name or else by its digest; nil where it is not there.
func (a *app) imageHere(ctx context.Context, id, name string) (*clusterimage.Image, error) {
	st, err := a.openStore()
	if err != nil {
		return nil, err
	}
	tag, err := st.Resolve(ctx, cmp.Or(name, id))
	if _, none := errors.AsType[*store.NotFoundError](err); none {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return clusterimage.Read(ctx, st.Content(), tag.Descriptor)
}

func newExec(a *app) *cobra.Command {
	var o viewFlags
	cmd := &cobra.Command{
		Use:   "exec -- COMMAND…",
		Short: "Run a command on the hosts of a cluster",
		Long: `exec runs a command as root on all hosts at once, or on those that are chosen. One word is
shell text; several are a program and its arguments. Where there are several hosts each
line of output begins with the host's address.`,
		Example: `  sealer exec -- uptime
  sealer exec --roles node 'journalctl -u kubelet | tail -n 3'
  sealer exec --hosts 10.0.0.2 -- crictl ps -a`,
		Args: cobra.MinimumNArgs(1),
	}
	o.addTo(cmd)
	o.addSelection(cmd)
	cmd.RunE = func(cmd *cobra.Command, words []string) error {
		which, err := o.selection(cmd)
		if err != nil {
			return err
		}
		return a.view(cmd, &o, func(v *cluster.View) error {
			return v.Exec(cmd.Context(), which, words, a.streams.Out, a.streams.Err)
		})
	}
	return cmd
}

func newCp(a *app) *cobra.Command {
	var o viewFlags
	cmd := &cobra.Command{
		Use:   "cp FILE :PATH | HOST:PATH FILE",
		Short: "Copy a file to the hosts of a cluster, or from one of them",
		Long: `cp copies a file to all hosts at once, or to those that are chosen, or from one host to
this machine. What arrives is checked by digest, and stands there whole or not at all.`,
		Example: `  sealer cp ca.crt :/usr/local/share/ca-certificates/
  sealer cp --roles node chrony.conf :/etc/chrony/chrony.conf
  sealer cp 10.0.0.1:/var/log/syslog .`,
		Args: exactArgs("FILE", ":PATH"),
	}
	o.addTo(cmd)
	o.addSelection(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		which, err := o.selection(cmd)
		if err != nil {
			return err
		}
		if target, ok := strings.CutPrefix(args[1], ":"); ok {
			return a.view(cmd, &o, func(v *cluster.View) error { return v.Send(cmd.Context(), which, args[0], target) })
		}
		i := strings.Index(args[0], ":/")
		if i <= 0 {
			return usagef(cmd, "one of both is on a host: write :PATH for all hosts, or HOST:PATH")
		}
		address := strings.Trim(args[0][:i], "[]")
		return a.view(cmd, &o, func(v *cluster.View) error { return v.Fetch(cmd.Context(), address, args[0][i+1:], args[1]) })
	}
	return cmd
}

func newKubeconfig(a *app) *cobra.Command {
	var o viewFlags
	var server, output string
	cmd := &cobra.Command{
		Use:   "kubeconfig",
		Short: "Print the admin kubeconfig of a cluster",
		Long: `kubeconfig prints the kubeconfig of the cluster's admin, with the address of a control plane
that answers. With it one can do everything to the cluster: keep it like a password.`,
		Example: `  sealer kubeconfig -o ~/.kube/shop
  sealer kubeconfig --server k8s.example.com:6443 >shop.conf
  KUBECONFIG=~/.kube/shop kubectl get nodes`,
		Args: noArgs,
	}
	o.addTo(cmd)
	cmd.Flags().StringVar(&server, "server", "", "HOST[:PORT] of the API server in it (default: a control plane's address)")
	cmd.Flags().StringVarP(&output, "output", "o", "", "file to write it to, with mode 0600 (default: standard output)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return a.view(cmd, &o, func(v *cluster.View) error {
			data, err := v.Kubeconfig(cmd.Context(), server)
			if err != nil {
				return err
			}
			if output != "" {
				return atomicfile.WriteOutput(output, data, 0o600)
			}
			_, err = a.streams.Out.Write(data)
			return err
		})
	}
	return cmd
}

func newStatus(a *app) *cobra.Command {
	var o viewFlags
	var output string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Tell how a cluster is",
		Long: `status asks all hosts and the cluster: nodes and their versions, until when certificates are good, what
does not work (certificates that end within a week, too), and how hosts, image, registry, labels and taints differ from what the cluster was made from. With -f it is
all that sealer apply would find to do; what the image itself says is read from the local store. It exits with 1 where something is wrong or differs.`,
		Example: `  sealer status
  sealer status -f Clusterfile
  sealer status --name shop -o json`,
		Args: noArgs,
	}
	o.addTo(cmd)
	addOutput(cmd, &output)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return a.view(cmd, &o, func(v *cluster.View) error {
			s, err := v.Status(cmd.Context())
			if err != nil {
				return err
			}
			if err := a.print(cmd, output, s, func(t *table) { showStatus(t, s) }); err != nil {
				return err
			}
			if !s.Well() {
				return &unwellError{cluster: s.Cluster, count: len(s.Unwell) + len(s.Drift)}
			}
			return nil
		})
	}
	return cmd
}

func showStatus(t *table, s *cluster.Status) {
	t.line("cluster", s.Cluster)
	t.line("image", s.Image)
	t.line("runtime", s.Runtime, s.Version)
	t.line()
	t.line("HOST", "NODE", "ROLE", "STATUS", "VERSION", "REGISTRY", "CERTIFICATES UNTIL")
	for _, h := range s.Hosts {
		state := "Ready"
		switch {
		case h.Problem != "":
			state = h.Problem
		case !h.Ready:
			state = "unknown"
		case h.Cordoned:
			state = "Ready, no new pods"
		}
		until := ""
		if !h.CertificatesUntil.IsZero() {
			until = h.CertificatesUntil.UTC().Format(time.DateOnly)
		}
		t.line(h.Host, h.Node, h.Role, state, h.Version, h.Registry, until)
	}
	for _, group := range []struct {
		title string
		lines []string
	}{{"not well:", s.Unwell}, {"differs:", s.Drift}} {
		if len(group.lines) == 0 {
			continue
		}
		t.line()
		t.line(group.title)
		for _, l := range group.lines {
			t.line("  " + l)
		}
	}
	if s.NotCompared != "" {
		t.line()
		t.line("not compared:")
		t.line("  " + s.NotCompared)
	}
}

// unwellError is a cluster with which something is wrong; what it is stands in the result.
type unwellError struct {
	cluster string
	count   int
}

func (e *unwellError) Error() string {
	if e.count == 1 {
		return fmt.Sprintf("the cluster %q: one thing is not as it should be", e.cluster)
	}
	return fmt.Sprintf("the cluster %q: %d things are not as they should be", e.cluster, e.count)
}

func newLogs(a *app) *cobra.Command {
	var name, host, output string
	var failed bool
	cmd := &cobra.Command{
		Use:   "logs",
		Short: "Show what was done to the hosts of a cluster",
		Long: `logs shows the journal of a cluster: each step that was done on a host, when, how long it took,
and what went wrong. The commands themselves with their output are in the log files
below the folder "logs" of sealer's own.`,
		Example: `  sealer logs
  sealer logs --name shop --host 10.0.0.2 --failed
  sealer logs -o json`,
		Args: noArgs,
	}
	f := cmd.Flags()
	f.StringVar(&name, "name", clusterfile.DefaultName, "name of the cluster")
	f.StringVar(&host, "host", "", "only what was done on this host")
	f.BoolVar(&failed, "failed", false, "only what failed")
	addOutput(cmd, &output)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		events, err := cluster.ReadJournal(filepath.Join(a.root, "clusters"), name)
		if err != nil {
			return err
		}
		shown := []cluster.Event{}
		for _, e := range events {
			if (host == "" || e.Host == host) && (!failed || e.Event == "failed") {
				shown = append(shown, e)
			}
		}
		return a.print(cmd, output, shown, func(t *table) {
			t.line("TIME", "HOST", "EVENT", "SECONDS", "STEP")
			for _, e := range shown {
				took := ""
				if e.Event != "started" {
					took = fmt.Sprintf("%.1f", e.Seconds)
				}
				step := e.Step
				if e.Error != "" {
					step += ": " + strings.SplitN(e.Error, "\n", 2)[0]
				}
				t.line(e.Time.Format("2006-01-02 15:04:05"), e.Host, e.Event, took, step)
			}
		})
	}
	return cmd
}
