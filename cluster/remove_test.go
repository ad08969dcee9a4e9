// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/cluster"
	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/host/hosttest"
	"github.com/sealerio/sealer/runtime"
)

func (b *bed) removeOptions(hosts []clusterfile.Host) cluster.RemoveOptions {
	return cluster.RemoveOptions{
		Name: "prod", Hosts: hosts, DrainTimeout: time.Minute, Operator: b.opts.Operator,
	}
}

func (b *bed) remove(t *testing.T, hosts []clusterfile.Host) error {
	t.Helper()
	b.out.Reset()
	return cluster.Remove(t.Context(), b.removeOptions(hosts))
}

// A worker goes: drained, reset, clean, forgotten.
func TestRemove_Worker(t *testing.T) {
	b := newBed(t, three)
	require.NoError(t, b.run(t))
	newly := b.newly()
	require.NoError(t, b.remove(t, b.more(clusterfile.Worker, "10.0.0.4")))
	require.Equal(t, "cluster \"prod\" is without 10.0.0.4, and has 3 hosts\n", b.out.String())
	did := newly()
	require.Equal(t, "kubectl annotate node h4 sealer.io/cordoned-by-delete=true --overwrite\nkubectl cordon h4\nkubectl drain h4 --ignore-daemonsets --delete-emptydir-data --timeout 1m0s\ndist leave h4\ndist forget h4", did["10.0.0.1"])
	golden(t, "testdata/delete.txt", did["10.0.0.4"]+"\n")
	require.Equal(t, "127.0.0.1 localhost\n", string(b.hosts["10.0.0.4"].Files()["/etc/hosts"].Data))
	require.Equal(t, []string{"10.0.0.1", "10.0.0.2", "10.0.0.3"}, b.kept(t))

	newly = b.newly()
	require.NoError(t, b.remove(t, b.more(clusterfile.Worker, "10.0.0.4")), "the end of the first may not have been seen")
	require.Equal(t, "cluster \"prod\" is without 10.0.0.4, and has 3 hosts\n", b.out.String())
	for name, did := range newly() {
		require.Empty(t, did, name)
	}
	journal := filepath.Join(b.opts.StateDir, "prod", "journal.jsonl")
	text, err := os.ReadFile(journal)
	require.NoError(t, err)
	lines := strings.SplitAfter(string(text), "\n")
	lines = slices.DeleteFunc(lines, func(line string) bool {
		return strings.Contains(line, "off the list of hosts") && strings.Contains(line, `"done"`)
	})
	require.NoError(t, os.WriteFile(journal, []byte(strings.Join(lines, "")), 0o600))
	require.NoError(t, b.remove(t, b.more(clusterfile.Worker, "10.0.0.4")), "it was killed before it could say so")

	require.NoError(t, b.join(t, b.more(clusterfile.Worker, "10.0.0.4")), "and may come back")
}

// The first control plane goes: another one is asked, and the hosts that stay know only those that stay.
func TestRemove_FirstControlPlane(t *testing.T) {
	b := newBed(t, "spec: {hosts: [{ips: [10.0.0.1-10.0.0.3], roles: [master]}, {ips: [10.0.0.4], roles: [node]}]}\n")
	b.opts.Distributions = runtime.Distributions{"fake": balanced{}}
	require.NoError(t, b.run(t))
	newly := b.newly()
	require.NoError(t, b.remove(t, b.more(clusterfile.ControlPlane, "10.0.0.1")))
	did := newly()
	require.Contains(t, did["10.0.0.2"], "dist leave h1\ndist forget h1")
	require.Contains(t, did["10.0.0.1"], "dist reset")
	require.NotContains(t, did["10.0.0.1"], "kubectl")
	require.Equal(t, []string{"10.0.0.2", "10.0.0.3", "10.0.0.4"}, b.kept(t))
	hosts := string(b.hosts["10.0.0.4"].Files()["/etc/hosts"].Data)
	require.NotContains(t, hosts, "10.0.0.1 ")
	require.Contains(t, hosts, "127.0.0.1 apiserver.cluster.local\n")
	require.Contains(t, did["10.0.0.4"], "endpoint install")
	require.NotContains(t, string(b.hosts["10.0.0.3"].Files()["/etc/hosts"].Data), "10.0.0.1 ")
	require.Contains(t, string(b.hosts["10.0.0.3"].Files()["/etc/hosts"].Data), "10.0.0.3 apiserver.cluster.local\n", "a control plane keeps to its own API server")
	require.Contains(t, did["10.0.0.2"], "registry install", "the registry knows its peers")

	// What comes next asks those that stay, and launches nothing again.
	newly = b.newly()
	require.NoError(t, b.join(t, b.more(clusterfile.ControlPlane, "10.0.0.9")))
	did = newly()
	require.Contains(t, did["10.0.0.9"], "dist join")
	for name := range b.hosts {
		require.NotContains(t, did[name], "dist init", name)
		require.NotContains(t, did[name], "echo done", name)
	}
}

func TestRemove_Refuses(t *testing.T) {
	b := newBed(t, three)
	var unknown *cluster.UnknownError
	require.ErrorAs(t, b.remove(t, b.more(clusterfile.Worker, "10.0.0.4")), &unknown)
	require.NoError(t, b.run(t))
	newly := b.newly()

	var last *cluster.LastControlPlaneError
	require.ErrorAs(t, b.remove(t, b.more(clusterfile.ControlPlane, "10.0.0.1", "10.0.0.2")), &last)
	require.Contains(t, last.Hint(), "delete --all")
	var role *cluster.RoleError
	require.ErrorAs(t, b.remove(t, b.more(clusterfile.ControlPlane, "10.0.0.4")), &role)
	var missing *cluster.NotMemberError
	require.ErrorAs(t, b.remove(t, b.more(clusterfile.Worker, "10.0.0.8")), &missing)
	require.EqualError(t, missing, `the cluster "prod" does not have 10.0.0.8; it has 10.0.0.1, 10.0.0.2, 10.0.0.3, 10.0.0.4`)
	for name, lines := range newly() {
		require.Empty(t, lines, name)
	}

	b.hosts["10.0.0.2"].On("^dist healthy$", hosttest.Answer{Stderr: "no leader", Code: 1})
	var quorum *cluster.QuorumError
	require.ErrorAs(t, b.remove(t, b.more(clusterfile.ControlPlane, "10.0.0.1")), &quorum)
	require.NotContains(t, newly()["10.0.0.1"], "dist reset")
	require.Equal(t, []string{"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"}, b.kept(t))
}

// A removal that was cut is continued.
func TestRemove_Continues(t *testing.T) {
	b := newBed(t, three)
	require.NoError(t, b.run(t))
	b.hosts["10.0.0.1"].On("^dist forget", hosttest.Answer{Code: 1, Times: 1})
	require.ErrorContains(t, b.remove(t, b.more(clusterfile.Worker, "10.0.0.4")), "forget h4")
	require.Contains(t, b.hosts["10.0.0.4"].did(), "dist reset")
	newly := b.newly()
	require.NoError(t, b.remove(t, b.more(clusterfile.Worker, "10.0.0.4")))
	require.NotContains(t, newly()["10.0.0.4"], "dist reset", "it is clean already")
	require.Contains(t, newly()["10.0.0.1"], "dist forget h4")
	require.Equal(t, []string{"10.0.0.1", "10.0.0.2", "10.0.0.3"}, b.kept(t))
}

// A host that is gone is taken out by force only, and cleaned when it is back.
func TestRemove_Lost(t *testing.T) {
	b := newBed(t, three)
	require.NoError(t, b.run(t))
	b.hosts["10.0.0.4"].unreachable = &host.UnreachableError{Host: "10.0.0.4", Err: errors.New("no route to host")}
	var gone *cluster.GoneError
	require.ErrorAs(t, b.remove(t, b.more(clusterfile.Worker, "10.0.0.4")), &gone)
	require.Contains(t, gone.Hint(), "--force")

	b.hosts["10.0.0.1"].On("^kubectl get nodes", hosttest.Answer{Stdout: `{"items":[{"metadata":{"name":"h4"},"status":{"addresses":[{"type":"InternalIP","address":"10.0.0.4"}]}}]}`})
	o := b.removeOptions(b.more(clusterfile.Worker, "10.0.0.4"))
	o.Force = true
	b.out.Reset()
	newly := b.newly()
	require.NoError(t, cluster.Remove(t.Context(), o))
	require.Equal(t, "cluster \"prod\" is without 10.0.0.4, and has 3 hosts\n"+
		"10.0.0.4 was not reached and is as it was; when it is back: sealer delete --name prod --nodes 10.0.0.4\n", b.out.String())
	require.Equal(t, "dist leave h4\ndist forget h4", newly()["10.0.0.1"])
	require.Equal(t, []string{"10.0.0.1", "10.0.0.2", "10.0.0.3"}, b.kept(t))

	b.hosts["10.0.0.4"].unreachable = nil
	newly = b.newly()
	require.NoError(t, b.remove(t, b.more(clusterfile.Worker, "10.0.0.4")))
	require.True(t, strings.HasPrefix(newly()["10.0.0.4"], "dist reset\n"))
	require.Empty(t, newly()["10.0.0.1"], "the cluster has forgotten it before")
}

// Scripts for hosts that leave are those that the cluster was made with.
func TestRemove_Plugins(t *testing.T) {
	b := newBed(t, three+"---\napiVersion: sealer.io/v1\nkind: Plugin\nmetadata: {name: bye}\nspec: {type: SHELL, action: pre-clean-host, data: \"echo bye\"}\n")
	require.NoError(t, b.run(t))
	did := b.newly()
	require.NoError(t, b.remove(t, b.more(clusterfile.Worker, "10.0.0.4")))
	require.Contains(t, did()["10.0.0.4"], "plugin-bye")
}

// A removal of a lost control plane that is cut after it was taken off the list, and before the others know, is gone on with.
func TestRemove_LostContinues(t *testing.T) {
	b := newBed(t, "spec: {hosts: [{ips: [10.0.0.1-10.0.0.3], roles: [master]}, {ips: [10.0.0.4], roles: [node]}]}\n")
	b.opts.Distributions = runtime.Distributions{"fake": balanced{}}
	require.NoError(t, b.run(t))
	b.hosts["10.0.0.1"].unreachable = &host.UnreachableError{Host: "10.0.0.1", Err: errors.New("no route to host")}
	b.hosts["10.0.0.2"].On("^kubectl get nodes", hosttest.Answer{Stdout: `{"items":[{"metadata":{"name":"h1"},"status":{"addresses":[{"type":"InternalIP","address":"10.0.0.1"}]}}]}`})
	o := b.removeOptions(b.more(clusterfile.ControlPlane, "10.0.0.1"))
	o.Force = true
	b.hosts["10.0.0.4"].On("endpoint install", hosttest.Answer{Code: 1})
	require.ErrorContains(t, cluster.Remove(t.Context(), o), "endpoint install")

	b.hosts["10.0.0.4"].On("endpoint install", hosttest.Answer{})
	did := b.newly()
	o.Force = false
	var gone *cluster.GoneError
	require.ErrorAs(t, cluster.Remove(t.Context(), o), &gone)
	o.Force = true
	require.NoError(t, cluster.Remove(t.Context(), o))
	now := did()
	require.Contains(t, now["10.0.0.4"], "endpoint install", "the worker is told")
	require.NotContains(t, now["10.0.0.2"], "dist leave")
	require.Contains(t, b.out.String(), "10.0.0.1 was not reached and is as it was; when it is back: sealer delete --name prod --masters 10.0.0.1\n")

	// One that the cluster never had is none of its.
	stranger := b.removeOptions(b.more(clusterfile.ControlPlane, "10.0.0.9"))
	b.hosts["10.0.0.9"].unreachable = &host.UnreachableError{Host: "10.0.0.9", Err: errors.New("no route to host")}
	stranger.Force = true
	var missing *cluster.NotMemberError
	require.ErrorAs(t, cluster.Remove(t.Context(), stranger), &missing)
}

// cutting is a world whose operator is killed at one of the commands that change something: from then on no host hears of it.
type cutting struct {
	*world
	left  int // commands until then
	after bool
	kill  context.CancelCauseFunc
	dead  bool
}

var errKilled = errors.New("killed")

// severed is a host as the operator of a cutting reaches it.
type severed struct {
	*fakeHost
	c *cutting
}

func (s severed) Run(ctx context.Context, cmd host.Command) error {
	s.c.mu.Lock()
	if cmd.Mutates {
		s.c.left--
	}
	now := !s.c.dead && s.c.left == 0 && cmd.Mutates
	was := s.c.dead
	s.c.dead = was || now
	s.c.mu.Unlock()
	switch {
	case was:
		return errKilled
	case now:
		defer s.c.kill(errKilled)
		if !s.c.after {
			return errKilled
		}
		return errors.Join(s.fakeHost.Run(ctx, cmd), errKilled)
	}
	return s.fakeHost.Run(ctx, cmd)
}

// killedAt removes by force, and is killed at the command of this number, before it or when it is done. It tells whether it came so far.
func (c *cutting) killedAt(t *testing.T, number int, after bool, hosts []clusterfile.Host) bool {
	t.Helper()
	ctx, kill := context.WithCancelCause(t.Context())
	defer kill(nil)
	c.left, c.after, c.kill, c.dead = number, after, kill, false
	o := c.removeOptions(hosts)
	o.Force = true
	dial := o.Dial
	o.Dial = func(ctx context.Context, h clusterfile.Host) (host.Runner, error) {
		if _, err := dial(ctx, h); err != nil {
			return nil, err
		}
		return severed{c.hosts[h.String()], c}, nil
	}
	err := cluster.Remove(ctx, o)
	if !c.dead { // where it was, at letting the hosts go, all is done
		require.NoError(t, err)
	}
	return c.dead
}

// A forced removal is killed at each of its commands, and the same command comes to the same end. The host that is back later is cleaned.
func TestRemove_LostIsCutAnywhere(t *testing.T) {
	const endpointFile, definitionFile = "/var/lib/sealer/node/endpoint/config.json", runtime.StateDir + "/definition.json"
	for _, test := range []struct {
		name    string
		gone    clusterfile.Host
		staying []string
		least   int // commands that change something
	}{
		{"control plane", clusterfile.Host{Address: "10.0.0.1", Role: clusterfile.ControlPlane}, []string{"10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5"}, 10},
		{"worker", clusterfile.Host{Address: "10.0.0.5", Role: clusterfile.Worker}, []string{"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"}, 3},
	} {
		t.Run(test.name, func(t *testing.T) {
			made := func(t *testing.T) *cutting {
				w := newWorld(t, "spec: {hosts: [{ips: [10.0.0.1-10.0.0.3], roles: [master]}, {ips: [10.0.0.4-10.0.0.5], roles: [node]}]}\n")
				w.opts.Distributions = runtime.Distributions{"fake": balanced{}}
				w.bed.opts.Distributions = w.opts.Distributions
				for _, h := range w.hosts {
					h.On("endpoint install", hosttest.Answer{Do: func(_ context.Context, c hosttest.Call) hosttest.Answer {
						h.Put(endpointFile, string(c.Stdin), 0o600)
						return hosttest.Answer{}
					}})
				}
				require.NoError(t, w.apply())
				w.hosts[test.gone.Address].unreachable = &host.UnreachableError{Host: test.gone.Address, Err: errors.New("no route to host")}
				return &cutting{world: w}
			}
			gone := []clusterfile.Host{test.gone}
			// end is what the hosts that stay know, and what the cluster is.
			end := func(c *cutting) map[string]string {
				know := map[string]string{"kept": strings.Join(c.kept(t), " "), "nodes": strings.Join(slices.Sorted(maps.Keys(c.nodes)), " ")}
				for _, name := range test.staying {
					files := c.hosts[name].Files()
					for _, file := range []string{"/etc/hosts", endpointFile, definitionFile} {
						know[name+" "+file] = string(files[file].Data)
					}
				}
				return know
			}
			whole := made(t)
			require.False(t, whole.killedAt(t, 0, false, gone))
			want := end(whole)
			require.Equal(t, strings.Join(test.staying, " "), want["kept"])
			require.Contains(t, want["10.0.0.2 "+definitionFile], `"10.0.0.4"`)
			require.Contains(t, want["10.0.0.4 "+endpointFile], "10.0.0.2:6443")
			for key, text := range want {
				require.NotRegexp(t, regexp.QuoteMeta(test.gone.Address)+`\b`, text, key)
			}

			kills := 0
			for _, after := range []bool{false, true} {
				for number := 1; ; number++ {
					c := made(t)
					if !c.killedAt(t, number, after, gone) {
						break
					}
					kills++
					at := fmt.Sprintf("killed at command %d, done: %t", number, after)
					require.False(t, c.killedAt(t, 0, false, gone), at)
					require.Equal(t, want, end(c), at)
					require.Contains(t, strings.Join(c.log, "\n"), "dist leave h"+test.gone.Address[len("10.0.0."):], at)
					require.Contains(t, c.out.String(), test.gone.Address+" was not reached and is as it was; when it is back: sealer delete --name prod --", at)

					c.hosts[test.gone.Address].unreachable = nil
					require.NoError(t, c.remove(t, gone), at)
					require.Empty(t, c.hosts[test.gone.Address].Files()[runtime.StateFile].Data, at)
					require.Equal(t, want, end(c), at)
				}
			}
			require.GreaterOrEqual(t, kills, 2*test.least)
		})
	}
}

func TestRemove_DryRun(t *testing.T) {
	b := newBed(t, three)
	require.NoError(t, b.run(t))
	newly := b.newly()
	o := b.removeOptions(append(b.more(clusterfile.ControlPlane, "10.0.0.2"), b.more(clusterfile.Worker, "10.0.0.3")...))
	o.DryRun = true
	b.out.Reset()
	require.NoError(t, cluster.Remove(t.Context(), o))
	golden(t, "testdata/remove-plan.txt", b.out.String())
	for name, lines := range newly() {
		require.Empty(t, lines, name)
	}
}
