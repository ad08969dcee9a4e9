// SPDX-License-Identifier: Apache-2.0

// Command podnet is the smallest pod network that is a real one. On every node it routes the pod networks of the
// other nodes, hides pods behind the node's address when they speak to anyone outside, and writes the configuration
// that the container runtime gives to the CNI plugins. Nodes have to share a link: nothing is encapsulated.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

const (
	configFolder = "/etc/cni/net.d"
	resync       = 30 * time.Second // repairs what somebody else has undone on the host
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if len(os.Args) > 1 && os.Args[1] == "--version" {
		fmt.Println("podnet of sealer's test components")
		return
	}
	if err := run(ctx, log, os.Getenv("NODE_NAME")); err != nil {
		log.Error("stopping", "error", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, log *slog.Logger, node string) error {
	if node == "" {
		return errors.New("NODE_NAME is not set: it has to name the node that this runs on")
	}
	config, err := rest.InClusterConfig()
	if err != nil {
		return fmt.Errorf("finding the cluster: %w", err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("making a client for the cluster: %w", err)
	}
	factory := informers.NewSharedInformerFactory(client, resync)
	a, err := newAgent(log, node, factory.Core().V1().Nodes())
	if err != nil {
		return err
	}
	factory.Start(ctx.Done())
	err = a.run(ctx)
	factory.Shutdown()
	return err
}
