// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealerio/sealer/cluster"
	"github.com/sealerio/sealer/cluster/kube"
	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/runtime"
	"github.com/sealerio/sealer/runtime/k0s"
	"github.com/sealerio/sealer/runtime/k3s"
	"github.com/sealerio/sealer/runtime/kubernetes"
	"github.com/sealerio/sealer/store"
)

// distributions are what a ClusterImage's Metadata may name.
func distributions() runtime.Distributions {
	return runtime.Distributions{k0s.Name: k0s.New(), k3s.Name: k3s.New(), kubernetes.Name: kubernetes.New()}
}

// operator is this machine, as it works on clusters.
func (a *app) operator(ssh *sshFlags, logFile string) cluster.Operator {
	return cluster.Operator{
		Dial: a.dialer(ssh), NodeBinary: nodeBinary, Distributions: distributions(), Display: a.display,
		StateDir: filepath.Join(a.root, "clusters"), LogFile: logFile, Out: a.streams.Out,
	}
}

type runFlags struct {
	sshFlags
	clusterfile string
	name        string
	env         []string
	dryRun      bool
	references  bool // secrets stay references to where they are
	endpointFlags
	applicationFlags
}

func newRun(a *app) *cobra.Command {
	var o runFlags
	cmd := &cobra.Command{
		Use:   "run IMAGE",
		Short: "Make a cluster of a ClusterImage",
		Long: `run installs the cluster that a ClusterImage holds on hosts that need nothing but
SSH: it sends the content, serves the packed images on the first control plane, installs
Kubernetes and starts the image's CMD. The image is taken from the local store, or pulled.

A run that was cut is continued by the same command. Without --masters the cluster is
this machine, without SSH.

An image of applications alone runs on a cluster that is there: that of --name, or the only
one this machine knows. Only what its control planes lack is sent; it is launched part by
part, each waited for. sealer app looks after it.`,
		Example: `  sealer run registry.example.com/team/shop:v1 --masters 10.0.0.1 --nodes 10.0.0.2,10.0.0.3
  sealer run shop:v1 -m 10.0.0.1 -n 10.0.0.2-10.0.0.9 -u admin --pk ~/.ssh/site --ask-passwd
  sealer run shop:v1 -f Clusterfile --dry-run
  sealer run shop:v1
  sealer run shop:v1 -m 10.0.0.1-10.0.0.3 -n 10.0.0.4-10.0.0.9 --vip 10.0.0.100
  sealer run registry.example.com/team/redis:v1 --name prod --env REPLICAS=3`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 && o.clusterfile != "" {
				return nil
			}
			return exactArgs("IMAGE")(cmd, args)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.clusterfile, "Clusterfile", "f", "", "file that describes the cluster; flags win over it")
	f.StringVar(&o.name, "name", "", "name of the cluster (default "+clusterfile.DefaultName+")")
	f.StringArrayVarP(&o.env, "env", "e", nil, "value for the image's templates and commands (NAME=VALUE, repeatable)")
	f.BoolVar(&o.dryRun, "dry-run", false, "look at the hosts, print the plan and change nothing")
	f.StringVar(&o.as, "as", "", "what an application image's application is called (default: the last part of its image's name)")
	o.addEndpoint(cmd)
	o.addTo(cmd)
	o.add(cmd)
	a.addRegistryFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var image string
		if len(args) > 0 {
			image = args[0]
		}
		return a.run(cmd, o, image)
	}
	return cmd
}

func (a *app) run(cmd *cobra.Command, o runFlags, image string) (err error) {
	desired, desiredErr := o.desired(a, cmd)
	settings := desired
	if desiredErr != nil { // a file of Applications needs no Cluster
		settings, err = o.settings(a, cmd)
		if err != nil || image == "" || o.clusterfile != "" && len(settings.Applications) == 0 {
			return desiredErr
		}
	}
	if image == "" {
		image = desired.Image
	}
	if image == "" {
		return usagef(cmd, "IMAGE is missing, and the Clusterfile names none")
	}
	logFile, err := a.openRunLog("run")
	if err != nil {
		return err
	}
	defer a.close(&err)
	ctx := cmd.Context()
	st, tag, img, err := a.openImage(cmd, image)
	if err != nil {
		return err
	}
	if cluster.IsApplication(img) {
		return a.runApplication(ctx, cmd, applicationRun{
			ssh: &o.sshFlags, settings: settings, cluster: o.clusterName(settings), name: o.as, logFile: logFile, dryRun: o.dryRun, timeout: o.readyTimeout,
		}, st, tag, img)
	}
	if desiredErr != nil {
		return desiredErr
	}
	if len(desired.ApplicationImages) > 0 {
		return &applicationImagesError{file: o.clusterfile, first: desired.ApplicationImages[0]}
	}
	if o.as != "" {
		return usagef(cmd, "--as is for images of applications alone, and %s holds a cluster", tag.Name)
	}
	return cluster.Run(ctx, cluster.RunOptions{
		Image:        img,
		ImageName:    tag.Name,
		Content:      st.Content(),
		Clusterfile:  desired,
		Operator:     a.operator(&o.sshFlags, logFile),
		Pusher:       &imagePusher{app: a, cmd: cmd, store: st},
		DryRun:       o.dryRun,
		ReadyTimeout: o.readyTimeout,
	})
}

// desired joins the Clusterfile and the flags.
func (o *runFlags) desired(a *app, cmd *cobra.Command) (*clusterfile.File, error) {
	return o.read(a, cmd, clusterfile.Parse)
}

func (o *runFlags) read(a *app, cmd *cobra.Command, parse func(string, []byte) (*clusterfile.File, error)) (*clusterfile.File, error) {
	if err := o.resolve(a, cmd); err != nil {
		return nil, err
	}
	file, err := clusterfile.FromFlags(o.masters, o.nodes, o.overlay(clusterfile.SSH{}))
	if err != nil {
		return nil, &usageError{command: cmd.CommandPath(), err: err}
	}
	if o.clusterfile != "" {
		src, err := os.ReadFile(o.clusterfile)
		if err != nil {
			return nil, fmt.Errorf("reading the Clusterfile: %w", err)
		}
		fromFlags := file
		if file, err = parse(o.clusterfile, src); err != nil {
			return nil, err
		}
		if !o.references {
			if err := a.resolveSecrets(cmd, file); err != nil {
				return nil, err
			}
		}
		if o.masters != "" || o.nodes != "" {
			file.Hosts = o.named(fromFlags.Hosts, file)
		}
	}
	if o.name != "" {
		file.Name = o.name
	}
	for _, pair := range o.env {
		key, value, ok := strings.Cut(pair, "=")
		if !ok || key == "" {
			return nil, usagef(cmd, "--env %q is not NAME=VALUE", pair)
		}
		if file.Env == nil {
			file.Env = map[string]string{}
		}
		file.Env[key] = value
	}
	o.over(cmd, file)
	o.overEndpoint(file)
	for _, pair := range o.env {
		key, value, _ := strings.Cut(pair, "=")
		if err := file.CheckEnv(key, value); err != nil {
			return nil, usagef(cmd, "--env: %w", err)
		}
	}
	if err := file.ResolveHosts(lookup(cmd), a.madeBefore(file.Name)); err != nil {
		return nil, err
	}
	for _, l := range file.StrayLines() {
		a.log.Warn(fmt.Sprintf("%s of the plugin %q names %s, which is none of the hosts: it does nothing", l.Place, l.Plugin, l.Host))
	}
	return file, file.Validate()
}

// named are the hosts of the flags, with what the Clusterfile says of those that it names, too, and with its login where it does not.
func (o *runFlags) named(hosts []clusterfile.Host, file *clusterfile.File) []clusterfile.Host {
	list := slices.Clone(hosts)
	for i, h := range list {
		at := slices.IndexFunc(file.Hosts, func(m clusterfile.Host) bool { return m.Address == h.Address && m.Role == h.Role })
		if at >= 0 {
			list[i] = file.Hosts[at]
			continue
		}
		list[i].SSH = o.overlay(file.SSH)
	}
	return list
}

// openRunLog keeps everything of a run in a file of its own, unless the user named one.
func (a *app) openRunLog(verb string) (string, error) {
	if a.logFile != "" {
		return a.logFile, nil
	}
	path := filepath.Join(a.root, "logs", verb+"-"+time.Now().UTC().Format("20060102T150405Z")+".log")
	return path, a.addLogFile(path)
}

// openImage starts the display, opens the local store, and reads the image from it, pulled where it is not there.
func (a *app) openImage(cmd *cobra.Command, image string) (*store.Store, store.Tagged, *clusterimage.Image, error) {
	st, err := a.openWork(cmd)
	if err != nil {
		return nil, store.Tagged{}, nil, err
	}
	ctx := cmd.Context()
	tag, err := a.findOrPull(ctx, cmd, st, image)
	if err != nil {
		return nil, store.Tagged{}, nil, err
	}
	img, err := clusterimage.Read(ctx, st.Content(), tag.Descriptor)
	if err != nil {
		return nil, store.Tagged{}, nil, fmt.Errorf("reading image %q: %w", image, err)
	}
	return st, tag, img, nil
}

// findOrPull takes the image from the store, and from its registry where it is not there.
func (a *app) findOrPull(ctx context.Context, cmd *cobra.Command, st *store.Store, image string) (store.Tagged, error) {
	tag, err := st.Resolve(ctx, image)
	if _, ok := errors.AsType[*store.NotFoundError](err); !ok {
		return tag, err
	}
	if _, pullErr := a.pull(ctx, cmd, st, image, nil); pullErr != nil {
		return store.Tagged{}, fmt.Errorf("%w; pulling it: %w", err, pullErr)
	}
	return st.Resolve(ctx, image)
}

type deleteFlags struct {
	sshFlags
	clusterfile, name string
	env               []string
	all, yes, force   bool
	timeout           time.Duration
	dryRun            bool
}

func newDelete(a *app) *cobra.Command {
	var o deleteFlags
	cmd := &cobra.Command{
		Use:   "delete --all | --masters HOSTS | --nodes HOSTS",
		Short: "Take hosts out of a cluster, or a cluster off its hosts",
		Long: `delete with --masters and --nodes takes these hosts out of a cluster that goes on: their pods
leave, as their disruption budgets allow, the datastore gives up their member, the host is put
back as it was, and the cluster forgets it. Before each control plane it is made sure that a
majority stays. A host that cannot be reached is taken out with --force.

delete --all resets Kubernetes on every host of the cluster, workers first, and puts
the hosts back as they were. It knows the hosts from the run; --masters and --nodes, or a
Clusterfile, name them where that is gone. It can be repeated.`,
		Example: `  sealer delete --nodes 10.0.0.7
  sealer delete --masters 10.0.0.2 --force --yes
  sealer delete --all --yes
  sealer delete --all --yes -f Clusterfile
  sealer delete --all --yes --masters 10.0.0.1 --nodes 10.0.0.2`,
		Args: noArgs,
	}
	o.addTo(cmd, "go on where a host cannot be reached, and say which; delete pods that do not leave a node")
	f := cmd.Flags()
	f.BoolVarP(&o.all, "all", "a", false, "delete the whole cluster; --masters and --nodes are then all of its hosts")
	timeVar(f, &o.timeout, "timeout", kube.DefaultDrainTimeout, "how long pods may take to leave a node")
	f.BoolVar(&o.dryRun, "dry-run", false, "look at the hosts, print the plan and change nothing")
	f.Bool("prune", false, "as in older sealers; hosts are always cleaned as a whole")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return a.delete(cmd, o) }
	return cmd
}

// addTo declares what delete and reset have in common; force says what --force does.
func (o *deleteFlags) addTo(cmd *cobra.Command, force string) {
	f := cmd.Flags()
	f.StringVarP(&o.clusterfile, "Clusterfile", "f", "", "file that describes the cluster")
	f.StringVar(&o.name, "name", "", "name of the cluster (default "+clusterfile.DefaultName+")")
	f.BoolVarP(&o.yes, "yes", "y", false, "do not ask")
	f.BoolVar(&o.force, "force", false, force)
	o.add(cmd)
}

func (a *app) delete(cmd *cobra.Command, o deleteFlags) (err error) {
	if !o.all && (o.masters != "" || o.nodes != "") {
		return a.remove(cmd, o)
	}
	if !o.all {
		return usagef(cmd, "say what is to go: --masters and --nodes for hosts, --all for the whole cluster")
	}
	desired, err := o.known(a, cmd)
	if err != nil {
		return err
	}
	if !o.dryRun {
		if err := a.confirm(cmd, o.yes, desired); err != nil {
			return err
		}
	}
	logFile, err := a.openRunLog("delete")
	if err != nil {
		return err
	}
	if err := a.openDisplay(cmd); err != nil {
		return err
	}
	defer a.close(&err)
	return cluster.Delete(cmd.Context(), cluster.DeleteOptions{
		Clusterfile: desired,
		Operator:    a.operator(&o.sshFlags, logFile),
		Force:       o.force,
		DryRun:      o.dryRun,
	})
}

// known is the cluster as the flags, the Clusterfile or the run before say it is.
func (o *deleteFlags) known(a *app, cmd *cobra.Command) (*clusterfile.File, error) {
	fromFlags := runFlags{sshFlags: o.sshFlags, clusterfile: o.clusterfile, name: o.name, env: o.env}
	if o.clusterfile == "" && o.masters == "" && o.nodes == "" {
		name := o.name
		if name == "" {
			name = clusterfile.DefaultName
		}
		fromFlags.clusterfile = cluster.ClusterfilePath(filepath.Join(a.root, "clusters"), name)
		if _, err := os.Stat(fromFlags.clusterfile); err != nil {
			known, listErr := a.knownClusters()
			if listErr != nil {
				return nil, listErr
			}
			return nil, &unknownClusterError{name: name, known: known, err: err}
		}
	}
	file, err := fromFlags.desired(a, cmd)
	o.sshFlags = fromFlags.sshFlags
	if err != nil || len(file.Hosts) > 0 || o.clusterfile == "" {
		return file, err
	}
	// It says nothing of hosts: they are those that the run was given on its command line.
	path := cluster.ClusterfilePath(filepath.Join(a.root, "clusters"), file.Name)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return file, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading what is known of the cluster: %w", err)
	}
	made, err := clusterfile.Parse(path, data)
	if err != nil {
		return nil, err
	}
	file.Hosts = made.Hosts
	return file, nil
}

// unknownClusterError is for a cluster that this machine did not make, or has deleted.
type unknownClusterError struct {
	name  string
	known []string // others
	err   error
}

func (e *unknownClusterError) Error() string {
	return fmt.Sprintf("finding cluster %q: this machine knows no such cluster", e.name)
}
func (e *unknownClusterError) Unwrap() error { return e.err }
func (e *unknownClusterError) Hint() string {
	hint := "name its hosts with --masters and --nodes, or give its Clusterfile with -f"
	if len(e.known) > 0 {
		hint = "--name says which cluster is meant: this machine knows " + strings.Join(e.known, ", ") + "; or " + hint
	}
	return hint
}

// confirm asks on a terminal, and wants --yes elsewhere.
func (a *app) confirm(cmd *cobra.Command, yes bool, f *clusterfile.File) error {
	return a.confirmThat(cmd, yes, fmt.Sprintf("Delete cluster %q from %s? [y/N] ", f.Name, hostNames(f.Machines())))
}

func (a *app) confirmThat(cmd *cobra.Command, yes bool, question string) error {
	if yes {
		return nil
	}
	if !isTerminal(a.streams.In) {
		return usagef(cmd, "--yes is missing, and there is no terminal to ask on")
	}
	answer, err := a.ask(cmd, question)
	if err != nil {
		return err
	}
	if !slices.Contains([]string{"y", "yes"}, strings.ToLower(answer)) {
		return errors.New("nothing was deleted")
	}
	return nil
}

func hostNames(machines []clusterfile.Host) string {
	names := make([]string, 0, len(machines))
	for _, m := range machines {
		names = append(names, m.String())
	}
	return strings.Join(names, ", ")
}
