// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/cluster"
	"github.com/sealerio/sealer/clusterfile"
)

// Each flag of the login goes over what hosts have of their own, and takes nothing else with it.
func TestSSHFlags_Overlay(t *testing.T) {
	own := clusterfile.SSH{User: "admin", Port: 2222, KeyFile: "K", Password: "own", Jump: &clusterfile.Jump{Host: "gate", SSH: clusterfile.SSH{User: "hop"}}}
	for name, c := range map[string]struct {
		args []string
		env  string
		want clusterfile.SSH
	}{
		"none":     {nil, "", own},
		"key":      {[]string{"--pk", "other"}, "", with(own, func(s *clusterfile.SSH) { s.KeyFile = "other" })},
		"user":     {[]string{"-u", "root"}, "", with(own, func(s *clusterfile.SSH) { s.User = "root" })},
		"port":     {[]string{"--port", "22"}, "", with(own, func(s *clusterfile.SSH) { s.Port = 22 })},
		"password": {[]string{"-p", "flag"}, "", with(own, func(s *clusterfile.SSH) { s.Password, s.Jump.Password = "flag", "flag" })},
		"env":      {nil, "env", with(own, func(s *clusterfile.SSH) { s.Jump.Password = "env" })},
		"jump": {[]string{"--jump", "me@gate2"}, "", with(own, func(s *clusterfile.SSH) {
			s.Jump = &clusterfile.Jump{Host: "gate2", SSH: clusterfile.SSH{User: "me", KeyFile: "K", Password: "own"}}
		})},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(passwordEnv, c.env)
			var o sshFlags
			cmd := &cobra.Command{}
			o.add(cmd)
			require.NoError(t, cmd.ParseFlags(c.args))
			require.NoError(t, o.resolve(nil, cmd))
			require.Equal(t, c.want, o.overlay(own))
			require.Empty(t, own.Jump.Password, "what is there is not changed")
		})
	}
}

func with(s clusterfile.SSH, change func(*clusterfile.SSH)) clusterfile.SSH {
	jump := *s.Jump
	s.Jump = &jump
	change(&s)
	return s
}

// Whoever is asked may interrupt.
func TestOrCancelled(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	interrupted := errors.New("interrupted")
	never := make(chan struct{})
	t.Cleanup(func() { close(never) })
	go cancel(interrupted)
	_, err := orCancelled(ctx, func() (string, error) { <-never; return "", nil })
	require.ErrorIs(t, err, interrupted)
	got, err := orCancelled(t.Context(), func() (string, error) { return "yes", nil })
	require.NoError(t, err)
	require.Equal(t, "yes", got)
}

// Hosts of the flags have what the Clusterfile says of them, or of all.
func TestRunFlags_Named(t *testing.T) {
	file := filepath.Join(t.TempDir(), "Clusterfile")
	require.NoError(t, os.WriteFile(file, []byte("apiVersion: sealer.io/v2\nkind: Cluster\nmetadata: {name: shop}\nspec:\n  ssh: {user: admin, port: 2222, pk: K}\n"+
		"  hosts: [{ips: [10.0.0.1], roles: [master], labels: {zone: a}, ssh: {port: 2201}}]\n"), 0o600))
	o := runFlags{clusterfile: file}
	cmd := &cobra.Command{}
	o.add(cmd)
	require.NoError(t, cmd.ParseFlags([]string{"-m", "10.0.0.1,10.0.0.2", "--pk", "other"}))
	f, err := o.read(&app{root: t.TempDir()}, cmd, clusterfile.Parse)
	require.NoError(t, err)
	require.Len(t, f.Hosts, 2)
	require.Equal(t, map[string]string{"zone": "a"}, f.Hosts[0].Labels)
	require.Equal(t, 2201, f.Hosts[0].SSH.Port)
	require.Equal(t, "other", o.overlay(f.Hosts[0].SSH).KeyFile)
	require.Equal(t, clusterfile.SSH{User: "admin", Port: 2222, KeyFile: "other"}, f.Hosts[1].SSH)
}

// The image's login is below what flags and the user's file say, also where flags alone name the hosts.
func TestRunFlags_ImageLogin(t *testing.T) {
	base, err := clusterfile.ParseBase("base", []byte("apiVersion: sealer.io/v2\nkind: Cluster\nspec: {ssh: {user: theirs, port: 2222, pk: /theirs}}\n"))
	require.NoError(t, err)
	user := filepath.Join(t.TempDir(), "Clusterfile")
	require.NoError(t, os.WriteFile(user, []byte("apiVersion: sealer.io/v2\nkind: Cluster\nspec: {ssh: {user: file}}\n"), 0o600))
	for line, want := range map[string]clusterfile.SSH{
		"":                         {User: "theirs", Port: 2222, KeyFile: "/theirs"},
		"-u root --port 22":        {User: "root", Port: 22, KeyFile: "/theirs"},
		"-f " + user:               {User: "file", Port: 2222, KeyFile: "/theirs"},
		"--pk /k -u me -f " + user: {User: "me", Port: 2222, KeyFile: "/k"},
		"--jump gate":              {User: "theirs", Port: 2222, KeyFile: "/theirs", Jump: &clusterfile.Jump{Host: "gate", SSH: clusterfile.SSH{User: "theirs", KeyFile: "/theirs"}}},
	} {
		t.Run(line, func(t *testing.T) {
			var o runFlags
			cmd := &cobra.Command{}
			o.add(cmd)
			cmd.Flags().StringVarP(&o.clusterfile, "Clusterfile", "f", "", "")
			require.NoError(t, cmd.ParseFlags(append(strings.Fields(line), "-m", "10.0.0.1")))
			f, err := o.read(&app{root: t.TempDir()}, cmd, clusterfile.Parse)
			require.NoError(t, err)
			require.Equal(t, want, o.overlay(f.Over(base).Hosts[0].SSH), "as it is dialed")
		})
	}
}

// What plugins say of hosts that flags leave out is told with its line.
func TestRunFlags_StrayLines(t *testing.T) {
	file := filepath.Join(t.TempDir(), "Clusterfile")
	require.NoError(t, os.WriteFile(file, []byte("apiVersion: sealer.io/v2\nkind: Cluster\nspec: {image: x}\n---\n"+
		"apiVersion: sealer.io/v1\nkind: Plugin\nmetadata: {name: marks}\nspec:\n  type: LABEL\n  data: |\n    10.0.0.1 rack=1\n    10.0.0.2 rack=2\n"), 0o600))
	o := runFlags{clusterfile: file}
	cmd := &cobra.Command{}
	o.add(cmd)
	require.NoError(t, cmd.ParseFlags([]string{"-m", "10.0.0.1"}))
	var log bytes.Buffer
	_, err := o.read(&app{root: t.TempDir(), log: slog.New(slog.NewTextHandler(&log, nil))}, cmd, clusterfile.Parse)
	require.NoError(t, err)
	require.Equal(t, 1, strings.Count(log.String(), "level=WARN"), log.String())
	require.Contains(t, log.String(), `Clusterfile:12: data of the plugin \"marks\" names 10.0.0.2, which is none of the hosts: it does nothing`)
}

// Hosts that join are logged in to as the first control plane is, but for what the flags say.
func TestSSHFlags_Machines(t *testing.T) {
	a := &app{root: t.TempDir()}
	file := cluster.ClusterfilePath(filepath.Join(a.root, "clusters"), "shop")
	require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o700))
	require.NoError(t, os.WriteFile(file, []byte("apiVersion: sealer.io/v2\nkind: Cluster\nmetadata: {name: shop}\nspec:\n"+
		"  hosts: [{ips: [10.0.0.1], roles: [master], ssh: {user: admin, port: 2222, pk: /k, jump: {host: gate, user: hop}}}]\n"), 0o600))
	for line, want := range map[string]clusterfile.SSH{
		"":                    {User: "admin", Port: 2222, KeyFile: "/k", Jump: &clusterfile.Jump{Host: "gate", SSH: clusterfile.SSH{User: "hop"}}},
		"-u root --pk /other": {User: "root", Port: 2222, KeyFile: "/other", Jump: &clusterfile.Jump{Host: "gate", SSH: clusterfile.SSH{User: "hop"}}},
	} {
		t.Run(line, func(t *testing.T) {
			var o sshFlags
			cmd := &cobra.Command{}
			o.add(cmd)
			require.NoError(t, cmd.ParseFlags(append(strings.Fields(line), "-n", "10.0.0.2")))
			machines, err := o.machines(a, cmd, "shop")
			require.NoError(t, err)
			require.Equal(t, want, machines[0].SSH)
			machines, err = o.machines(a, cmd, "another")
			require.NoError(t, err)
			require.Equal(t, 22, machines[0].SSH.Port)
			require.Equal(t, "root", machines[0].SSH.User)
		})
	}
}
