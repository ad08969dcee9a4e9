// SPDX-License-Identifier: Apache-2.0

package k0s

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/runtime"
)

// ignoreSince is the first minor version that knows --ignore-pre-flight-checks.
const ignoreSince = 33

// gateIPv6 is wanted by k0s where there is no IPv4 at all (docs.k0sproject.io/stable/single-stack-ipv6), since ipv6Since.
const (
	gateIPv6  = "--feature-gates=IPv6SingleStack=true"
	ipv6Since = 34
)

const tokenFlag = "--token-file=" + tokenFile

// installFlags are what k0s install gets; it writes them into the unit as they are here. joins: the host becomes part of a
// cluster that is there.
func installFlags(c *runtime.Cluster, h *runtime.Host, joins bool) []string {
	var flags []string
	if isController(h) {
		// Every host of a cluster is a node. Without workers, the control planes run the workload.
		flags = append(flags, "--config="+configFile, "--enable-worker=true")
		if len(c.Workers()) == 0 {
			flags = append(flags, "--no-taints=true")
		}
	}
	if isController(h) && onlyIPv6(c) {
		flags = append(flags, gateIPv6)
	}
	flags = append(flags, "--kubelet-extra-args=--node-ip="+strings.Join(c.NodeIPs(h, networks(c)), ","))
	if ignoresChecks(c) {
		flags = append(flags, "--ignore-pre-flight-checks=true")
	}
	if joins {
		flags = append(flags, tokenFlag)
	}
	return flags
}

// managed are the flags that mean something else where they are left out.
func managed(flag string) bool {
	name, _, _ := strings.Cut(flag, "=")
	switch name {
	case "--config", "--enable-worker", "--no-taints", "--kubelet-extra-args", "--ignore-pre-flight-checks", "--single", "--disable-components", "--profile", "--feature-gates":
		return true
	}
	return false
}

// installed are the flags in the unit, or in OpenRC's script; there is false where there is none.
func installed(ctx context.Context, h *runtime.Host) (flags []string, there bool, err error) {
	data, err := host.ReadFile(ctx, h.Runner, service(h).File())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	words := strings.FieldsFunc(string(data), func(r rune) bool { return strings.ContainsRune(" \t\n\"'", r) })
	for _, w := range words {
		if strings.HasPrefix(w, "--") {
			if !strings.Contains(w, "=") {
				w += "=true"
			}
			flags = append(flags, w)
		}
	}
	return flags, true, nil
}

// asWanted compares the unit with what it should be. A token's flag that is there and not wanted is left: it is the one by
// which the node has joined, and keeps k0s from making a cluster of its own should its data be lost.
func asWanted(have, want []string) bool {
	for _, f := range want {
		if !slices.Contains(have, f) {
			return false
		}
	}
	for _, f := range have {
		if managed(f) && !slices.Contains(want, f) {
			return false
		}
	}
	return true
}

// installUnit has k0s write the unit where it is missing, or anew where it says something else. A k0s that runs
// goes on as it was started.
func installUnit(ctx context.Context, h *runtime.Host, want []string, log io.Writer) error {
	have, there, err := installed(ctx, h)
	if err != nil || there && asWanted(have, want) {
		return err
	}
	if there && slices.Contains(have, tokenFlag) && !slices.Contains(want, tokenFlag) {
		want = append(slices.Clone(want), tokenFlag)
	}
	role := "worker"
	if isController(h) {
		role = "controller"
	}
	argv := call(time.Minute, append([]string{"install", role}, want...)...)
	if there {
		argv = append(argv, "--force")
	}
	return run(ctx, h, log, argv...)
}
