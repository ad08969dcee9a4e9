// SPDX-License-Identifier: Apache-2.0

// Command hosts makes test hosts and leaves them up, for humans and for make targets.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"github.com/sealerio/sealer/test/hosts"
)

const usage = `Usage:
  hosts up [--name N] [--count N] [--default-route] [--ipv6] [--openrc] [--own-engine] [--dir DIR]   make hosts and leave them up
  hosts down [--name N] [--all]                                                  remove them
  hosts list [--name N] [--json]                                                 show them
  hosts exec [--name N] HOST ARG...                                              run a program on one, as root
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// errUsage is a mistake of the caller's that has been reported.
var errUsage = errors.New("wrong usage")

func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	commands := map[string]func(context.Context, *flag.FlagSet, []string) error{
		"up": func(ctx context.Context, f *flag.FlagSet, args []string) error {
			return up(ctx, f, args, stdout, stderr)
		},
		"down": down,
		"list": func(ctx context.Context, f *flag.FlagSet, args []string) error { return list(ctx, f, args, stdout) },
		"exec": func(ctx context.Context, f *flag.FlagSet, args []string) error {
			return execute(ctx, f, args, stdin, stdout, stderr)
		},
	}
	if len(args) == 0 || commands[args[0]] == nil {
		fmt.Fprint(stderr, usage)
		return 2
	}
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	flags.SetOutput(stderr)
	err := commands[args[0]](ctx, flags, args[1:])
	var exit *exec.ExitError
	var hint interface{ Hint() string }
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	case errors.Is(err, errUsage):
		fmt.Fprint(stderr, usage)
		return 2
	case ctx.Err() != nil:
		fmt.Fprintln(stderr, "error:", err)
		return 130
	}
	if args[0] == "exec" && errors.As(err, &exit) && exit.ExitCode() > 0 {
		return exit.ExitCode() // the program has said itself what is wrong
	}
	fmt.Fprintln(stderr, "error:", err)
	if errors.As(err, &hint) {
		fmt.Fprintln(stderr, "hint:", hint.Hint())
	}
	return 1
}

func parse(flags *flag.FlagSet, args []string, atLeast, atMost int) error {
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return errUsage
	}
	if flags.NArg() < atLeast || atMost >= 0 && flags.NArg() > atMost {
		return errUsage
	}
	return nil
}

func up(ctx context.Context, flags *flag.FlagSet, args []string, stdout, stderr io.Writer) error {
	o := hosts.Options{Detached: true, Log: slog.New(slog.NewTextHandler(stderr, nil))}
	flags.StringVar(&o.Name, "name", hosts.DefaultName, "name of the set")
	flags.IntVar(&o.Count, "count", 1, "number of hosts")
	flags.StringVar(&o.Dir, "dir", "", "cache folder")
	flags.BoolVar(&o.DefaultRoute, "default-route", false, "give the hosts a default route that leads nowhere")
	flags.BoolVar(&o.IPv6, "ipv6", false, "give the hosts addresses of IPv6, too")
	flags.BoolVar(&o.OpenRC, "openrc", false, "make hosts that boot with OpenRC and have no systemd")
	flags.BoolVar(&o.OwnEngine, "own-engine", false, "start an engine even where one answers")
	if err := parse(flags, args, 0, 0); err != nil {
		return err
	}
	set, err := hosts.Up(ctx, o)
	if err != nil {
		return err
	}
	return show(stdout, set)
}

func down(ctx context.Context, flags *flag.FlagSet, args []string) error {
	name := flags.String("name", hosts.DefaultName, "name of the set")
	all := flags.Bool("all", false, "remove every set on this machine that no living process uses")
	if err := parse(flags, args, 0, 0); err != nil {
		return err
	}
	if !*all {
		return hosts.Clean(ctx, *name)
	}
	names, err := hosts.Names()
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		errs = append(errs, hosts.Clean(ctx, name))
	}
	return errors.Join(errs...)
}

func list(ctx context.Context, flags *flag.FlagSet, args []string, stdout io.Writer) error {
	name := flags.String("name", hosts.DefaultName, "name of the set")
	asJSON := flags.Bool("json", false, "show everything, for programs")
	if err := parse(flags, args, 0, 0); err != nil {
		return err
	}
	set, err := hosts.Open(ctx, *name)
	if err != nil {
		return err
	}
	if *asJSON {
		out := json.NewEncoder(stdout)
		out.SetIndent("", "  ")
		return out.Encode(set)
	}
	return show(stdout, set)
}

func execute(ctx context.Context, flags *flag.FlagSet, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	name := flags.String("name", hosts.DefaultName, "name of the set")
	if err := parse(flags, args, 2, -1); err != nil {
		return err
	}
	set, err := hosts.Open(ctx, *name)
	if err != nil {
		return err
	}
	for _, h := range set.Hosts {
		if h.Name == flags.Arg(0) {
			return h.Pipe(ctx, stdin, stdout, stderr, flags.Args()[1:]...)
		}
	}
	return fmt.Errorf("running a program on %s: there is no such host in %q", flags.Arg(0), *name)
}

func show(w io.Writer, set *hosts.Set) error {
	for _, h := range set.Hosts {
		if _, err := fmt.Fprintf(w, "%s\t%s\n", h.Name, h.Address); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(w, "ssh -i %s -o UserKnownHostsFile=%s root@%s  # password %s; or %s, who may sudo\n",
		set.KeyFile, set.KnownHosts, set.Hosts[0].Address, set.Password, set.SudoUser)
	return err
}
