// SPDX-License-Identifier: Apache-2.0

package hosts

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestOptions_Mistakes(t *testing.T) {
	_, err := Options{Name: "Not a name", Count: 101, Dir: t.TempDir()}.withDefaults()
	assert.EqualError(t, err, "name: \"Not a name\" is not made of lower-case letters, digits and dashes\n"+
		"count: 101 is not between 1 and 100")
	for _, name := range []string{"-a", "a-", "a/b", "..", strings.Repeat("a", 31)} {
		_, err := Options{Name: name, Dir: t.TempDir()}.withDefaults()
		assert.Error(t, err, name)
	}
	o, err := Options{Dir: t.TempDir()}.withDefaults()
	require.NoError(t, err)
	assert.Equal(t, DefaultName, o.Name)
	assert.Equal(t, 1, o.Count)
}

func TestNth(t *testing.T) {
	subnet := netip.MustParsePrefix("172.31.9.0/24")
	for n, want := range map[int]string{1: "172.31.9.1", 11: "172.31.9.11", -1: "172.31.9.255", -2: "172.31.9.254"} {
		assert.Equal(t, want, nth(subnet, n).String())
	}
}

func TestSubnet6(t *testing.T) {
	subnet := subnet6(netip.MustParsePrefix("172.31.200.0/24"))
	assert.Equal(t, "fd5e:a1e2:5ea1:c8::/64", subnet.String())
	assert.Equal(t, "fd5e:a1e2:5ea1:c8::b", nth6(subnet, 11).String())
}

func TestFreeSubnet(t *testing.T) {
	used := []netip.Prefix{netip.MustParsePrefix("172.31.255.0/25"), netip.MustParsePrefix("172.31.0.0/23")}
	got, err := freeSubnet(255, used)
	require.NoError(t, err)
	assert.Equal(t, "172.31.2.0/24", got.String())

	_, err = freeSubnet(0, []netip.Prefix{netip.MustParsePrefix("172.16.0.0/12")})
	assert.EqualError(t, err, "every subnet of 172.31.0.0/16 is in use on this machine")
}

func TestUsedNetworks_HasLoopback(t *testing.T) {
	used, err := usedNetworks()
	require.NoError(t, err)
	assert.Contains(t, used, netip.MustParsePrefix("127.0.0.0/8"))
	assert.NotContains(t, used, netip.MustParsePrefix("0.0.0.0/0"))
}

func TestBridgeName(t *testing.T) {
	assert.Equal(t, "sh-sealer", bridgeName("sealer"))
	long := bridgeName("a-name-of-twenty-chars")
	assert.LessOrEqual(t, len(long), 15)
	assert.NotEqual(t, long, bridgeName("a-name-of-twenty-charz"))
}

func TestAbsentCapabilities(t *testing.T) {
	for bounds, want := range map[string][]string{
		"000001fffeffffff": {"CAP_SYS_RESOURCE"},
		"000001ffffffffff": nil,
		"000001fffffffffe": {"CAP_CHOWN"},
		"000000ffffffffff": {"CAP_CHECKPOINT_RESTORE"},
	} {
		got, err := absentCapabilities("CapEff:\t0\nCapBnd:\t"+bounds+"\nCapAmb:\t0\n", "40")
		require.NoError(t, err)
		assert.Equal(t, want, got, bounds)
	}
	got, err := absentCapabilities("CapBnd:\t000000ffffffffff\n", "39") // an older kernel knows fewer
	require.NoError(t, err)
	assert.Empty(t, got)
}

func TestRuncScript_TrimsSpecifications(t *testing.T) {
	dir := t.TempDir()
	runc := filepath.Join(dir, "runc")
	require.NoError(t, os.WriteFile(runc, []byte("#!/bin/sh\nprintf '%s\\n' \"$@\"\n"), 0o700))
	wrapper := filepath.Join(dir, "wrapper")
	script := strings.NewReplacer("@MISSING@", "CAP_SYS_RESOURCE CAP_BPF", "@RUNC@", runc).Replace(runcScript)
	require.NoError(t, os.WriteFile(wrapper, []byte(script), 0o700))

	const before = `{"a":["CAP_CHOWN","CAP_SYS_RESOURCE","CAP_KILL"],"b":["CAP_BPF","CAP_KILL"],"c":["CAP_KILL","CAP_BPF"],"d":["CAP_BPF"]}`
	const after = `{"a":["CAP_CHOWN","CAP_KILL"],"b":["CAP_KILL"],"c":["CAP_KILL"],"d":[]}`
	spec := filepath.Join(dir, "config.json")
	process := filepath.Join(dir, "process")
	for _, args := range [][]string{
		{"--root", "/x y", "create", "--bundle", dir, "id"}, {"create", "--bundle=" + dir, "id"}, {"create", "-b", dir, "id"},
	} {
		require.NoError(t, os.WriteFile(spec, []byte(before), 0o600))
		out, err := exec.Command(wrapper, args...).Output()
		require.NoError(t, err)
		assert.Equal(t, strings.Join(args, "\n")+"\n", string(out))
		got, err := os.ReadFile(spec)
		require.NoError(t, err)
		assert.Equal(t, after, string(got))
	}
	require.NoError(t, os.WriteFile(process, []byte(before), 0o600))
	require.NoError(t, exec.Command(wrapper, "exec", "--process", process, "id").Run())
	got, err := os.ReadFile(process)
	require.NoError(t, err)
	assert.Equal(t, after, string(got))
}

func TestSourceFiles(t *testing.T) {
	targets := "bookworm\tstable\t/etc/apt/sources.list.d/debian.sources:1\n" +
		"bookworm-updates\tbookworm-updates\t/etc/apt/sources.list.d/debian.sources:1\n" +
		"\tbookworm\t/etc/apt/sources.list:3\n" +
		"nodistro\tnodistro\t/etc/apt/sources.list.d/other.list:1\n"
	assert.Equal(t, []string{"/etc/apt/sources.list", "/etc/apt/sources.list.d/debian.sources"}, sourceFiles(targets, "bookworm"))
	assert.Empty(t, sourceFiles(targets, "trixie"))
}

func TestPoll(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err := poll(ctx, time.Millisecond, func(context.Context) error { return errors.New("not yet") })
	require.ErrorIs(t, err, context.DeadlineExceeded)
	assert.EqualError(t, err, "context deadline exceeded: not yet")

	var tries int
	err = poll(t.Context(), time.Millisecond, func(context.Context) error { tries++; return permanent(errors.New("never")) })
	assert.EqualError(t, err, "never")
	assert.Equal(t, 1, tries)
}

func TestLoad_RefusesPaths(t *testing.T) {
	_, err := load("../../etc", nil)
	assert.EqualError(t, err, `name: "../../etc" is not made of lower-case letters, digits and dashes`)
}
