// SPDX-License-Identifier: Apache-2.0

// Package runtime says what a Kubernetes distribution is to sealer: named,
// repeatable steps per host, planned from facts. It also has what all
// distributions share: the facts themselves, the checks before anything is
// touched, and the files that point containerd at the cluster's registry.
package runtime

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/host"
)

// Distribution is one Kubernetes distribution. Its methods plan; only the
// steps they return touch hosts.
type Distribution interface {
	// Name is what Metadata.ClusterRuntime calls it.
	Name() string
	// Marks are its traces on a host.
	Marks() Marks
	// Check finds what hosts lack for this distribution; the checks that all share are not repeated.
	Check(c *Cluster) []Problem
	// Install puts the container runtime and the distribution's programs on a host.
	Install(c *Cluster, h *Host) []Step
	// Init starts the cluster on its first control plane.
	Init(c *Cluster, h *Host) []Step
	// Join makes a host part of the started cluster. Workers may join at once, control planes one by one.
	Join(c *Cluster, h *Host) []Step
	// Leave takes a node out of what its distribution keeps of it, before Reset, while the rest of the cluster stays: the
	// member of the datastore first. h may be Lost: then the steps run on c.Server() alone. c.Server() is never h.
	Leave(c *Cluster, h *Host) []Step
	// Reset takes the distribution off a host, also off one where a step above was cut.
	Reset(c *Cluster, h *Host) []Step
	// Forget removes what the cluster still knows of a node after its Reset: the Node object, and what the distribution keeps
	// besides. It runs on c.Server(); h may be Lost. The Node object goes last: from it alone a lost host's name is known.
	Forget(c *Cluster, h *Host) []Step
	// Images are the packed images that the distribution itself needs, as full names or as what Repository gives of
	// them. Check reports those that are missing.
	Images(c *Cluster) []string
	// Health are questions about a host that is part of a running cluster, and is not Lost. A control plane whose
	// datastore counts members has one that is named ProbeDatastore.
	Health(c *Cluster, h *Host) []Probe
	// KubeletVersion is what the nodes report once they run what the image holds.
	KubeletVersion(c *Cluster) string
	// Upgrade takes one node to what the image holds: c and h.Rootfs are of the new one. running goes first, with the
	// node's pods in place; drained when they are gone. Between the two the node is drained; after them it
	// becomes Ready with KubeletVersion, and is given pods again. Control planes are upgraded one by one, then workers;
	// c.Server() is another control plane than h where there is one.
	Upgrade(c *Cluster, h *Host) (running, drained []Step)
	// Snapshot saves the cluster's data to a file on the control plane h, mode 0600, while the cluster runs. No steps: the
	// data is kept elsewhere.
	Snapshot(c *Cluster, h *Host, file string) []Step
	// Restore starts the cluster anew from such a file on h; control planes that are Lost are left out.
	Restore(c *Cluster, h *Host, file string) []Step
	// Certificates reads those on a host that is not Lost.
	Certificates(ctx context.Context, c *Cluster, h *Host) ([]Certificate, error)
	// Renew makes the certificates of a host anew, all but the CAs'; control planes go one by one. Nothing where there is nothing to do.
	Renew(c *Cluster, h *Host) []Step
	// ServerNames makes the certificate of the API server on a control plane say c's names, AltNames among them.
	ServerNames(c *Cluster, h *Host) []Step
	// Minors of Kubernetes that it is known to work with.
	Minors() Minors
	// Service is what makes the host a node: kubelet, k3s, k0scontroller.
	Service(h *Host) Service
	// Kubectl is how to ask the API server on the first control plane.
	Kubectl() Kubectl
}

// Balanced is a Distribution whose workers reach the API servers through a balancer that sealer runs on each of
// them. Others bring their own.
type Balanced interface {
	// BalancedPort is the port of the API servers, and of the balancer on loopback; 0: this cluster needs none.
	BalancedPort(c *Cluster) int
}

// Repointer is a Distribution that can point a host that runs at the control planes and registries of c, without the
// image's rootfs: after control planes have come or gone. Distributions without it find them by themselves.
type Repointer interface {
	Repoint(c *Cluster, h *Host) []Step
}

// Truster is a Distribution whose container runtime reads the registry's CA from a file at every pull. Others have no other CA than that which they
// were installed with.
type Truster interface {
	RegistryCAFile() string
}

// Prefetcher is a Distribution that pulls images when a host joins. Hosts that wait for the cluster to start, or for others to join,
// do it in that time.
type Prefetcher interface {
	Prefetch(c *Cluster, h *Host) []Step
}

// Restarter is a Distribution whose control plane is pods of the kubelet: a new kubelet may start them anew some seconds after it has
// reported, and with them the API server that everything else is asked of.
type Restarter interface {
	RestartsLate() bool
}

// Distributions are those that this sealer installs, by name.
type Distributions map[string]Distribution

func (ds Distributions) names() []string { return slices.Sorted(maps.Keys(ds)) }

// ChooseClusterRuntime finds the distribution that an image's metadata asks for; the error is a *UnknownError.
func (ds Distributions) ChooseClusterRuntime(m clusterimage.Metadata) (Distribution, error) {
	if d := ds[m.ClusterRuntime]; d != nil {
		return d, nil
	}
	return nil, &UnknownError{Name: m.ClusterRuntime, Have: ds.names()}
}

// UnknownError is a distribution of Kubernetes that this sealer does not install.
type UnknownError struct {
	Name string // empty where an image names none
	Have []string
}

func (e *UnknownError) Error() string {
	if e.Name == "" {
		return "it does not say which cluster runtime it holds"
	}
	return fmt.Sprintf("it holds the cluster runtime %q; this sealer installs %s", e.Name, strings.Join(e.Have, ", "))
}

// Hint says how an image says it.
func (e *UnknownError) Hint() string {
	return "build it FROM a base image, or with LABEL " + clusterimage.LabelClusterRuntime + "=" + strings.Join(e.Have, "|") + " in its Kubefile"
}

// Kubectl is a kubectl command without its arguments.
type Kubectl struct {
	Argv       []string
	Kubeconfig string // path on the control plane
}

// Command is kubectl with arguments.
func (k Kubectl) Command(args ...string) host.Command {
	return host.Command{Argv: append(slices.Clone(k.Argv), args...), Env: []string{"KUBECONFIG=" + k.Kubeconfig}}
}

// Step is one named change of a host. Doing it twice is the same as doing it once.
type Step struct {
	Name string // "installing containerd"
	// Key stands for what the step was made from. The host's state keeps it when the step is done. Empty: nothing is kept.
	Key string
	// Done observes the host: nothing is left to do. nil: the kept Key alone decides. A step is
	// passed over when its Key is the kept one and Done agrees.
	Done func(ctx context.Context) (bool, error)
	// Do makes the change; output goes to log.
	Do func(ctx context.Context, log io.Writer) error
}

// ProbeDatastore is the name of the Probe that tells whether a host's member of the cluster's datastore serves, as part
// of a majority. Control planes without such a probe, those of an external datastore, do not count for a majority.
const ProbeDatastore = "datastore"

// Probe is a question about a host.
type Probe struct {
	Name string // what is asked about: "kubelet"
	Fix  string // what to do where it is not well
	// Ask changes nothing. nil: all is well.
	Ask func(ctx context.Context) error
}

// NodeBinary is where sealer-node is on hosts. Another name, since a host may be an operator's machine, whose
// own sealer-node lies beside sealer and stays when the cluster goes.
const NodeBinary = "/usr/local/bin/sealer-cluster-node"

// Cluster is a cluster in the making, as distributions see it.
type Cluster struct {
	File     *clusterfile.File
	Metadata clusterimage.Metadata
	// Digest of the ClusterImage.
	Digest string
	// Images are the names of all packed container images.
	Images []string
	// Older is set where the rootfs is that of an older tool's image.
	Older *Older
	// Env of the image; the Clusterfile's goes over it.
	Env map[string]string
	// Hosts are all machines, control planes first; Hosts[0] is the first control plane.
	Hosts []*Host
	// AddressPassword is what control planes know one another by when they hand on the virtual address. Empty until it is needed.
	AddressPassword host.Secret
	// AltNames are further names and addresses for the API server's certificate.
	AltNames []string
	// Contact is the control plane through which a running cluster is asked and grown. nil: the first one.
	Contact *Host
	// Registry is how hosts reach the cluster's registry. CA and credentials are empty until it was started.
	Registry Registry
}

// Host is one machine of a cluster.
type Host struct {
	Spec   clusterfile.Host
	Runner host.Runner // nil where Lost
	// Lost is why the host cannot be reached; of Facts only the host name is known then.
	Lost   error
	Facts  Facts
	Rootfs string // where the image's rootfs is on the host; empty until it was mounted
	// Platform of the image's rootfs that fits the host.
	Platform string
	// DiskNeed is how many bytes the image will take on the host.
	DiskNeed int64
}

func (h *Host) String() string {
	if h.Runner == nil {
		return h.Spec.String()
	}
	return h.Runner.String()
}

// IP is the address by which other hosts reach this one. This machine, when it is the
// cluster, gives the address that it was installed with, or else its first global one, IPv4 before IPv6: a
// pod network brings addresses of its own, which must not be taken for it later.
func (h *Host) IP() string {
	if !h.Spec.Local() {
		return h.Spec.Address
	}
	if s := h.Facts.State; s != nil && s.Address != "" {
		return s.Address
	}
	var v6 string
	for _, p := range h.Facts.Addresses {
		if p.Addr().Is4() {
			return p.Addr().String()
		}
		if v6 == "" {
			v6 = p.Addr().String()
		}
	}
	return v6
}

// HasAddress tells whether IP stands on one of the host's interfaces.
func (h *Host) HasAddress() bool {
	ip, err := netip.ParseAddr(h.IP())
	return err == nil && slices.ContainsFunc(h.Facts.Addresses, func(p netip.Prefix) bool { return p.Addr() == ip.Unmap() })
}

// Link is the interface that has the host's own address; empty where none has.
func (h *Host) Link() string {
	ip, err := netip.ParseAddr(h.IP())
	if err != nil {
		return ""
	}
	for _, p := range h.Facts.Addresses {
		if p.Addr() == ip.Unmap() {
			return h.Facts.LinkOf[p]
		}
	}
	return ""
}

// First is the first control plane.
func (c *Cluster) First() *Host { return c.Hosts[0] }

// Server is the control plane through which the cluster is asked and grown.
func (c *Cluster) Server() *Host {
	if c.Contact != nil {
		return c.Contact
	}
	return c.First()
}

// ControlPlanes are the control plane hosts, the first one first.
func (c *Cluster) ControlPlanes() []*Host { return c.role(clusterfile.ControlPlane) }

// Workers are the worker hosts.
func (c *Cluster) Workers() []*Host { return c.role(clusterfile.Worker) }

func (c *Cluster) role(r clusterfile.Role) []*Host {
	return slices.DeleteFunc(slices.Clone(c.Hosts), func(h *Host) bool { return h.Spec.Role != r })
}

// HostEnv is the environment for scripts, commands and templates on a host: the image's, over
// it the cluster's, over it the host's own.
func (c *Cluster) HostEnv(h *Host) map[string]string {
	env := map[string]string{}
	for _, m := range []map[string]string{c.Env, c.File.Env, h.Spec.Env} {
		maps.Copy(env, m)
	}
	return env
}

// KubeVersion is the version of Kubernetes, "v1.36.3": as the image's metadata says, or as the tag of its API server or
// the version of its distribution do ("v1.36.3+k3s1").
func (c *Cluster) KubeVersion() string {
	if c.Metadata.KubeVersion != "" {
		return c.Metadata.KubeVersion
	}
	for _, name := range c.Images {
		if repo, tag, ok := cutTag(name); ok && strings.HasSuffix(repo, "/kube-apiserver") {
			return tag
		}
	}
	version, _, _ := strings.Cut(c.Metadata.ClusterRuntimeVersion, "+")
	return version
}

// PauseImage is the packed sandbox image; empty where none is packed.
func (c *Cluster) PauseImage() string {
	for _, name := range c.Images {
		if repo, _, ok := cutTag(name); ok && strings.HasSuffix(repo, "/pause") {
			return name
		}
	}
	return ""
}

// cutTag splits "domain/path:tag"; a digest after it is dropped.
func cutTag(name string) (repo, tag string, ok bool) {
	name, _, _ = strings.Cut(name, "@")
	i := strings.LastIndexByte(name, ':')
	if i < strings.LastIndexByte(name, '/') {
		return name, "", false
	}
	return name[:i], name[i+1:], true
}

// Repository is the last part of an image's path: "coredns" of registry.k8s.io/coredns/coredns:v1.14.2.
func Repository(name string) string {
	repo, _, _ := cutTag(name)
	return repo[strings.LastIndexByte(repo, '/')+1:]
}

// EnvList is HostEnv as NAME=value, sorted.
func (c *Cluster) EnvList(h *Host) []string {
	env := c.HostEnv(h)
	list := make([]string, 0, len(env))
	for k, v := range env {
		list = append(list, k+"="+v)
	}
	slices.Sort(list)
	return list
}

// RootfsKey stands for the rootfs as it is on a host: the image's, with the
// Clusterfile's files and the environment rendered into it.
func (c *Cluster) RootfsKey(h *Host) string {
	sum := sha256.New()
	put := func(s string) { fmt.Fprintf(sum, "%d:%s", len(s), s) }
	put(c.Digest)
	put(c.PauseImage())
	put(c.Registry.Endpoint() + strings.TrimSuffix("/"+c.Registry.Path, "/"))
	for _, f := range c.File.Configs {
		put(f.Path)
		put(f.Data)
		put(string(f.Strategy))
		put(fmt.Sprint(f.Process))
	}
	for _, a := range c.File.Applications {
		put(a.Name)
		for _, name := range slices.Sorted(maps.Keys(a.Env)) {
			put(name + "=" + a.Env[name])
		}
	}
	for _, kv := range c.EnvList(h) {
		put(kv)
	}
	return hex.EncodeToString(sum.Sum(nil))[:32]
}
