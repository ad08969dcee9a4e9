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
	"github.com/sealerio/sealer/cluster/application"
	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/store"
)

func newApp(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "app",
		Short: "Look after the applications on a cluster",
		Long: `app lists, upgrades and deletes what application images have made on a cluster. They are put
there by sealer run of an application image; what runs is kept in the cluster itself.`,
		Example: `  sealer run registry.example.com/team/shop:v1
  sealer app list
  sealer app upgrade shop registry.example.com/team/shop:v2
  sealer app delete shop`,
		Args: noCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newAppList(a), newAppUpgrade(a), newAppDelete(a))
	return cmd
}

func newAppList(a *app) *cobra.Command {
	var o viewFlags
	var output string
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List the applications of a cluster, and how they are",
		Long: `list shows what application images have launched on a cluster, and what the cluster's own image
has launched: the image, since when, and whether all of it is ready, or why not.`,
		Example: `  sealer app list
  sealer app list --name shop -o json`,
		Args: noArgs,
	}
	o.addTo(cmd)
	addOutput(cmd, &output)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := o.onlyCluster(a, cmd); err != nil {
			return err
		}
		return a.view(cmd, &o, func(v *cluster.View) error {
			list, err := v.Applications(cmd.Context())
			if err != nil {
				return err
			}
			return a.print(cmd, output, list, func(t *table) {
				t.line("NAME", "IMAGE", "DIGEST", "SINCE", "STATE")
				for _, s := range list {
					digest := strings.TrimPrefix(s.Digest, "sha256:")
					state := "ready"
					if !s.Ready {
						state = "not ready: " + strings.Join(s.Why, "; ")
					}
					image := s.Image
					if s.Origin == application.OriginCluster {
						image += " (the cluster's)"
					}
					t.line(s.Name, image, digest[:min(len(digest), 12)], s.Since.Local().Format(time.DateTime), state)
				}
			})
		})
	}
	return cmd
}

// onlyCluster chooses the cluster of this machine where there is one and no other is named.
func (o *deleteFlags) onlyCluster(a *app, cmd *cobra.Command) (err error) {
	if o.name == "" && o.clusterfile == "" && o.masters == "" && o.nodes == "" {
		o.name, err = a.onlyCluster(cmd)
	}
	return err
}

// onlyCluster is the name of the only cluster that this machine knows, or else the default.
func (a *app) onlyCluster(cmd *cobra.Command) (string, error) {
	names, err := a.knownClusters()
	if err != nil {
		return "", err
	}
	switch len(names) {
	case 0:
		return clusterfile.DefaultName, nil
	case 1:
		return names[0], nil
	}
	return "", usagef(cmd, "--name is missing: this machine knows the clusters %s", strings.Join(names, ", "))
}

// knownClusters are the names of those that this machine knows.
func (a *app) knownClusters() ([]string, error) {
	dir := filepath.Join(a.root, "clusters")
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("looking for clusters: %w", err)
	}
	var names []string
	for _, e := range entries {
		if _, err := os.Stat(cluster.ClusterfilePath(dir, e.Name())); err == nil {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// applicationFlags are those of what runs an application image.
type applicationFlags struct {
	apps, cmds   []string
	as           string
	readyTimeout time.Duration
}

func (o *applicationFlags) addTo(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringSliceVar(&o.apps, "apps", nil, "start these applications of the image, in this order, in place of its LAUNCH")
	f.StringArrayVar(&o.cmds, "cmds", nil, "run this in place of the image's commands (repeatable)")
	timeVar(f, &o.readyTimeout, "ready-timeout", 5*time.Minute, "how long nodes, or each part of an application, may take to become ready")
}

// over puts --apps and --cmds over what a Clusterfile says.
func (o *applicationFlags) over(cmd *cobra.Command, file *clusterfile.File) {
	if cmd.Flags().Changed("apps") {
		file.Apps = append([]string{}, slices.DeleteFunc(slices.Clone(o.apps), func(name string) bool { return name == "" })...)
	}
	if cmd.Flags().Changed("cmds") {
		file.Cmd = append([]string{}, o.cmds...)
	}
}

// applicationRun is an application image on its way to a cluster.
type applicationRun struct {
	ssh      *sshFlags
	settings *clusterfile.File // what the user said; its hosts, where there are some, are the cluster's
	cluster  string            // name; empty: the only one
	name     string            // of the application; empty: the image's
	logFile  string
	dryRun   bool
	upgrade  bool
	timeout  time.Duration
}

func (a *app) runApplication(ctx context.Context, cmd *cobra.Command, o applicationRun, st *store.Store, tag store.Tagged, img *clusterimage.Image) error {
	file := o.settings
	if len(file.Hosts) == 0 {
		name := o.cluster
		if name == "" {
			var err error
			if name, err = a.onlyCluster(cmd); err != nil {
				return err
			}
		}
		path := cluster.ClusterfilePath(filepath.Join(a.root, "clusters"), name)
		src, err := os.ReadFile(path)
		if err != nil {
			return &noClusterError{image: tag.Name, unknownClusterError: unknownClusterError{name: name, err: err}}
		}
		if file, err = clusterfile.Parse(path, src); err != nil {
			return err
		}
	}
	return cluster.RunApplication(ctx, cluster.ApplicationOptions{
		RunOptions: cluster.RunOptions{
			Image:        img,
			ImageName:    tag.Name,
			Content:      st.Content(),
			Clusterfile:  file,
			Operator:     a.operator(o.ssh, o.logFile),
			Pusher:       &imagePusher{app: a, cmd: cmd, store: st},
			DryRun:       o.dryRun,
			ReadyTimeout: o.timeout,
		},
		Name: o.name, Settings: o.settings, Upgrade: o.upgrade,
	})
}

// noClusterError is an application image without a cluster to run on.
type noClusterError struct {
	image string
	unknownClusterError
}

func (e *noClusterError) Error() string {
	return fmt.Sprintf("the image %q holds applications and no cluster: %v", e.image, &e.unknownClusterError)
}

func (e *noClusterError) Hint() string {
	return "make the cluster first, with sealer run of a cluster's image; one that another machine made is named by --masters or -f"
}

// applicationImagesError is a run of a cluster whose Clusterfile names application images as well.
type applicationImagesError struct {
	file  string
	first clusterfile.ApplicationImage
}

func (e *applicationImagesError) Error() string {
	return fmt.Sprintf("%s: the application %q has an image of its own, %q: run starts one image alone", e.file, e.first.Name, e.first.Image)
}

func (e *applicationImagesError) Hint() string {
	return "sealer apply -f " + e.file + " makes the cluster, and runs its applications then"
}

// settings are what the flags and the file say of an application; the file need not have a Cluster.
func (o *runFlags) settings(a *app, cmd *cobra.Command) (*clusterfile.File, error) {
	return o.read(a, cmd, clusterfile.ParsePart)
}

func newAppUpgrade(a *app) *cobra.Command {
	var o runFlags
	cmd := &cobra.Command{
		Use:   "upgrade NAME IMAGE",
		Short: "Take an application to what another image of it holds",
		Long: `upgrade sends the control planes what they lack of the image, launches it over what is there,
waits for it part by part, and removes what only the image before had; volumes, namespaces
and kinds stay. What was said when it was run stays said: --env and -f go over it.

Where it fails, the hosts keep all of the image before: the same command goes on, and
upgrade to the image before goes back.`,
		Example: `  sealer app upgrade shop registry.example.com/team/shop:v2
  sealer app upgrade shop shop:v2 --env REPLICAS=3 --dry-run`,
		Args: exactArgs("NAME", "IMAGE"),
	}
	f := cmd.Flags()
	f.StringVarP(&o.clusterfile, "Clusterfile", "f", "", "file whose Cluster names the hosts, and whose Application changes the image's")
	f.StringVar(&o.name, "name", "", "name of the cluster (default: the only one)")
	f.StringArrayVarP(&o.env, "env", "e", nil, "value for the application's templates and commands (NAME=VALUE, repeatable)")
	f.BoolVar(&o.dryRun, "dry-run", false, "look at the hosts, print the plan and change nothing")
	o.addTo(cmd)
	o.add(cmd)
	a.addRegistryFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		settings, err := o.settings(a, cmd)
		if err != nil {
			return err
		}
		logFile, err := a.openRunLog("app-upgrade")
		if err != nil {
			return err
		}
		defer a.close(&err)
		st, tag, img, err := a.openImage(cmd, args[1])
		if err != nil {
			return err
		}
		return a.runApplication(cmd.Context(), cmd, applicationRun{
			ssh: &o.sshFlags, settings: settings, cluster: o.clusterName(settings), name: args[0], logFile: logFile, dryRun: o.dryRun,
			upgrade: true, timeout: o.readyTimeout,
		}, st, tag, img)
	}
	return cmd
}

// clusterName is the name that was given, by flag or in a file that has a Cluster; empty: none.
func (o *runFlags) clusterName(file *clusterfile.File) string {
	if o.name == "" && file.Name != clusterfile.DefaultName {
		return file.Name
	}
	return o.name
}

func newAppDelete(a *app) *cobra.Command {
	var o deleteFlags
	cmd := &cobra.Command{
		Use:     "delete NAME",
		Aliases: []string{"rm"},
		Short:   "Take an application off a cluster",
		Long: `delete uninstalls the charts of an application, deletes the objects that it has made, waits
until they are gone, and drops its content from the control planes where nothing else
needs it. What was in the cluster before it, or is of another application as well, stays.

It shows what goes, and asks. One that was cut is continued by the same command.`,
		Example: `  sealer app delete shop
  sealer app delete shop --dry-run
  sealer app delete shop --yes --name prod`,
		Args: exactArgs("NAME"),
	}
	f := cmd.Flags()
	f.StringVarP(&o.clusterfile, "Clusterfile", "f", "", "file that describes the cluster (default: what the run has kept)")
	f.StringVar(&o.name, "name", "", "name of the cluster (default: the only one)")
	f.BoolVarP(&o.yes, "yes", "y", false, "do not ask")
	f.BoolVar(&o.dryRun, "dry-run", false, "print the plan and change nothing")
	timeVar(f, &o.timeout, "timeout", 5*time.Minute, "how long objects may take to go")
	o.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		if err := o.onlyCluster(a, cmd); err != nil {
			return err
		}
		desired, err := o.known(a, cmd)
		if err != nil {
			return err
		}
		confirm, err := a.confirmPlan(cmd, o.yes || o.dryRun, fmt.Sprintf("Delete application %q from cluster %q? [y/N] ", args[0], desired.Name))
		if err != nil {
			return err
		}
		logFile, err := a.openRunLog("app-delete")
		if err != nil {
			return err
		}
		if err := a.openDisplay(cmd); err != nil {
			return err
		}
		defer a.close(&err)
		return cluster.DeleteApplication(cmd.Context(), cluster.DeleteApplicationOptions{
			Clusterfile: desired,
			Name:        args[0],
			Operator:    a.operator(&o.sshFlags, logFile),
			DryRun:      o.dryRun,
			Timeout:     o.timeout,
			Confirm:     confirm,
		})
	}
	return cmd
}
