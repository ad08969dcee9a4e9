// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/internal/vip"
	"github.com/sealerio/sealer/runtime"
)

// appliedFile says which configuration the program that carries the address was told of last.
const appliedFile = vip.Dir + "/applied"

// signalProgram sends the signal $1 to the keepalived that runs with the configuration $2: to the process that the others come from.
const signalProgram = `runs() { case $(cat "/proc/$1/comm" 2>/dev/null) in keepalived*) tr '\0' '\n' <"/proc/$1/cmdline" 2>/dev/null | grep -qxF -e "--use-file=$2" ;; *) false ;; esac; }
for dir in /proc/[0-9]*; do
	pid=${dir#/proc/}
	if runs "$pid" "$2" && ! runs "$(awk '$1 == "PPid:" { print $2 }' "$dir/status" 2>/dev/null)" "$2"; then kill -s "$1" "$pid" 2>/dev/null || :; fi
done`

// giveUp takes the pod $1 away, waits until what it ran has given up the address, and takes the address itself where it has not: by then the
// host is none of the cluster any more. A program that is told to end says so to the others, one of which takes over at once.
const giveUp = `set -u
[ -e "$3/address" ] || exit 0
has() { while read -r address link; do ! ip -o addr show dev "$link" 2>/dev/null | grep -qF " $address/" || return 0; done <"$3/address"; return 1; }
[ -z "$1" ] || rm -f "$1"
n=0
while [ $n -lt 20 ]; do
	[ -z "$1" ] || sh -c "$4" sh TERM "$2"
	sleep 0.5
	has "$@" || break
	n=$((n + 1))
done`

// takeAway is the end of it, once nothing of the cluster runs on the host.
const takeAway = `set -u
dir=$1
[ ! -e "$dir/address" ] || while read -r address link; do
	ip -o addr show dev "$link" 2>/dev/null | awk -v a="$address/" '{ for (i = 1; i <= NF; i++) if (index($i, a) == 1) print $i }' | while read -r prefix; do
		ip addr del "$prefix" dev "$link" || :
	done
done <"$dir/address"
rm -rf "$dir"`

// carrying has a control plane take part in carrying the virtual address, and in carrying that before while hosts are led from it.
func (r *run) carrying(h *runtime.Host) []runtime.Step { return r.carryingBeside(h, r.beside(h)) }

func (r *run) carryingBeside(h *runtime.Host, before clusterfile.Endpoint) []runtime.Step {
	c, e := r.cluster, r.cluster.File.Endpoint
	d, ok := r.distribution.(runtime.Addressed)
	if !ok || e.VIP == "" || h.Spec.Role != clusterfile.ControlPlane {
		return nil
	}
	link, _ := runtime.VirtualLink(e, h)
	p := vip.Place{
		Address: e.Address(), Bits: bitsOf(e), Link: link, Own: h.IP(), OwnLink: h.Link(), APIPort: d.APIPort(c), Password: c.AddressPassword.Reveal(),
		Node: runtime.NodeBinary, Kubeconfig: r.distribution.Kubectl().Kubeconfig,
	}
	if before.VIP != "" {
		was, _ := runtime.VirtualLink(before, h)
		p.Before = vip.Carried{Address: before.Address(), Bits: bitsOf(before), Link: was}
	}
	p.Program, p.Image = vip.Find(c.Images, runtime.Repository)
	for i, ip := range controlPlaneIPs(c) {
		if ip == h.IP() {
			p.Rank = i
			continue
		}
		p.Peers = append(p.Peers, ip)
	}
	files, err := carriedFiles(p, d.StaticPods())
	return []runtime.Step{{
		Name: fmt.Sprintf("carrying the virtual address %s", p.Address),
		Done: func(ctx context.Context) (bool, error) {
			if err != nil {
				return false, err
			}
			for _, f := range files {
				if same, err := runtime.SameFile(ctx, h.Runner, f.path, f.data); err != nil || !same {
					return false, err
				}
			}
			return true, nil
		},
		Do: func(ctx context.Context, log io.Writer) error {
			if err != nil {
				return err
			}
			return carry(ctx, h, files, log)
		},
	}}
}

// carriedFiles are what a control plane needs to carry the address, in the order in which they are written. pods is the kubelet's
// folder of pods; empty: the distribution has what it needs.
func carriedFiles(p vip.Place, pods string) ([]carriedFile, error) {
	files := []carriedFile{
		{addressPasswordFile, []byte(p.Password + "\n"), 0o600},
		{vip.AddressFile, []byte(p.Addresses()), 0o644},
	}
	if pods == "" {
		return files, nil
	}
	config := []byte(p.Config())
	if p.Program != vip.KubeVIP {
		files = append(files, carriedFile{vip.ConfigFile, config, 0o600})
	}
	if p.Program != "" { // hosts that stay when others go are told of that alone
		pod, err := p.Pod()
		if err != nil {
			return nil, err
		}
		files = append(files, carriedFile{path.Join(pods, vip.PodFile), pod, 0o600})
	}
	sum := sha256.Sum256(config)
	return append(files, carriedFile{appliedFile, []byte(hex.EncodeToString(sum[:]) + "\n"), 0o644}), nil
}

// bitsOf is the length of the network that the Clusterfile gives the address; 0: none. Without one the interface gets no second route.
func bitsOf(e clusterfile.Endpoint) int {
	_, bits, said := strings.Cut(e.VIP, "/")
	n := 0
	if said {
		_, _ = fmt.Sscanf(bits, "%d", &n) // it was checked when the file was read
	}
	return n
}

// carriedFile is a file on a control plane.
type carriedFile struct {
	path string
	data []byte
	mode fs.FileMode
}

// carry writes the files that differ, the one that says that all is done last. A keepalived that runs takes up its new
// configuration without giving up the address.
func carry(ctx context.Context, h *runtime.Host, files []carriedFile, log io.Writer) error {
	if err := h.Runner.Run(ctx, host.Command{Argv: []string{"mkdir", "-p", "-m", "0700", vip.Dir}, Stderr: log, Mutates: true}); err != nil {
		return err
	}
	for _, f := range files {
		same, err := runtime.SameFile(ctx, h.Runner, f.path, f.data)
		if err != nil {
			return err
		}
		if same {
			continue
		}
		if f.path == appliedFile {
			if err := h.Runner.Run(ctx, host.Command{Argv: []string{"sh", "-c", signalProgram, "sh", "HUP", vip.ConfigFile}, Stdout: log, Stderr: log, Mutates: true}); err != nil {
				return err
			}
		}
		if err := host.WriteFile(ctx, h.Runner, f.path, f.data, f.mode); err != nil {
			return err
		}
	}
	return nil
}

// carriers are the control planes that are part of the cluster already: those that join must be known to them first, or two would have
// the address.
func (r *run) carriers() []*runtime.Host {
	return slices.DeleteFunc(r.cluster.ControlPlanes(), func(h *runtime.Host) bool {
		return h != r.cluster.Server() && !r.begun(h) && !r.joinedBefore(h)
	})
}

// carried tells whether the host took part in carrying the address.
func carried(h *runtime.Host) bool {
	s := h.Facts.State
	return s != nil && (strings.HasPrefix(s.Steps[stepEndpoint], "vip ") || strings.HasPrefix(s.Steps[stepMoving], "vip "))
}

// surrender ends a control plane's part in carrying the address, before the distribution is taken off it; what is on the host says what that was.
func surrender(d runtime.Distribution, h *runtime.Host) []runtime.Step {
	a, ok := d.(runtime.Addressed)
	if !ok || !carried(h) {
		return nil
	}
	return []runtime.Step{{
		Name: "giving up the virtual address",
		Done: func(ctx context.Context) (bool, error) {
			there, err := asks(ctx, h, "test", "-e", vip.AddressFile)
			return !there, err
		},
		Do: func(ctx context.Context, log io.Writer) error {
			return h.Runner.Run(ctx, host.Command{
				Argv: append([]string{"sh", "-c", giveUp, "sh"}, surrenderArgs(a)...), Stdout: log, Stderr: log, Mutates: true,
			})
		},
	}}
}

// surrenderArgs are those of giveUp.
func surrenderArgs(a runtime.Addressed) []string {
	pod := ""
	if dir := a.StaticPods(); dir != "" {
		pod = path.Join(dir, vip.PodFile)
	}
	return []string{pod, vip.ConfigFile, vip.Dir, signalProgram}
}

// surrendered takes the address and our files off the host, in the end.
func surrendered(h *runtime.Host) []runtime.Step {
	if !carried(h) {
		return nil
	}
	return []runtime.Step{{
		Name: "removing the virtual address",
		Done: func(ctx context.Context) (bool, error) {
			there, err := asks(ctx, h, "test", "-e", vip.Dir)
			return !there, err
		},
		Do: func(ctx context.Context, log io.Writer) error {
			return h.Runner.Run(ctx, host.Command{Argv: []string{"sh", "-c", takeAway, "sh", vip.Dir}, Stdout: log, Stderr: log, Mutates: true})
		},
	}}
}
