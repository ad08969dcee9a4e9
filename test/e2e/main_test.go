//go:build e2e

// SPDX-License-Identifier: Apache-2.0

// Package e2e runs the built sealer against real hosts, a real registry and a
// real Kubernetes, as its users do. It needs root; make e2e installs the rest.
package e2e

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/test/lab"
)

// shared is the lab of all tests: one registry, two hosts. Tests that make a
// cluster delete it, and so test that, too.
var shared *lab.Lab

// five is shared with five hosts of its own; see fiveHosts.
var five *lab.Lab

// labName tells two runs on one machine apart.
func labName() string {
	if name := os.Getenv("SEALER_LAB"); name != "" {
		return name
	}
	return "lab"
}

func TestMain(m *testing.M) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	var err error
	shared, err = lab.Open(ctx, lab.Options{Hosts: 2, Name: labName(), Out: os.Stderr})
	if err != nil {
		fmt.Fprintln(os.Stderr, "setting up the end-to-end tests:", err)
		os.Exit(1)
	}
	code := m.Run()
	if five != nil {
		if err := five.Close(ctx); err != nil {
			fmt.Fprintln(os.Stderr, "taking the suite's hosts down:", err)
			code = 1
		}
	}
	if err := shared.Close(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "taking the end-to-end tests down:", err)
		code = 1
	}
	os.Exit(code)
}

// dropAfter removes what sealer and the test have put into folders of the lab when the test ends: all tests' together
// would fill a small disk.
func dropAfter(t *testing.T, roots ...string) {
	t.Helper()
	t.Cleanup(func() {
		for _, root := range roots {
			require.NoError(t, os.RemoveAll(filepath.Join(shared.Dir, root)))
		}
	})
}

// sealer runs sealer in the lab and returns its stdout.
func sealer(t *testing.T, root string, args ...string) string {
	t.Helper()
	out, err := shared.Run(t.Context(), root, args...)
	require.NoError(t, err)
	return out
}
