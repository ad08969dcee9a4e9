// SPDX-License-Identifier: Apache-2.0

// Command demo goes the whole way once on this machine: it builds a real
// Kubernetes into a ClusterImage, pushes it, pulls it into an empty store, runs
// it on two real hosts that reach no network, shows the cluster, and takes
// everything down again. It is what 'make demo' runs.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/sealerio/sealer/test/lab"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	keep := flag.Bool("keep", false, "leave the cluster running until Ctrl-C")
	flag.Parse()
	if err := run(ctx, *keep); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, keep bool) (err error) {
	began := time.Now()
	l, err := lab.Open(ctx, lab.Options{Hosts: 2, Name: "demo", Out: os.Stderr})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close(ctx)) }()

	const here, there = "operator", "site"
	if _, err := l.BuildBase(ctx, here); err != nil {
		return err
	}
	digest, err := l.BuildShop(ctx, here)
	if err != nil {
		return err
	}
	if _, err := l.Run(ctx, here, "push", l.ShopImage()); err != nil {
		return err
	}
	pulled, err := l.Run(ctx, there, "pull", l.ShopImage())
	if err != nil {
		return err
	}
	if pulled != digest {
		return fmt.Errorf("pulling gave %s, building %s", pulled, digest)
	}
	file, err := l.WriteClusterfile("demo")
	if err != nil {
		return err
	}
	if err := l.TrustHosts(there); err != nil {
		return err
	}
	if _, err := l.Run(ctx, there, l.RunArgs(file)...); err != nil {
		return err
	}
	if err := show(ctx, l, digest, began); err != nil {
		return err
	}
	if keep {
		l.Say("the cluster runs until Ctrl-C; kubectl is on %s (ssh -i %s root@%s)",
			l.Hosts.Hosts[0].Name, l.Hosts.KeyFile, l.Hosts.Hosts[0].Address)
		<-ctx.Done()
	}
	return nil
}

// show prints the result, on stdout.
func show(ctx context.Context, l *lab.Lab, digest string, began time.Time) error {
	if err := l.WaitForNodes(ctx, len(l.Hosts.Hosts), 3*time.Minute); err != nil {
		return err
	}
	answers, err := l.GetShop(ctx, 3*time.Minute)
	if err != nil {
		return err
	}
	nodes, err := l.Kubectl(ctx, "get", "nodes", "-o", "wide")
	if err != nil {
		return err
	}
	pods, err := l.Kubectl(ctx, "get", "pods", "-A", "-o", "wide")
	if err != nil {
		return err
	}
	fmt.Printf("\n%s@%s\n\n%s\n\n%s\n\n", l.ShopImage(), digest, nodes, pods)
	for i, answer := range answers {
		fmt.Printf("http://%s:30080/ answers: %s\n", l.Hosts.Hosts[i].Address, strings.Join(strings.Fields(answer), " "))
	}
	fmt.Printf("\nFrom the sources to this in %s.\n", time.Since(began).Round(time.Second))
	return nil
}
