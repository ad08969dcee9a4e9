// SPDX-License-Identifier: Apache-2.0

// Command sealer-fetch is wget and curl of the build's toolbox: the options that RUN lines use, certificates that are
// checked, downloads that are whole or fail. It acts as the program that its name, or its first argument, says.
//
// It differs from both on purpose: a status that says "error" always is one, a redirect is never taken for the file,
// and a broken connection is tried again from where it broke.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	_ "golang.org/x/crypto/x509roots/fallback" // used where the root file system has no certificates
)

// Exit codes, as curl gives them where the two programs differ.
const (
	exitFailed = 1
	exitUsage  = 2
	exitStatus = 22
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string) int {
	name := filepath.Base(args[0])
	args = args[1:]
	if name != "wget" && name != "curl" && len(args) > 0 {
		name, args = args[0], args[1:]
	}
	var (
		jobs []job
		err  error
	)
	switch name {
	case "wget":
		jobs, err = parseWget(args)
	case "curl":
		jobs, err = parseCurl(args)
	default:
		err = &usageError{"name wget or curl as the first argument"}
	}
	if err == nil && len(jobs) == 0 {
		err = &usageError{"no URL"}
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		return exitUsage
	}
	for _, j := range jobs {
		if err := j.run(ctx); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
			var status *statusError
			if errors.As(err, &status) && name == "curl" {
				return exitStatus
			}
			return exitFailed
		}
	}
	return 0
}

type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

// option is one option of a command line.
type option struct {
	value bool // takes a value
	set   func(value string) error
}

// parse splits args as getopt_long does: -abc, -ovalue, -o value, --name=value, --name value, -- ends the options.
func parse(args []string, options map[string]option) (words []string, err error) {
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		switch {
		case arg == "--":
			return append(words, args...), nil
		case strings.HasPrefix(arg, "--"):
			name, value, given := strings.Cut(arg, "=")
			if args, err = apply(name, value, given, args, options); err != nil {
				return nil, err
			}
		case len(arg) > 1 && arg[0] == '-':
			rest := arg[1:]
			for rest != "" {
				name := "-" + rest[:1]
				rest = rest[1:]
				if name == "-n" && rest != "" { // wget's -nv, -nc, -nd
					name, rest = "-n"+rest[:1], rest[1:]
				}
				value := ""
				if options[name].value {
					value, rest = rest, ""
				}
				if args, err = apply(name, value, value != "", args, options); err != nil {
					return nil, err
				}
			}
		default:
			words = append(words, arg)
		}
	}
	return words, nil
}

func apply(name, value string, given bool, args []string, options map[string]option) ([]string, error) {
	o, ok := options[name]
	switch {
	case !ok:
		return nil, &usageError{"option " + name + " is not known here: use --toolbox IMAGE for a build that needs it"}
	case !o.value && given:
		return nil, &usageError{"option " + name + " takes no value"}
	case o.value && !given && len(args) == 0:
		return nil, &usageError{"option " + name + " needs a value"}
	case o.value && !given:
		value, args = args[0], args[1:]
	}
	if err := o.set(value); err != nil {
		return nil, &usageError{fmt.Sprintf("option %s: %v", name, err)}
	}
	return args, nil
}
