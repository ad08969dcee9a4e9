// SPDX-License-Identifier: Apache-2.0

// Package k3s is the front of the double that behaves as k3s does.
package k3s

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/sealerio/sealer/test/components/programs/doubles/facts"
	"github.com/sealerio/sealer/test/components/programs/doubles/journal"
	"github.com/sealerio/sealer/test/components/programs/doubles/kubectl"
	"github.com/sealerio/sealer/test/components/programs/doubles/stamp"
)

// program is what all commands of one invocation share.
type program struct {
	stamp   stamp.Stamp
	facts   facts.K3s
	journal *journal.Journal
	log     *slog.Logger
	out     io.Writer
}

// Run runs a command line, with the program's name first, and returns its exit code.
func Run(ctx context.Context, s stamp.Stamp, args []string, out, messages io.Writer) int {
	known, err := facts.LoadK3s()
	if err != nil {
		fmt.Fprintln(messages, err)
		return 1
	}
	p := &program{stamp: s, facts: known, journal: journal.New(s), log: slog.New(slog.NewTextHandler(messages, nil)), out: out}
	p.journal.Run(args[1:], "K3S_", "INSTALL_K3S_", "CONTAINERD_")
	if name := filepath.Base(args[0]); slices.Contains([]string{"kubectl", "crictl", "ctr"}, name) {
		args = append([]string{"k3s", name}, args[1:]...) // called by a link
	}
	app := p.app()
	app.Writer, app.ErrWriter = out, messages
	if err := app.RunContext(ctx, args); err != nil && !errors.Is(err, context.Canceled) {
		p.journal.Add(journal.Entry{Event: "fatal", Text: err.Error()})
		fmt.Fprintf(messages, "time=%q level=fatal msg=%q\n", time.Now().UTC().Format(time.RFC3339), err.Error())
		return 1
	}
	return 0
}

func (p *program) app() *cli.App {
	app := cli.NewApp()
	app.Name, app.Usage = "k3s", "Kubernetes, but small and simple"
	app.Version = p.stamp.Version + " (double)"
	app.DisableSliceFlagSeparator = true
	app.ExitErrHandler = func(*cli.Context, error) {}
	cli.VersionPrinter = func(c *cli.Context) {
		fmt.Fprintf(c.App.Writer, "k3s version %s\ngo version go1.26.8\n", c.App.Version)
	}
	app.OnUsageError = usage
	plain := func(name string, run func(args []string) error) *cli.Command {
		return &cli.Command{Name: name, SkipFlagParsing: true, Action: func(c *cli.Context) error { return run(c.Args().Slice()) }}
	}
	app.Action = func(c *cli.Context) error {
		if c.Args().Present() {
			return fmt.Errorf("No help topic for '%s'", c.Args().First()) //nolint:revive // the real one's words
		}
		return cli.ShowAppHelp(c)
	}
	app.Commands = []*cli.Command{
		{Name: "server", Usage: "Run management server", Flags: flagsOf(p.facts.Of("server", p.stamp)), OnUsageError: usage, Action: p.server},
		{Name: "agent", Usage: "Run node agent", Flags: flagsOf(p.facts.Of("agent", p.stamp)), OnUsageError: usage, Action: p.agent},
		plain("kubectl", func(args []string) error { return kubectl.Run(args, kubeconfigPath) }),
		plain("crictl", p.crictl),
		plain("ctr", p.ctr),
		plain("check-config", func([]string) error { _, err := fmt.Fprintln(p.out, "STATUS: pass"); return err }),
		{Name: "token", Subcommands: p.subcommands("token", map[string]cli.ActionFunc{
			"create": p.tokenCreate, "list": p.tokenList, "delete": p.tokenDelete, "generate": p.tokenGenerate})},
		{Name: "etcd-snapshot", Subcommands: p.subcommands("etcd-snapshot", map[string]cli.ActionFunc{
			"save": p.snapshotSave, "ls": p.snapshotList, "delete": p.snapshotDelete})},
		{Name: "certificate", Subcommands: p.subcommands("certificate", map[string]cli.ActionFunc{
			"check": p.certificateCheck, "rotate": p.certificateRotate})},
		{Name: "secrets-encrypt", Subcommands: p.subcommands("secrets-encrypt", nil)},
		plain("completion", func([]string) error { return nil }),
	}
	return app
}

// subcommands have the flags that the facts list. One that is not modelled takes them and then says so.
func (p *program) subcommands(of string, actions map[string]cli.ActionFunc) []*cli.Command {
	var out []*cli.Command
	for name, flags := range p.facts.Subcommands {
		if len(name) <= len(of) || name[:len(of)+1] != of+" " {
			continue
		}
		c := &cli.Command{Name: name[len(of)+1:], Flags: flagsOf(flags), OnUsageError: usage, Action: actions[name[len(of)+1:]]}
		if c.Name == "ls" {
			c.Aliases = []string{"list", "l"}
		}
		if c.Action == nil {
			c.Action = func(*cli.Context) error { return fmt.Errorf("the double does not model k3s %s", name) }
		}
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b *cli.Command) int { return len(a.Name) - len(b.Name) })
	return out
}

// usage is how the real one says that it does not know a flag.
func usage(c *cli.Context, err error, _ bool) error {
	fmt.Fprintf(c.App.ErrWriter, "Incorrect Usage: %s\n\n", err)
	return err
}

// flagsOf makes the parser's flags out of the facts. Defaults are not given to the parser: whether a flag was set by
// the configuration file is seen only later.
func flagsOf(list []facts.Flag) []cli.Flag {
	var out []cli.Flag
	for _, f := range list {
		var env []string
		if f.Env != "" {
			env = []string{f.Env}
		}
		switch f.Type {
		case "bool":
			out = append(out, &cli.BoolFlag{Name: f.Name, Aliases: f.Aliases, EnvVars: env})
		case "int":
			out = append(out, &cli.IntFlag{Name: f.Name, Aliases: f.Aliases, EnvVars: env})
		case "duration":
			out = append(out, &cli.DurationFlag{Name: f.Name, Aliases: f.Aliases, EnvVars: env})
		case "stringSlice":
			out = append(out, &cli.StringSliceFlag{Name: f.Name, Aliases: f.Aliases, EnvVars: env})
		default:
			out = append(out, &cli.StringFlag{Name: f.Name, Aliases: f.Aliases, EnvVars: env})
		}
	}
	return out
}

// exists tells whether there is anything at a path.
func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
