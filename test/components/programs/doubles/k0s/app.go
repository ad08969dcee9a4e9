// SPDX-License-Identifier: Apache-2.0

// Package k0s is the front of the double that behaves as k0s does.
package k0s

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sealerio/sealer/test/components/programs/doubles/facts"
	"github.com/sealerio/sealer/test/components/programs/doubles/journal"
	"github.com/sealerio/sealer/test/components/programs/doubles/kubectl"
	"github.com/sealerio/sealer/test/components/programs/doubles/stamp"
)

// program is what all commands of one invocation share.
type program struct {
	stamp   stamp.Stamp
	facts   facts.K0s
	journal *journal.Journal
	log     *slog.Logger
	out     io.Writer
}

// Run runs a command line, with the program's name first, and returns its exit code.
func Run(ctx context.Context, s stamp.Stamp, args []string, out, messages io.Writer) int {
	known, err := facts.LoadK0s()
	if err != nil {
		fmt.Fprintln(messages, err)
		return 1
	}
	p := &program{stamp: s, facts: known, journal: journal.New(s), log: slog.New(slog.NewTextHandler(messages, nil)), out: out}
	p.journal.Run(args[1:], "K0S_")
	root := p.root()
	root.SetOut(out)
	root.SetErr(messages)
	root.SetArgs(args[1:])
	if err := root.ExecuteContext(ctx); err != nil && !errors.Is(err, context.Canceled) {
		p.journal.Add(journal.Entry{Event: "fatal", Text: err.Error()})
		fmt.Fprintln(messages, "Error:", err)
		return 1
	}
	return 0
}

type action func(cmd *cobra.Command, args []string) error

func (p *program) actions() map[string]action {
	return map[string]action{
		"controller": p.controller, "worker": p.worker, "install controller": p.installController, "install worker": p.installWorker,
		"start": p.start, "stop": p.stop, "status": p.status, "reset": p.reset, "token create": p.tokenCreate, "token list": p.tokenList,
		"token invalidate": p.tokenInvalidate, "etcd leave": p.etcdLeave, "etcd member-list": p.etcdMembers, "airgap list-images": p.airgapImages,
		"config create": p.configCreate, "config validate": p.configValidate, "kubeconfig admin": p.kubeconfigAdmin, "sysinfo": p.sysinfo,
		"backup": p.backup, "restore": p.restore, "version": p.version,
	}
}

// root makes the commands and flags that the facts list for the version.
func (p *program) root() *cobra.Command {
	root := &cobra.Command{Use: "k0s", Short: "k0s - Zero Friction Kubernetes", SilenceErrors: true, SilenceUsage: true}
	root.CompletionOptions.HiddenDefaultCmd = true
	made := map[string]*cobra.Command{"": root}
	actions := p.actions()
	for _, full := range slices.Sorted(maps.Keys(p.facts.Commands)) {
		c := p.facts.Commands[full]
		if !p.stamp.AtLeast(c.Since) {
			continue
		}
		var words []string
		for _, w := range strings.Fields(full)[1:] {
			if strings.ContainsAny(w, "[.") || w == "username" || w == "filename" {
				break
			}
			words = append(words, w)
		}
		for i := range words {
			path := strings.Join(words[:i+1], " ")
			if made[path] == nil {
				made[path] = &cobra.Command{Use: words[i], Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
				made[strings.Join(words[:i], " ")].AddCommand(made[path])
			}
		}
		p.fill(made[strings.Join(words, " ")], strings.Join(words, " "), c, actions)
	}
	return root
}

func (p *program) fill(cmd *cobra.Command, path string, c facts.Command, actions map[string]action) {
	cmd.Aliases = c.Aliases
	if path == "kubectl" || path == "ctr" {
		cmd.DisableFlagParsing = true
		cmd.Args = cobra.ArbitraryArgs
		cmd.RunE = func(_ *cobra.Command, args []string) error {
			if path == "ctr" {
				return p.ctr(args)
			}
			return kubectl.Run(args, "/var/lib/k0s/pki/admin.conf")
		}
		return
	}
	switch c.Args {
	case "none":
		cmd.Args = cobra.NoArgs
	case "max 1":
		cmd.Args = cobra.MaximumNArgs(1)
	case "min 1":
		cmd.Args = cobra.MinimumNArgs(1)
	case "exactly 1":
		cmd.Args = cobra.ExactArgs(1)
	}
	for _, f := range c.Flags {
		if p.stamp.AtLeast(f.Since) {
			addFlag(cmd.Flags(), f)
		}
	}
	do := actions[path]
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if do == nil {
			return fmt.Errorf("the double does not model k0s %s", path)
		}
		return do(cmd, args)
	}
}

func addFlag(flags *pflag.FlagSet, f facts.Flag) {
	switch f.Type {
	case "bool":
		flags.BoolP(f.Name, f.Short, f.Default == "true", "")
	case "int", "uint":
		flags.IntP(f.Name, f.Short, 0, "")
	case "duration":
		flags.DurationP(f.Name, f.Short, 0, "")
	case "stringSlice":
		flags.StringSliceP(f.Name, f.Short, nil, "")
	case "stringArray":
		flags.StringArrayP(f.Name, f.Short, nil, "")
	case "mapStringString", "stringToString", "mapStringBool":
		flags.StringToStringP(f.Name, f.Short, nil, "")
	default:
		flags.StringP(f.Name, f.Short, f.Default, "")
	}
	if f.Hidden {
		_ = flags.MarkHidden(f.Name)
	}
}

// text of a string flag; empty where the command has none of the name.
func text(cmd *cobra.Command, name string) string {
	v, _ := cmd.Flags().GetString(name)
	return v
}

func yes(cmd *cobra.Command, name string) bool {
	v, _ := cmd.Flags().GetBool(name)
	return v
}

// folders of a data directory.
type folders struct{ data string }

func dataOf(cmd *cobra.Command) folders {
	if d := text(cmd, "data-dir"); d != "" {
		return folders{d}
	}
	return folders{"/var/lib/k0s"}
}

func (f folders) at(parts ...string) string {
	return filepath.Join(append([]string{f.data}, parts...)...)
}
func (f folders) pki(name string) string { return f.at("pki", name) }
func (f folders) etcd() string           { return f.at("etcd") }

// runFolder holds the socket and the configuration of the running program.
const runFolder = "/run/k0s"

func statusSocket(cmd *cobra.Command) string {
	if s := text(cmd, "status-socket"); s != "" {
		return s
	}
	return runFolder + "/status.sock"
}
