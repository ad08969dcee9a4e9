//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/sealerio/sealer/test/hosts"
	"github.com/sealerio/sealer/test/lab"
)

const faultsRoot, faultsName = "faults", "faults"

// What goes wrong on hosts and on the way to them is named, with what to do about it; nothing is left half done that the same
// command does not mend. The clusters are of k3s' double on two hosts. Clocks are not set, since all hosts share this machine's:
// their date says another time.
func TestFaults(t *testing.T) {
	_, err := shared.BuildRelease(t.Context(), faultsRoot, k3sRelease())
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "Clusterfile")
	text := "apiVersion: sealer.io/v2\nkind: Cluster\nmetadata: {name: " + faultsName + "}\nspec: {env: []}\n" + k3sSettings
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	require.NoError(t, shared.TrustHosts(faultsRoot))
	empty := shared.Hosts.Hosts[0] // had a folder before, with nothing in it
	onHost(t, empty, "mkdir", "-p", "/var/lib/rancher")
	undo(t, empty, "sh", "-c", "rmdir /var/lib/rancher || :")
	f := &faults{watched: watched{shared, faultsRoot, faultsName}, file: file, one: shared.Hosts.Hosts[0], two: shared.Hosts.Hosts[1], before: snapshots(t)}
	f.link = newLink(t, f.one.Address.String()+":22")
	f.trustLink(t)
	t.Cleanup(func() {
		if t.Failed() {
			_, err := shared.Run(context.WithoutCancel(t.Context()), faultsRoot, f.on("delete", "--all", "--yes")...)
			t.Log("deleting the cluster of a test that failed:", err)
		}
	})
	for _, c := range []struct {
		name string
		run  func(*testing.T, *faults)
	}{
		{"what stands in the way is told before anything is touched", testFaultyHosts},
		{"hosts that greet, allow little, have no room in /tmp and a slow link that is cut", testHardHosts},
		{"a disk that becomes full, and a link that is cut within a command", testFillingDisk},
		{"a host that is rebooted while it joins", testRebootedJoin},
		{"commands that are killed after each of their steps", testKilledCommands},
		{"an installation whose operator is gone is another's after a minute", testTakenOver},
	} {
		if !t.Run(c.name, func(t *testing.T) { c.run(t, f) }) {
			t.FailNow()
		}
	}
}

// faults are two hosts, and how a cluster is made of them.
type faults struct {
	watched
	file     string
	one, two hosts.Host
	before   map[string]string
	link     *link // to the first host, which is the way to both
}

func k3sRelease() lab.Release { return lab.Release{Program: "k3s", Version: lab.K3sVersion} }

func (f *faults) on(args ...string) []string {
	return append(args, "--name", faultsName, "--pk", shared.Hosts.KeyFile)
}

func (f *faults) runArgs(more ...string) []string {
	return append(append(shared.RunImageArgs(shared.ReleaseImage(k3sRelease()), f.file), "--progress", "plain"), more...)
}

// asFound deletes the cluster, and looks whether anything is left.
func (f *faults) asFound(t *testing.T) {
	t.Helper()
	sealer(t, faultsRoot, f.on("delete", "--all", "--yes")...)
	unchanged(t, f.before, snapshots(t))
}

// attempt runs sealer with variables, without keys other than those it is given.
func attempt(t *testing.T, env []string, args ...string) (stderr string, err error) {
	t.Helper()
	cmd := shared.Command(t.Context(), faultsRoot, args...)
	cmd.Env = append(append(cmd.Env, "HOME="+t.TempDir(), "SSH_AUTH_SOCK="), env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return errs.String(), err
}

// askForPassword has sudo ask the user for a password until the test is over.
func askForPassword(t *testing.T, h hosts.Host) {
	t.Helper()
	const file = "/etc/sudoers.d/zz-faults"
	undo(t, h, "rm", "-f", file)
	onHost(t, h, "sh", "-c", "echo '"+shared.Hosts.SudoUser+" ALL=(ALL) PASSWD: ALL' >"+file+" && chmod 0440 "+file)
}

// otherTime has date say another time on a host.
func otherTime(t *testing.T, h hosts.Host, less string) {
	t.Helper()
	const file = "/usr/local/sbin/date"
	undo(t, h, "rm", "-f", file)
	onHost(t, h, "sh", "-c", `printf '#!/bin/sh\n[ "$*" = "-u +%%s" ] || exec /bin/date "$@"\necho $(($(/bin/date +%%s) - `+less+`))\n' >`+file+" && chmod 0755 "+file)
}

func mount(t *testing.T, h hosts.Host, script, dir string) {
	t.Helper()
	undo(t, h, "sh", "-c", "umount "+dir)
	onHost(t, h, "sh", "-c", script)
}

// testFaultyHosts: each case is refused by name, with what to do, and changes nothing.
func testFaultyHosts(t *testing.T, f *faults) {
	stranger := filepath.Join(t.TempDir(), "id_ed25519")
	writeKey(t, stranger)
	withoutKey := func(args []string, key string) []string {
		return strings.Split(strings.Replace(strings.Join(args, "\x00"), shared.Hosts.KeyFile, key, 1), "\x00")
	}
	asUser := f.runArgs("-u", shared.Hosts.SudoUser)
	one, two := f.one.Address.String()+": ", f.two.Address.String()+": "
	sudoAsks := func(t *testing.T) { askForPassword(t, f.one); askForPassword(t, f.two) }
	for _, test := range []struct {
		name  string
		setup func(*testing.T)
		args  []string
		env   []string
		want  []string
		check func(*testing.T)
	}{
		{
			name: "a key that the hosts do not know", args: withoutKey(f.runArgs(), stranger),
			want: []string{one, two, `logging in as "root": refused: tried key ` + stranger, "give a key file", "2 failed, nothing was changed"},
		},
		{
			name: "sudo that asks, and no password", setup: sudoAsks, args: asUser,
			want: []string{one + "becoming root by sudo as", two, "give the sudo password", "nothing was changed"},
		},
		{
			name: "sudo that asks, and a wrong password", setup: sudoAsks, args: asUser, env: []string{"SEALER_SSH_PASSWD=wrong"},
			want: []string{one + "becoming root by sudo as", two, "give the sudo password", "nothing was changed"},
			check: func(t *testing.T) {
				log := onHost(t, f.one, "sh", "-c", "journalctl --no-pager -o cat -t sudo | grep -c 'incorrect password' || :")
				require.Equal(t, "1", strings.TrimSpace(log), "it was tried once")
			},
		},
		{
			name: "too little room", args: f.runArgs(),
			setup: func(t *testing.T) {
				mount(t, f.two, "mount -t tmpfs -o size=300m tmpfs /var/lib", "/var/lib")
			},
			want: []string{two + "300 MiB is free below /var/lib, the image needs", "[disk]", "make room"},
		},
		{
			name: "a disk that is read-only", args: f.runArgs(),
			setup: func(t *testing.T) {
				mount(t, f.two, "mount --bind /var/lib /var/lib && mount -o remount,bind,ro /var/lib", "/var/lib")
			},
			want: []string{two + "/var/lib is mounted read-only [read-only]", "mount it for writing"},
		},
		{
			name: "a disk whose programs may not be run", args: f.runArgs(),
			setup: func(t *testing.T) {
				mount(t, f.one, "mount --bind /usr/local/bin /usr/local/bin && mount -o remount,bind,noexec /usr/local/bin", "/usr/local/bin")
			},
			want: []string{one + "programs in /usr/local/bin cannot be run: it is mounted noexec [noexec]", "mount it without noexec"},
		},
		{
			name: "a clock that differs", args: f.runArgs(), setup: func(t *testing.T) { otherTime(t, f.two, "7230") },
			want: []string{one + "its clock is 2h0m", "ahead of that of " + f.two.Address.String(), "[clock]", "set the clocks"},
		},
		{
			name: "a clock of this machine that differs", args: f.runArgs(),
			setup: func(t *testing.T) { otherTime(t, f.one, "7230"); otherTime(t, f.two, "7230") },
			want:  []string{"the clock of this machine is 2h0m", "ahead of those of the hosts", "[clock]", "set the clock of this machine"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.setup != nil {
				test.setup(t)
			}
			before := snapshots(t)
			stderr, err := attempt(t, test.env, test.args...)
			require.Error(t, err)
			for _, text := range append(test.want, "hint:", "nothing was changed") {
				require.Contains(t, stderr, text)
			}
			unchanged(t, before, snapshots(t))
			require.NoDirExists(t, filepath.Join(shared.Dir, faultsRoot, "clusters", faultsName))
			if test.check != nil {
				test.check(t)
			}
		})
	}
}

// testHardHosts: none of this keeps a cluster from being made, in one go.
func testHardHosts(t *testing.T, f *faults) {
	const sshd = "/etc/ssh/sshd_config.d/00-faults.conf"
	for _, h := range []hosts.Host{f.one, f.two} {
		askForPassword(t, h)
		undo(t, h, "sh", "-c", "rm -f "+sshd+" /etc/profile.d/faults.sh; systemctl reload ssh; sed -i '/faults/d' /etc/bash.bashrc; mv /etc/resolv.conf.faults /etc/resolv.conf")
		onHost(t, h, "sh", "-c", `printf 'MaxSessions 1\nMaxStartups 1\nBanner /etc/issue.net\n' >`+sshd+` && systemctl reload ssh
			echo 'echo WELCOME' >/etc/profile.d/faults.sh
			sed -i '1i echo welcome, said faults; echo and a warning >\&2 # faults' /etc/bash.bashrc
			mv /etc/resolv.conf /etc/resolv.conf.faults`)
		mount(t, h, "mount -t tmpfs -o size=64k,noexec tmpfs /tmp && ! dd if=/dev/zero of=/tmp/full 2>/dev/null", "/tmp")
	}
	l := f.link
	l.limit(16 << 20)    // bytes a second
	l.cutAfter(10 << 20) // within a blob
	began := time.Now()
	password := []string{"SEALER_SSH_PASSWD=" + shared.Hosts.Password}
	stderr, err := attempt(t, password, f.runArgs("-u", shared.Hosts.SudoUser, "--jump", "root@"+l.address())...)
	require.NoError(t, err, stderr)
	t.Logf("it took %s over a link of 16 MiB a second that was cut %d times", time.Since(began).Round(time.Second), l.cuts())
	require.Positive(t, l.cuts(), "the link was cut")
	l.limit(0)
	// The user is kept, the password is not.
	stderr, err = attempt(t, nil, f.on("status")...)
	require.Error(t, err)
	require.Contains(t, stderr, "give the sudo password")
	stderr, err = attempt(t, password, f.on("status")...)
	require.NoError(t, err, stderr)
}

// trustLink lets sealer know the key of the host behind the link.
func (f *faults) trustLink(t *testing.T) {
	t.Helper()
	file, err := os.OpenFile(filepath.Join(shared.Dir, faultsRoot, "known_hosts"), os.O_APPEND|os.O_WRONLY, 0o600)
	require.NoError(t, err)
	_, err = file.WriteString(knownhosts.Line([]string{knownhosts.Normalize(f.link.address())}, f.one.HostKey) + "\n")
	require.NoError(t, errors.Join(err, file.Close()))
}

// testFillingDisk begins with the cluster of the case before.
func testFillingDisk(t *testing.T, f *faults) {
	f.asFound(t)
	const dir = "/var/lib/sealer"
	onHost(t, f.two, "mkdir", dir)
	undo(t, f.two, "sh", "-c", "rmdir "+dir+" 2>/dev/null || :")
	mount(t, f.two, "mount -t tmpfs -o size=8g tmpfs "+dir, dir)
	// The whole of it fits, when it is asked; then there is little more than what has arrived by then. It goes on arriving, and a
	// file system cannot be made smaller than what it holds.
	shrink := "for try in 1 2 3 4 5; do u=$(df -k --output=used " + dir + " | tail -n 1); mount -o remount,size=$((u + 8192))k " + dir + " && exit; done; exit 1"
	stderr, err := f.whenStep(t, f.two, "sending the image", "started", func() { onHost(t, f.two, "sh", "-c", shrink) }, f.runArgs()...)
	require.Error(t, err)
	// Sooner or later, by how fast the image has arrived: it is unpacked there, too.
	require.Regexp(t, `(sending the image|mounting the rootfs): `+f.two.Address.String(), stderr)
	for _, text := range []string{"no space left on device", "the file system that holds " + dir + " is full", "[disk]",
		"make room in the file system that holds " + dir, "run the same command again"} {
		require.Contains(t, stderr, text)
	}
	onHost(t, f.two, "mount", "-o", "remount,size=8g", dir)

	// It continues, and the link is cut while a command runs.
	l := f.link
	stderr, err = f.whenStep(t, f.one, "starting the cluster", "started", l.cut, f.runArgs("--jump", "root@"+l.address())...)
	require.Error(t, err, "the end of the command was not seen")
	require.Contains(t, stderr, "the connection was lost")
	require.Contains(t, stderr, "look whether")
	sealer(t, faultsRoot, f.runArgs()...)
	require.Contains(t, sealer(t, faultsRoot, f.runArgs()...), "nothing to change")

	sealer(t, faultsRoot, f.on("delete", "--all", "--yes")...)
}

// testRebootedJoin leaves a cluster of two hosts.
func testRebootedJoin(t *testing.T, f *faults) {
	sealer(t, faultsRoot, f.runArgs()...)
	worker := f.two.Address.String()
	sealer(t, faultsRoot, f.on("delete", "--yes", "--nodes", worker)...)
	join := f.on("join", "--nodes", worker)
	stderr, err := f.whenStep(t, f.two, "joining", "started", func() {
		require.NoError(t, f.two.Kill(t.Context()))
		require.NoError(t, f.two.Start(t.Context()))
	}, join...)
	t.Log("the join whose host lost its power:", err, stderr)
	sealer(t, faultsRoot, join...)
	require.Contains(t, sealer(t, faultsRoot, join...), "nothing to change")
}

// testKilledCommands makes a cluster of two hosts where there is none, and deletes it.
func testKilledCommands(t *testing.T, f *faults) {
	sealer(t, faultsRoot, f.runArgs()...)
	saved := filepath.Join(t.TempDir(), "saved.db")
	worker := f.two.Address.String()
	for _, c := range []struct {
		args  []string
		least int // steps
	}{
		{f.on("delete", "--yes", "--nodes", worker), 6},
		{f.on("join", "--nodes", worker), 8},
		{f.on("cert", "renew"), 2},
		{f.on("etcd", "restore", saved, "--yes"), 2},
	} {
		if c.args[0] == "etcd" { // of the nodes that there are now
			sealer(t, faultsRoot, f.on("etcd", "snapshot", "-o", saved)...)
		}
		require.GreaterOrEqual(t, f.killedAtSteps(t, eachStep(), c.args...), c.least)
		require.NoError(t, lab.Poll(t.Context(), 2*time.Minute, func(context.Context) error {
			out, stderr, code := runAny(t, faultsRoot, f.on("check", "--post")...)
			if code != 0 {
				return errors.New(out + stderr)
			}
			return nil
		}))
	}
	onHost(t, f.one, "rm", "-r", "/var/lib/sealer/snapshots") // which delete leaves
	require.GreaterOrEqual(t, f.killedAtSteps(t, eachStep(), f.on("delete", "--all", "--yes")...), 8)
	unchanged(t, f.before, snapshots(t))
}

// testTakenOver begins where there is nothing. An operator is killed in the middle of an installation; another one, with a folder of its
// own, is kept off the hosts for a minute, and takes away what is there.
func testTakenOver(t *testing.T, f *faults) {
	f.killWhen(t, "joining", "started", f.runArgs()...)
	const other = faultsRoot + "-other"
	require.NoError(t, shared.TrustHosts(other))
	remove := f.on("delete", "--all", "--yes", "--masters", f.one.Address.String(), "--nodes", f.two.Address.String())
	_, stderr, code := runAny(t, other, remove...)
	require.Equal(t, 1, code, stderr)
	for _, text := range []string{f.one.Address.String() + ": it is being worked on by root on ", "sealer run), since ", "a run that was killed holds its hosts for another 1m0s"} {
		require.Contains(t, stderr, text)
	}
	for _, h := range []hosts.Host{f.one, f.two} {
		onHost(t, h, "touch", "-d", "2 minutes ago", "/run/lock/sealer-operator")
	}
	sealer(t, other, remove...)
	unchanged(t, f.before, snapshots(t))
	sealer(t, faultsRoot, f.on("delete", "--all", "--yes")...) // the first one finds nothing, and forgets the cluster
	unchanged(t, f.before, snapshots(t))
}
