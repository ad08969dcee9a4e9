// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sealerio/sealer/test/lab"
)

// What the figures of peers are about: hosts whose SSH answers 20 ms late, and content as it is shipped: large files, many small ones, and
// a registry's images.
const (
	peersLatency = 20 * time.Millisecond
	peersLarge   = 96 << 20
	peersSmall   = 2000
	peersSample  = 20 // scp and sftp copy one of so many files, and what they take is multiplied: they need minutes
)

// peers: the content of one image on 2, 4, 8, 16 hosts, beside scp and sftp to one.
func peers(ctx context.Context, b *bench) (err error) {
	l, err := lab.Open(ctx, lab.Options{Hosts: b.hosts, Name: "bench-peers"})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close(ctx)) }()
	p := &peersBench{bench: b, lab: l, dir: b.dir("peers")}
	if err := p.prepare(ctx); err != nil {
		return err
	}
	p.relay, err = startRelay(ctx, l.Hosts.Subnet, peersLatency/2)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.relay.close(ctx)) }()
	var before time.Duration
	for n := 2; n <= b.hosts; n *= 2 {
		if before, err = p.spread(ctx, n, before); err != nil {
			return err
		}
	}
	return p.others(ctx)
}

type peersBench struct {
	*bench
	lab     *lab.Lab
	relay   *relay
	dir     string // of the context
	program int64  // bytes of sealer-node
	first   Row    // the first one measured
}

const peersImage = "example.com/peers:1"

func peersBase() lab.Release { return lab.Release{Program: "k3s", Version: lab.K3sVersion} }

// prepare builds the image, and a Clusterfile whose plugin ends a run when the content is there.
func (p *peersBench) prepare(ctx context.Context) error {
	if _, err := p.lab.BuildRelease(ctx, "peers", peersBase()); err != nil {
		return err
	}
	if err := writeTree(filepath.Join(p.dir, "data"), peersLarge, peersSmall); err != nil {
		return err
	}
	kubefile := "FROM " + p.lab.ReleaseImage(peersBase()) + "\nCOPY data data\n"
	clusterfile := `apiVersion: sealer.io/v2
kind: Cluster
metadata: {name: peers}
spec: {env: []}
---
apiVersion: sealer.io/v2
kind: K3s
ignoreChecks: [cpu, memory, cgroup]
---
apiVersion: sealer.io/v1
kind: Plugin
metadata: {name: stop}
spec: {type: SHELL, action: pre-install, data: exit 42}
`
	if err := errors.Join(
		os.WriteFile(filepath.Join(p.dir, "Kubefile"), []byte(kubefile), 0o600),
		os.WriteFile(filepath.Join(p.dir, "Clusterfile"), []byte(clusterfile), 0o600),
		p.lab.TrustHosts("peers"),
	); err != nil {
		return err
	}
	program, err := os.Stat(filepath.Join(filepath.Dir(p.sealer), "sealer-node"))
	if err != nil {
		return err
	}
	p.program = program.Size()
	_, err = p.lab.Run(ctx, "peers", "build", "-t", peersImage, p.dir)
	return err
}

// spread brings the content to n hosts, and takes it away again.
func (p *peersBench) spread(ctx context.Context, n int, before time.Duration) (time.Duration, error) {
	some := *p.lab
	set := *p.lab.Hosts
	set.Hosts = set.Hosts[:n]
	some.Hosts = &set
	sent, busy := p.relay.out.Load(), p.busy(ctx, n)
	began := time.Now()
	cmd := p.lab.Command(ctx, "peers", some.RunImageArgs(peersImage, filepath.Join(p.dir, "Clusterfile"))...)
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Run(); err == nil || !strings.Contains(said.String(), "exit status 42") {
		return 0, fmt.Errorf("running the image on %d hosts: %w\n%s", n, err, tail(said.Bytes()))
	}
	sent, busy = p.relay.out.Load()-sent, p.busy(ctx, n)-busy
	wall, err := p.took(began)
	if err != nil {
		return 0, err
	}
	kept, err := set.Hosts[0].Exec(ctx, "sh", "-c", "du -sb /var/lib/sealer/node/store/blobs | cut -f1")
	if err != nil {
		return 0, err
	}
	image, err := parse(kept)
	if err != nil {
		return 0, err
	}
	own := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	row := Row{
		Job: fmt.Sprintf("content on %d hosts, 20 ms away", n), Program: "sealer", Cost: Cost{Wall: wall, CPU: own}, Pushed: sent,
		Note: fmt.Sprintf("image %.0f MB + sealer-node %.0f MB: × %.3f out of the operator; %.2f CPU s a host, with unpacking",
			float64(image)/1e6, float64(p.program)/1e6, float64(sent)/float64(image+p.program), busy.Seconds()/float64(n)),
	}
	if before > 0 {
		row.Note += "; wall × " + ratio(wall, before) + " of half as many hosts"
	} else {
		p.first = row
	}
	p.rows = append(p.rows, row)
	_, err = some.Run(ctx, "peers", "delete", "--all", "--yes", "--name", "peers", "--pk", set.KeyFile)
	return wall, err
}

// took is from the first byte to the last host that has everything, out of the journal.
func (p *peersBench) took(since time.Time) (_ time.Duration, err error) {
	f, err := os.Open(filepath.Join(p.lab.Dir, "peers", "clusters", "peers", "journal.jsonl"))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	var first, last time.Time
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var e struct {
			Time        time.Time
			Step, Event string
		}
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return 0, err
		}
		switch {
		case e.Time.Before(since):
		case e.Step == "sending sealer-node" && e.Event == "started" && first.IsZero():
			first = e.Time
		case e.Step == "sending the image" && e.Event == "done":
			last = e.Time
		}
	}
	if first.IsZero() || last.Before(first) {
		return 0, errors.New("reading the journal: nothing was sent")
	}
	return last.Sub(first), nil
}

// busy is the CPU time of the first hosts so far; 0 where their kernel does not say.
func (p *peersBench) busy(ctx context.Context, n int) time.Duration {
	var total time.Duration
	for _, h := range p.lab.Hosts.Hosts[:n] {
		out, err := h.Exec(ctx, "sh", "-c", "cat /sys/fs/cgroup/cpuacct/cpuacct.usage 2>/dev/null || awk '/^usage_usec/ {printf \"%d\", $2 * 1000}' /sys/fs/cgroup/cpu.stat")
		if err == nil {
			if ns, err := parse(out); err == nil {
				total += time.Duration(ns)
			}
		}
	}
	return total
}

// others copy the tree of files as it lies unpacked, as tools without blobs do: to one host, a part of it, and calculated for all.
func (p *peersBench) others(ctx context.Context) error {
	sample := filepath.Join(p.dir, "sample")
	if err := writeTree(sample, peersLarge/peersSample, peersSmall/peersSample); err != nil {
		return err
	}
	h := p.lab.Hosts.Hosts[0]
	login := fmt.Sprintf("-q -i %s -o UserKnownHostsFile=%s -o StrictHostKeyChecking=yes -o HostKeyAlgorithms=ssh-ed25519", p.lab.Hosts.KeyFile, p.lab.Hosts.KnownHosts)
	for name, script := range map[string]string{
		"scp -r":                 fmt.Sprintf("scp -r %s %s root@%s:/root/bench", login, sample, h.Address),
		"sftp, file by file":     fmt.Sprintf("echo 'put -r %s /root/bench' | sftp %s -b - root@%s", sample, login, h.Address),
		"tar over ssh, no blobs": fmt.Sprintf("tar -C %s -c . | ssh %s root@%s 'mkdir -p /root/bench && tar -C /root/bench -x'", sample, login, h.Address),
	} {
		if _, err := h.Exec(ctx, "sh", "-c", "rm -rf /root/bench; mkdir /root/bench"); err != nil {
			return err
		}
		cost, err := run(ctx, "", shell(script)...)
		if err != nil {
			return err
		}
		cost.Wall, cost.CPU = cost.Wall*peersSample, cost.CPU*peersSample
		p.rows = append(p.rows, Row{
			Job: "the files alone on 1 host, 20 ms away", Program: name, Cost: cost,
			Note: fmt.Sprintf("%d of %d files measured, × %d; × %s of sealer on 2 hosts", peersSmall/peersSample, peersSmall, peersSample, ratio(cost.Wall, p.first.Wall)),
		})
	}
	_, err := h.Exec(ctx, "rm", "-rf", "/root/bench")
	return err
}
