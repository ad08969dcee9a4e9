// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sealerio/sealer/internal/progress"
	"github.com/sealerio/sealer/internal/version"
)

// newRoot builds the command tree.
func newRoot(s Streams) *cobra.Command {
	a := &app{streams: s}
	root := &cobra.Command{
		Use:   "sealer",
		Short: "Pack a Kubernetes cluster into one OCI image and run it anywhere",
		Long: `sealer builds a whole Kubernetes cluster, with every container image it needs,
into one OCI image (a ClusterImage), ships it through any registry, and installs
it on bare hosts that reach no network.`,
		Example: `  sealer build -t registry.example.com/team/shop:v1 .
  sealer push registry.example.com/team/shop:v1
  sealer run registry.example.com/team/shop:v1 --masters 10.0.0.1 --nodes 10.0.0.2,10.0.0.3`,
		Version:           version.Version(),
		SilenceErrors:     true,
		SilenceUsage:      true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return a.open(cmd) },
		Args:              noCommand,
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetIn(s.In)
	root.SetOut(s.Out)
	root.SetErr(s.Err)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return usagef(cmd, "%w", err) })
	root.SetVersionTemplate("{{.Version}}\n")
	root.CompletionOptions.HiddenDefaultCmd = false

	f := root.PersistentFlags()
	f.StringVar(&a.root, "root", "", "folder for everything sealer keeps (env SEALER_ROOT; default "+defaultRootText+")")
	f.StringVar(&a.configFile, "config", "", "configuration file (env SEALER_CONFIG; default "+defaultConfigText+")")
	f.StringVar(&a.progressMode, "progress", string(progress.Auto), "how progress is shown: "+strings.Join(progress.Modes(), ", "))
	f.StringVar(&a.logLevel, "log-level", "warn", "what is logged on stderr: debug, info, warn, error")
	f.StringVar(&a.logFile, "log-file", "", "also log everything, as JSON lines, to this file")
	mustComplete(root, "progress", progress.Modes())
	mustComplete(root, "log-level", []string{"debug", "info", "warn", "error"})

	root.AddGroup(
		&cobra.Group{ID: "build", Title: "Build and ship:"},
		&cobra.Group{ID: "images", Title: "Local images:"},
		&cobra.Group{ID: "cluster", Title: "Clusters:"},
	)
	root.AddCommand(grouped("cluster", newUpgrade(a), newRollback(a), newEtcd(a))...)
	root.AddCommand(
		grouped("build", newNew(a), newBuild(a), newPush(a), newPull(a), newLogin(a), newLogout(a))...)
	root.AddCommand(grouped("build", newSign(a), newVerify(a))...)
	root.AddCommand(grouped("images", newTree(a), newWhy(a), newDiff(a), newMount(a), newUmount(a))...)
	root.AddCommand(grouped("build", newSearch(a))...)
	root.AddCommand(grouped("build", newLint(a), newFmt(a))...)
	root.AddCommand(grouped("build", newLock(a))...)
	root.AddCommand(
		grouped("build", newCopy(a), newSave(a), newLoad(a), newManifest(a), newMerge(a))...)
	root.AddCommand(grouped("build", newBuilder(a))...)
	root.AddCommand(
		grouped("images", newImages(a), newInspect(a), newTag(a), newRmi(a), newPrune(a))...)
	root.AddCommand(
		grouped("cluster", newRun(a), newApply(a), newJoin(a), newDelete(a))...)
	root.AddCommand(grouped("cluster", newGen(a), newSchema(a))...)
	root.AddCommand(grouped("cluster", newStatus(a), newLogs(a), newExec(a), newCp(a), newKubeconfig(a), newCert(a), newCheck(a), newReset(a))...)
	root.AddCommand(grouped("cluster", newApp(a), newBundleLogs(a))...)
	root.AddCommand(newVersion(a))
	return root
}

func grouped(id string, commands ...*cobra.Command) []*cobra.Command {
	for _, c := range commands {
		c.GroupID = id
	}
	return commands
}

// noCommand says which command was meant, where a word is none.
func noCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	cmd.SuggestionsMinimumDistance = 2
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		return usagef(cmd, "unknown command %q (did you mean %s?)", args[0], strings.Join(near, " or "))
	}
	return usagef(cmd, "unknown command %q", args[0])
}

// mustComplete gives a flag its values for shell completion. It fails only for
// a flag that does not exist, which is a mistake in this package.
func mustComplete(cmd *cobra.Command, flag string, values []string) {
	if err := cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(fmt.Errorf("completing --%s: %w", flag, err))
	}
}

func newVersion(a *app) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Print sealer's version",
		Example: "  sealer version\n  sealer version -o json",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.print(cmd, output, struct {
				Version string `json:"version"`
			}{version.Version()}, func(t *table) { t.line(version.Version()) })
		},
	}
	addOutput(cmd, &output)
	return cmd
}
