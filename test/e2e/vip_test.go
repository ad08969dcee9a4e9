//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/test/hosts"
	"github.com/sealerio/sealer/test/lab"
)

// virtual is the address of a cluster's API servers.
type virtual struct {
	*bed
	address netip.Addr
}

// holders are those of the hosts that have the address on an interface.
func (v *virtual) holders(t *testing.T, list ...hosts.Host) []hosts.Host {
	t.Helper()
	return slices.DeleteFunc(slices.Clone(list), func(h hosts.Host) bool {
		return !strings.Contains(v.exec(t, h, "ip", "-o", "addr", "show"), " "+v.address.String()+"/")
	})
}

// ask asks the API server behind the address, over a connection of its own.
func (v *virtual) ask(ctx context.Context) (err error) {
	client := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+net.JoinHostPort(v.address.String(), "6443")+"/readyz", http.NoBody)
	if err != nil {
		return err
	}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, res.Body.Close()) }()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("it answers %s", res.Status)
	}
	return nil
}

// renewed is when the worker's kubelet last told the cluster that it is there.
func (v *virtual) renewed(ctx context.Context, on, worker hosts.Host) (time.Time, error) {
	out, err := on.Exec(ctx, append(slices.Clone(v.kubectl), "--namespace", "kube-node-lease", "get", "lease", worker.Name, "-o", "jsonpath={.spec.renewTime}")...)
	if err != nil {
		return time.Time{}, err
	}
	return time.Parse(time.RFC3339Nano, strings.TrimSpace(string(out)))
}

// outlives has the control plane that holds the address lose its power, come back, and leave the cluster.
func (v *virtual) outlives(t *testing.T) {
	controlPlanes, worker := v.h[:3], v.h[3]
	holders := v.holders(t, v.h...)
	require.Len(t, holders, 1)
	lost := holders[0]
	rest := slices.DeleteFunc(slices.Clone(controlPlanes), func(h hosts.Host) bool { return h.Name == lost.Name })
	require.NoError(t, v.ask(t.Context()))
	require.Contains(t, v.exec(t, worker, "cat", "/etc/hosts"), v.address.String()+" apiserver.cluster.local")
	_, err := worker.Exec(t.Context(), "systemctl", "is-active", "sealer-endpoint.service")
	require.Error(t, err, "no balancer of sealer's")
	require.Contains(t, v.sealer(t, v.args("kubeconfig")...), "server: https://"+v.address.String()+":6443\n")
	var status struct {
		Endpoint string
		Unwell   []string
	}
	require.NoError(t, json.Unmarshal([]byte(v.sealer(t, v.args("status", "-o", "json")...)), &status))
	require.Equal(t, v.address.String()+":6443", status.Endpoint)
	require.Empty(t, status.Unwell)
	require.Equal(t, "600", strings.TrimSpace(v.exec(t, lost, "stat", "-c", "%a", "/var/lib/sealer/vip/keepalived.conf")))

	began := time.Now()
	require.NoError(t, lost.Kill(t.Context()))
	require.NoError(t, lab.Poll(t.Context(), time.Minute, v.ask))
	t.Logf("requests go on %s after %s has lost its power", time.Since(began).Round(100*time.Millisecond), lost.Name)
	now := v.holders(t, rest...)
	require.Len(t, now, 1)
	require.NoError(t, lab.Poll(t.Context(), 2*time.Minute, func(ctx context.Context) error {
		at, err := v.renewed(ctx, rest[0], worker)
		if err == nil && !at.After(began) {
			err = fmt.Errorf("the worker has not been heard of since %s", at)
		}
		return err
	}))
	require.Contains(t, v.readyNow(t, rest[0]), worker.Name)

	require.NoError(t, lost.Start(t.Context()))
	v.eventuallyReady(t, rest[0], len(v.h))
	require.NoError(t, lab.Poll(t.Context(), 3*time.Minute, func(ctx context.Context) error { // its node is Ready before its API server is
		_, err := lost.Exec(ctx, append(slices.Clone(v.kubectl), "get", "--raw", "/readyz")...)
		return err
	}))
	require.Len(t, v.holders(t, controlPlanes...), 1)
	v.sealer(t, v.args("delete", "--masters", addresses(now[0]), "--yes")...)
	require.Empty(t, v.holders(t, now[0]))
	v.asFound(t, now[0])
	stay := slices.DeleteFunc(slices.Clone(controlPlanes), func(h hosts.Host) bool { return h.Name == now[0].Name })
	require.Len(t, v.holders(t, stay...), 1)
	for _, h := range stay {
		require.NotContains(t, v.exec(t, h, "cat", "/var/lib/sealer/vip/keepalived.conf"), now[0].Address.String()+"\n")
	}
	require.NoError(t, lab.Poll(t.Context(), 30*time.Second, v.ask))
}
