// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/Masterminds/semver/v3"

	"github.com/sealerio/sealer/cluster/kube"
	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/internal/blobstream"
	"github.com/sealerio/sealer/runtime"
)

// maxKubeletSkew is how many minor versions a kubelet may be behind its API server:
// https://kubernetes.io/releases/version-skew-policy/#kubelet.
const maxKubeletSkew = 3

// look finds out how far the cluster is, and everything that stands in the way of the upgrade. Nothing is changed.
func (u *upgrade) look(ctx context.Context, id string) error {
	c := u.cluster
	u.target = u.distribution.KubeletVersion(c)
	var problems []runtime.Problem
	add := func(host, check, fix, format string, args ...any) {
		problems = append(problems, runtime.Problem{Host: host, Check: check, What: fmt.Sprintf(format, args...), Fix: fix})
	}
	// Where the hosts are not this cluster's, nothing else is asked of them. What is wrong with the image alone waits for the rest.
	err := runtime.PreflightUpgrade(c, u.distribution, u.Distributions, id, nil)
	if found, ok := errors.AsType[*runtime.PreflightError](err); err != nil && (!ok || slices.ContainsFunc(found.Problems, func(p runtime.Problem) bool { return p.Host != "" })) {
		return err
	}
	if err := u.checkImage(); err != nil {
		return err
	}
	contact, err := findContact(ctx, c, u.distribution)
	if err != nil {
		return err
	}
	if contact == nil {
		return noContact(c, u.distribution)
	}
	c.Contact, u.contact = contact, contact
	list, err := u.api().Nodes(ctx)
	if err != nil {
		return err
	}
	u.nodes, u.todo = map[*runtime.Host]kube.Node{}, nil
	known := map[string]*runtime.Host{}
	for _, h := range c.Hosts {
		known[h.Facts.NodeName()] = h
	}
	for _, n := range list {
		name := n.Metadata.Name
		h := known[name]
		if h == nil && !u.skipped(n) {
			add("", "nodes", "add its host to the Clusterfile, or leave it as it is with --skip "+name, "the node %s is none of the cluster's hosts as this command knows them", name)
			continue
		}
		who := name
		if h != nil {
			who = h.String()
			u.nodes[h] = n
			if why := readiness(n); why != "" && !u.begun(h) {
				add(who, "nodes", "mend the node first; a worker that has to wait is left out with --skip "+h.Spec.Address, "its node is not Ready: %s", why)
			}
		}
		u.skew(n, h == nil, func(fix, format string, args ...any) { add(who, "version", fix, format, args...) })
	}
	u.todo = u.undone()
	for _, h := range append(c.ControlPlanes(), c.Workers()...) {
		if _, there := u.nodes[h]; !there {
			add(h.String(), "nodes", "join it first: sealer run, or sealer join", "it is no node of the cluster")
		}
	}
	if err := u.asks(ctx, add); err != nil {
		return err
	}
	return runtime.PreflightUpgrade(c, u.distribution, u.Distributions, id, problems)
}

// skipped: a node that is to be left as it is, by its name or an address.
func (u *upgrade) skipped(n kube.Node) bool {
	if slices.Contains(u.how.Skip, n.Metadata.Name) {
		return true
	}
	return slices.ContainsFunc(n.Status.Addresses, func(a struct{ Type, Address string }) bool { return slices.Contains(u.how.Skip, a.Address) })
}

// skew checks a node's version against that of the image.
func (u *upgrade) skew(n kube.Node, skipped bool, add func(fix, format string, args ...any)) {
	have := n.Status.NodeInfo.KubeletVersion
	from, err1 := semver.NewVersion(have)
	to, err2 := semver.NewVersion(u.target)
	if err1 != nil || err2 != nil {
		add("use an image that says its version", "the versions %q of the node and %q of the image cannot be compared", have, u.target)
		return
	}
	reach := uint64(1)
	if skipped {
		reach = maxKubeletSkew
	}
	patch := to.Major() == from.Major() && to.Minor() == from.Minor()
	switch {
	case u.how.Back && patch && !to.GreaterThan(from), !u.how.Back && to.Equal(from):
	case u.how.Back && to.GreaterThan(from):
		add("use sealer upgrade "+u.ImageName, "it runs %s, which is older than %s of the image: that is no way back", have, u.target)
	case to.LessThan(from) && patch:
		add("to go back within a minor version: sealer rollback "+u.ImageName, "it runs %s, which is newer than %s of the image: an upgrade does not go back", have, u.target)
	case to.LessThan(from):
		add("Kubernetes cannot be downgraded: make a cluster of the older image anew; where the distribution allows it, sealer etcd restore brings it what was saved before the upgrade (docs/upgrade.md)",
			"it runs %s, which is newer than %s of the image", have, u.target)
	case to.Major() != from.Major() || to.Minor() > from.Minor()+reach:
		add(fmt.Sprintf("upgrade by one minor version at a time: first to an image of v%d.%d", from.Major(), from.Minor()+1),
			"it runs %s, and %s of the image is %d minor versions on", have, u.target, to.Minor()-from.Minor())
	}
}

// undone are the nodes that still have something to be done, control planes first.
func (u *upgrade) undone() []*runtime.Host {
	var list []*runtime.Host
	for _, h := range append(u.cluster.ControlPlanes(), u.cluster.Workers()...) {
		n := u.nodes[h]
		s := h.Facts.State
		upgraded := s.ImageDigest == u.cluster.Digest && (s.Steps[stepUpgraded] == u.cluster.Digest || s.Complete && s.PreviousDigest == "")
		if !upgraded || n.Status.NodeInfo.KubeletVersion != u.target || readiness(n) != "" || n.Metadata.Annotations[cordonedByUs] != "" {
			list = append(list, h)
		}
	}
	return list
}

// asks hosts how they are, and what they lack.
func (u *upgrade) asks(ctx context.Context, add func(host, check, fix, format string, args ...any)) error {
	c := u.cluster
	u.missing = map[*runtime.Host]int64{}
	type answer struct {
		unwell []runtime.Problem
		lacks  []blobstream.Header
	}
	answers := map[*runtime.Host]*answer{}
	for _, h := range c.Hosts {
		answers[h] = &answer{}
	}
	err := onAll(c.Hosts, func(h *runtime.Host) (err error) {
		a := answers[h]
		for _, p := range u.distribution.Health(c, h) {
			if u.begun(h) {
				continue // it is being mended
			}
			if err := p.Ask(ctx); err != nil {
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				a.unwell = append(a.unwell, runtime.Problem{Check: "health", What: fmt.Sprintf("%s is not well: %v", p.Name, err), Fix: p.Fix})
			}
		}
		if h.Spec.Role == clusterfile.ControlPlane && !u.begun(h) {
			certs, err := u.distribution.Certificates(ctx, c, h)
			if err != nil {
				return err
			}
			a.unwell = append(a.unwell, expiring(certs)...)
		}
		a.lacks, err = u.transfer().Missing(ctx, h)
		return err
	})
	if err != nil {
		return err
	}
	for _, h := range c.Hosts {
		for _, p := range answers[h].unwell {
			add(h.String(), p.Check, p.Fix, "%s", p.What)
		}
		bytes, need := int64(0), int64(0)
		layers := u.layerSizes(h)
		for _, b := range answers[h].lacks {
			bytes += b.Size - b.Offset
			need += b.Size
			if layers[b.Digest.String()] {
				need += b.Size * (rootfsGrowth - 1)
			}
		}
		u.missing[h] = bytes
		need += u.newImages(h, answers[h].lacks) + upgradeReserve
		if bytes > 0 && h.Facts.DiskFree < need {
			add(h.String(), "disk", "make room in the file system that holds /var/lib", "%d MiB are free below /var/lib, the upgrade needs %d MiB", h.Facts.DiskFree>>20, need>>20)
		}
	}
	return nil
}

// expiresSoon is how long before its end a certificate is in the way: one that ends meanwhile ends the upgrade, too.
const expiresSoon = 7 * 24 * time.Hour

func expiring(certs []runtime.Certificate) []runtime.Problem {
	var problems []runtime.Problem
	for _, c := range certs {
		if time.Until(c.NotAfter) < expiresSoon {
			problems = append(problems, runtime.Problem{
				Check: "certificates", What: fmt.Sprintf("its certificate %s is valid until %s", c.Name, c.NotAfter.UTC().Format(time.DateTime)),
				Fix: "renew the certificates first: sealer cert renew",
			})
		}
	}
	return problems
}

// upgradeReserve is for the snapshot, logs and what grows meanwhile.
const upgradeReserve = 512 << 20

// layerSizes are the layers of the host's rootfs.
func (u *upgrade) layerSizes(h *runtime.Host) map[string]bool {
	layers := map[string]bool{}
	if rootfs, err := u.Image.Platform(platformOf(h)); err == nil {
		for _, l := range rootfs.Manifest.Layers {
			layers[l.Digest.String()] = true
		}
	}
	return layers
}

// newImages is what a host may unpack of images that it cannot have yet: those of which the first control plane lacks something,
// or, on other hosts, all that the distribution itself needs.
func (u *upgrade) newImages(h *runtime.Host, lacks []blobstream.Header) int64 {
	if len(lacks) == 0 {
		return 0
	}
	own := u.distribution.Images(u.cluster)
	total := int64(0)
	for _, p := range u.Image.Images {
		if p.Platform == h.Platform && (slices.Contains(own, p.Name) || slices.Contains(own, runtime.Repository(p.Name))) {
			total += p.Size * imageGrowth
		}
	}
	return total
}

// batches are the workers among hosts, in groups.
func (u *upgrade) batches(list []*runtime.Host) ([][]*runtime.Host, error) {
	size, err := batchSize(u.how.Batch, len(u.cluster.Workers()))
	if err != nil {
		return nil, err
	}
	workers := slices.DeleteFunc(slices.Clone(list), func(h *runtime.Host) bool { return h.Spec.Role != clusterfile.Worker })
	return slices.Collect(slices.Chunk(workers, cmp.Or(size, 1))), nil
}
