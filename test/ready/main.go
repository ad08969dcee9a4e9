// SPDX-License-Identifier: Apache-2.0

// Command ready measures how long a cluster of two hosts takes from bare to all nodes Ready: made by sealer, and by a
// hand-written script of ssh and kubeadm, in turn, on new hosts, of the same programs and images. It is what
// 'make bench-ready' runs.
package main

import (
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/sealerio/sealer/test/hosts"
	"github.com/sealerio/sealer/test/lab"
)

//go:embed script.sh
var script string

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	pairs := flag.Int("pairs", 3, "how often each is measured")
	steps := flag.Bool("steps", false, "print the steps of sealer's runs")
	keep := flag.Bool("keep", false, "leave the last cluster, which is sealer's, running until Ctrl-C")
	flag.Parse()
	if err := measure(ctx, *pairs, *steps, *keep); err != nil {
		fmt.Fprintln(os.Stderr, "ready:", err)
		os.Exit(1)
	}
}

// took is what one run has used: until the last node was Ready, in whole seconds since the cluster counts in those, until its end, and of
// the processors.
type took struct{ ready, wall, cpu time.Duration }

const root = "ready"

func measure(ctx context.Context, pairs int, steps, keep bool) (err error) {
	name := os.Getenv("SEALER_LAB")
	if name == "" {
		name = "ready"
	}
	l, err := lab.Open(ctx, lab.Options{Name: name, Out: os.Stderr})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close(ctx)) }()
	if _, err := l.BuildBase(ctx, root); err != nil {
		return err
	}
	if _, err := l.BuildShop(ctx, root); err != nil {
		return err
	}
	in := filepath.Join(l.Dir, "script")
	if err := writeInputs(l, in); err != nil {
		return err
	}
	var byScript, bySealer []took
	for i := range 2 * pairs {
		make, list := runScript, &byScript
		if i%2 == 1 {
			make, list = runSealer, &bySealer
		}
		t, err := onNewHosts(ctx, l, name, in, make, keep && i == 2*pairs-1)
		if err != nil {
			return err
		}
		*list = append(*list, t)
		what := []string{"script", "sealer"}[i%2]
		fmt.Printf("%-6s  Ready %3.0f s  ended %6.1f s  %6.1f CPU s\n", what, t.ready.Seconds(), t.wall.Seconds(), t.cpu.Seconds())
		if steps && i%2 == 1 {
			out, err := l.Run(ctx, root, "logs", "--name", root)
			if err != nil {
				return err
			}
			fmt.Println(out)
		}
		if err := os.RemoveAll(filepath.Join(l.Dir, root, "clusters")); err != nil {
			return err
		}
	}
	for _, f := range []struct {
		name string
		of   func(took) time.Duration
	}{
		{"Ready", func(t took) time.Duration { return t.ready }},
		{"ended", func(t took) time.Duration { return t.wall }},
		{"CPU", func(t took) time.Duration { return t.cpu }},
	} {
		s, o := median(byScript, f.of).Seconds(), median(bySealer, f.of).Seconds()
		fmt.Printf("median  %-5s  script %.1f s, sealer %.1f s: × %.2f\n", f.name, s, o, o/s)
	}
	return nil
}

func median(list []took, of func(took) time.Duration) time.Duration {
	var all []time.Duration
	for _, t := range list {
		all = append(all, of(t))
	}
	slices.Sort(all)
	return all[len(all)/2]
}

// onNewHosts makes a cluster on hosts that nobody has used.
func onNewHosts(ctx context.Context, l *lab.Lab, name, in string, make func(context.Context, *lab.Lab, string) *exec.Cmd, keep bool) (t took, err error) {
	set, err := hosts.Up(ctx, hosts.Options{Name: name, Count: 2, DefaultRoute: true, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		return t, err
	}
	l.Hosts = set
	defer func() {
		l.Hosts = nil
		err = errors.Join(err, set.Down(context.WithoutCancel(ctx)))
	}()
	if err := l.TrustHosts(root); err != nil {
		return t, err
	}
	cmd := make(ctx, l, in)
	cmd.Stderr = os.Stderr
	before, began := hostsCPU(name), time.Now()
	if err := cmd.Run(); err != nil {
		return t, fmt.Errorf("making the cluster by %s: %w", filepath.Base(cmd.Path), err)
	}
	t.wall = time.Since(began)
	t.cpu = hostsCPU(name) - before + cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	ready, err := l.ReadyNodes(ctx)
	if err == nil && len(ready) != 2 {
		err = fmt.Errorf("%d of 2 nodes are Ready", len(ready))
	}
	if err == nil {
		t.ready, err = readySince(ctx, l, began)
	}
	if err == nil && keep {
		l.Say("the cluster runs until Ctrl-C: ssh -i %s root@%s; SEALER_ROOT=%s", set.KeyFile, set.Hosts[0].Address, filepath.Join(l.Dir, root))
		<-ctx.Done()
	}
	return t, err
}

// readySince is when the last node became Ready.
func readySince(ctx context.Context, l *lab.Lab, began time.Time) (time.Duration, error) {
	out, err := l.Kubectl(ctx, "get", "nodes", "-o", `jsonpath={.items[*].status.conditions[?(@.type=="Ready")].lastTransitionTime}`)
	if err != nil {
		return 0, err
	}
	var last time.Duration
	for text := range strings.FieldsSeq(out) {
		at, err := time.Parse(time.RFC3339, text)
		if err != nil {
			return 0, fmt.Errorf("reading when a node became Ready: %w", err)
		}
		last = max(last, at.Sub(began.Truncate(time.Second)))
	}
	return last, nil
}

func runScript(ctx context.Context, l *lab.Lab, in string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "sh", "-c", script)
	cmd.Env = append(os.Environ(), "IN="+in, "KEY="+l.Hosts.KeyFile, "KNOWN="+l.Hosts.KnownHosts,
		"CONTROL="+l.Hosts.Hosts[0].Address.String(), "WORKER="+l.Hosts.Hosts[1].Address.String())
	return cmd
}

func runSealer(ctx context.Context, l *lab.Lab, in string) *exec.Cmd {
	return l.Command(ctx, root, append(l.RunArgs(filepath.Join(in, "Clusterfile")), "--progress", "none")...)
}

// hostsCPU is what all hosts of a set have used, 0 where their control groups do not tell.
func hostsCPU(name string) time.Duration {
	for _, file := range []string{"/sys/fs/cgroup/cpuacct/sealer-hosts-" + name + "/cpuacct.usage"} {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		if n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil {
			return time.Duration(n)
		}
	}
	return 0
}
