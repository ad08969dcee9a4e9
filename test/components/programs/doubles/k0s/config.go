// SPDX-License-Identifier: Apache-2.0

package k0s

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/sealerio/sealer/test/components/programs/doubles/facts"
	"github.com/sealerio/sealer/test/components/programs/doubles/host"
	"github.com/sealerio/sealer/test/components/programs/doubles/mirror"
)

// clusterConfig is k0s.k0sproject.io/v1beta1 ClusterConfig, as far as it is told (docs.k0sproject.io, "Configuration").
type clusterConfig struct {
	APIVersion string         `json:"apiVersion"`
	Kind       string         `json:"kind"`
	Metadata   map[string]any `json:"metadata,omitempty"`
	Status     map[string]any `json:"status,omitempty"`
	Spec       spec           `json:"spec"`
}

type free = map[string]any

type spec struct {
	API               apiSpec      `json:"api"`
	ControllerManager *extra       `json:"controllerManager,omitempty"`
	Scheduler         *extra       `json:"scheduler,omitempty"`
	Storage           storageSpec  `json:"storage"`
	Network           networkSpec  `json:"network"`
	Images            *imagesSpec  `json:"images,omitempty"`
	InstallConfig     free         `json:"installConfig,omitempty"`
	Konnectivity      *konnSpec    `json:"konnectivity,omitempty"`
	Telemetry         *enabledSpec `json:"telemetry,omitempty"`
	Extensions        *struct {
		Helm    free `json:"helm,omitempty"`
		Storage free `json:"storage,omitempty"`
	} `json:"extensions,omitempty"`
	WorkerProfiles []struct {
		Name   string `json:"name"`
		Values free   `json:"values"`
	} `json:"workerProfiles,omitempty"`
	FeatureGates []free `json:"featureGates,omitempty"`
}

type extra struct {
	ExtraArgs    map[string]string `json:"extraArgs,omitempty"`
	RawArgs      []string          `json:"rawArgs,omitempty"`
	NodeCIDRMask free              `json:"nodeCIDRMask,omitempty"`
}

type apiSpec struct {
	Address           string            `json:"address,omitempty"`
	ExternalAddress   string            `json:"externalAddress,omitempty"`
	OnlyBindToAddress bool              `json:"onlyBindToAddress,omitempty"`
	Port              int               `json:"port,omitempty"`
	K0sAPIPort        int               `json:"k0sApiPort,omitempty"`
	SANs              []string          `json:"sans,omitempty"`
	ExtraArgs         map[string]string `json:"extraArgs,omitempty"`
	RawArgs           []string          `json:"rawArgs,omitempty"`
	TunneledNetwork   bool              `json:"tunneledNetworkingMode,omitempty"`
	CA                *struct {
		ExpiresAfter            string `json:"expiresAfter,omitempty"`
		CertificatesExpireAfter string `json:"certificatesExpireAfter,omitempty"`
	} `json:"ca,omitempty"`
}

type storageSpec struct {
	Type string `json:"type,omitempty"`
	Etcd *struct {
		PeerAddress     string            `json:"peerAddress,omitempty"`
		ExtraArgs       map[string]string `json:"extraArgs,omitempty"`
		RawArgs         []string          `json:"rawArgs,omitempty"`
		ExternalCluster free              `json:"externalCluster,omitempty"`
		CA              free              `json:"ca,omitempty"`
	} `json:"etcd,omitempty"`
	Kine *struct {
		DataSource string   `json:"dataSource,omitempty"`
		RawArgs    []string `json:"rawArgs,omitempty"`
	} `json:"kine,omitempty"`
}

type networkSpec struct {
	Provider      string `json:"provider,omitempty"`
	PodCIDR       string `json:"podCIDR,omitempty"`
	ServiceCIDR   string `json:"serviceCIDR,omitempty"`
	ClusterDomain string `json:"clusterDomain,omitempty"`
	Calico        free   `json:"calico,omitempty"`
	KubeRouter    free   `json:"kuberouter,omitempty"`
	DualStack     free   `json:"dualStack,omitempty"`
	CoreDNS       free   `json:"coreDNS,omitempty"`
	KubeProxy     *struct {
		Disabled bool   `json:"disabled,omitempty"`
		Mode     string `json:"mode,omitempty"`
		free2
	} `json:"kubeProxy,omitempty"`
	NLLB *struct {
		Enabled    bool   `json:"enabled,omitempty"`
		Type       string `json:"type,omitempty"`
		EnvoyProxy free   `json:"envoyProxy,omitempty"`
		Traefik    free   `json:"traefik,omitempty"`
	} `json:"nodeLocalLoadBalancing,omitempty"`
	CPLB *struct {
		Enabled    bool   `json:"enabled,omitempty"`
		Type       string `json:"type,omitempty"`
		Keepalived *struct {
			VRRPInstances []struct {
				VirtualIPs            []string `json:"virtualIPs,omitempty"`
				Interface             string   `json:"interface,omitempty"`
				VirtualRouterID       int      `json:"virtualRouterID,omitempty"`
				AdvertIntervalSeconds int      `json:"advertIntervalSeconds,omitempty"`
				AuthPass              string   `json:"authPass,omitempty"`
				UnicastSourceIP       string   `json:"unicastSourceIP,omitempty"`
				UnicastPeers          []string `json:"unicastPeers,omitempty"`
				AddressLabel          int      `json:"addressLabel,omitempty"`
			} `json:"vrrpInstances,omitempty"`
			VirtualServers      []free `json:"virtualServers,omitempty"`
			UserSpaceProxyPort  int    `json:"userSpaceProxyBindPort,omitempty"`
			DisableLoadBalancer bool   `json:"disableLoadBalancer,omitempty"`
			ConfigTemplateVRRP  string `json:"configTemplateVRRP,omitempty"`
			ConfigTemplateVS    string `json:"configTemplateVS,omitempty"`
		} `json:"keepalived,omitempty"`
	} `json:"controlPlaneLoadBalancing,omitempty"`
}

// free2 are the settings of kube-proxy that the double has no use for.
type free2 struct {
	MetricsBindAddress string            `json:"metricsBindAddress,omitempty"`
	NodePortAddresses  []string          `json:"nodePortAddresses,omitempty"`
	IPTables           free              `json:"iptables,omitempty"`
	IPVS               free              `json:"ipvs,omitempty"`
	NFTables           free              `json:"nftables,omitempty"`
	ExtraArgs          map[string]string `json:"extraArgs,omitempty"`
	RawArgs            []string          `json:"rawArgs,omitempty"`
}

type konnSpec struct {
	AgentPort       int    `json:"agentPort,omitempty"`
	AdminPort       int    `json:"adminPort,omitempty"`
	ExternalAddress string `json:"externalAddress,omitempty"`
}

type enabledSpec struct {
	Enabled bool `json:"enabled"`
}

type imageSpec struct {
	Image   string `json:"image,omitempty"`
	Version string `json:"version,omitempty"`
}

type imagesSpec struct {
	Repository        string     `json:"repository,omitempty"`
	DefaultPullPolicy string     `json:"default_pull_policy,omitempty"`
	Pause             *imageSpec `json:"pause,omitempty"`
	Konnectivity      *imageSpec `json:"konnectivity,omitempty"`
	MetricsServer     *imageSpec `json:"metricsserver,omitempty"`
	KubeProxy         *imageSpec `json:"kubeproxy,omitempty"`
	CoreDNS           *imageSpec `json:"coredns,omitempty"`
	PushGateway       *imageSpec `json:"pushgateway,omitempty"`
	Calico            *struct {
		CNI         *imageSpec `json:"cni,omitempty"`
		Node        *imageSpec `json:"node,omitempty"`
		Controllers *imageSpec `json:"kubecontrollers,omitempty"`
		Windows     free       `json:"windows,omitempty"`
	} `json:"calico,omitempty"`
	KubeRouter *struct {
		CNI          *imageSpec `json:"cni,omitempty"`
		CNIInstaller *imageSpec `json:"cniInstaller,omitempty"`
	} `json:"kuberouter,omitempty"`
	Windows free `json:"windows,omitempty"`
}

const defaultConfigPath = "/etc/k0s/k0s.yaml"

// readConfig reads the file, or - for stdin; no path is the usual file, which need not be there.
func readConfig(path string) (clusterConfig, error) {
	var c clusterConfig
	var content []byte
	var err error
	switch path {
	case "-":
		content, err = io.ReadAll(io.LimitReader(os.Stdin, 1<<20))
	case "":
		if content, err = os.ReadFile(defaultConfigPath); errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
	default:
		content, err = os.ReadFile(path)
	}
	if err != nil {
		return c, fmt.Errorf("failed to load config: %w", err)
	}
	if err := yaml.UnmarshalStrict(content, &c); err != nil {
		return c, fmt.Errorf("failed to parse config: %w", err)
	}
	c.fill()
	return c, nil
}

func (c *clusterConfig) fill() {
	set := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	set(&c.APIVersion, "k0s.k0sproject.io/v1beta1")
	set(&c.Kind, "ClusterConfig")
	if c.Metadata == nil {
		c.Metadata = free{"name": "k0s", "namespace": "kube-system"}
	}
	set(&c.Spec.API.Address, host.Address())
	if c.Spec.API.Port == 0 {
		c.Spec.API.Port = 6443
	}
	if c.Spec.API.K0sAPIPort == 0 {
		c.Spec.API.K0sAPIPort = 9443
	}
	set(&c.Spec.Storage.Type, "etcd")
	set(&c.Spec.Network.Provider, "kuberouter")
	set(&c.Spec.Network.PodCIDR, "10.244.0.0/16")
	set(&c.Spec.Network.ServiceCIDR, "10.96.0.0/12")
	set(&c.Spec.Network.ClusterDomain, "cluster.local")
}

func (c *clusterConfig) peerAddress() string {
	if e := c.Spec.Storage.Etcd; e != nil && e.PeerAddress != "" {
		return e.PeerAddress
	}
	return c.Spec.API.Address
}

func (c *clusterConfig) nllb() bool { return c.Spec.Network.NLLB != nil && c.Spec.Network.NLLB.Enabled }

// validate is what k0s config validate, install and the start of a controller refuse.
func (p *program) validate(c clusterConfig) error {
	var errs []error
	refuse := func(bad bool, format string, args ...any) {
		if bad {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	n := c.Spec.Network
	refuse(c.APIVersion != "k0s.k0sproject.io/v1beta1" || c.Kind != "ClusterConfig", "no kind %q is registered for version %q", c.Kind, c.APIVersion)
	refuse(!slices.Contains([]string{"etcd", "kine"}, c.Spec.Storage.Type), "spec: storage: unsupported storage type: %s", c.Spec.Storage.Type)
	refuse(!slices.Contains([]string{"kuberouter", "calico", "custom"}, n.Provider), "spec: network: provider: unsupported value: %q", n.Provider)
	if n.KubeProxy != nil {
		refuse(n.KubeProxy.Mode != "" && !slices.Contains([]string{"iptables", "ipvs", "nftables"}, n.KubeProxy.Mode), "spec: network: kubeProxy: unsupported mode %s", n.KubeProxy.Mode)
	}
	if n.NLLB != nil && n.NLLB.Enabled {
		refuse(c.Spec.API.ExternalAddress != "", "node-local load balancing cannot be used in conjunction with an external Kubernetes API server address")
		allowed := []string{"", "EnvoyProxy"}
		if p.stamp.Minor() >= 36 {
			allowed = append(allowed, "Traefik")
		}
		refuse(!slices.Contains(allowed, n.NLLB.Type), "spec: network: nodeLocalLoadBalancing.type: Unsupported value: %q", n.NLLB.Type)
	}
	if n.CPLB != nil && n.CPLB.Enabled && n.CPLB.Keepalived != nil {
		for _, v := range n.CPLB.Keepalived.VRRPInstances {
			refuse(len(v.AuthPass) > 8 || v.AuthPass == "", "spec: network: controlPlaneLoadBalancing: keepalived: vrrpInstances: AuthPass must be between 1 and 8 characters")
			refuse(len(v.VirtualIPs) == 0, "spec: network: controlPlaneLoadBalancing: keepalived: vrrpInstances: VirtualIPs must be defined")
		}
	}
	if i := c.Spec.Images; i != nil {
		refuse(i.DefaultPullPolicy != "" && !slices.Contains([]string{"Always", "IfNotPresent", "Never"}, i.DefaultPullPolicy), "spec: images: default_pull_policy: unsupported value: %q", i.DefaultPullPolicy)
	}
	for _, w := range c.Spec.WorkerProfiles {
		for _, k := range []string{"clusterDNS", "clusterDomain", "staticPodURL"} {
			_, has := w.Values[k]
			refuse(has, "spec: workerProfiles: field %q is prohibited to override in worker profile %q", k, w.Name)
		}
		refuse(!unifiedCgroups() && w.Values["failCgroupV1"] != false,
			"spec: workerProfiles: invalid worker profile %q: kubelet is configured to not run on a host using cgroup v1. cgroup v1 support is unsupported and will be removed in a future release", w.Name)
	}
	return errors.Join(errs...)
}

// unifiedCgroups tells whether the host has cgroup v2 alone.
func unifiedCgroups() bool {
	const cgroup2 = 0x63677270
	var s syscall.Statfs_t
	return syscall.Statfs("/sys/fs/cgroup", &s) == nil && int64(s.Type) == cgroup2 //nolint:unconvert // its size differs by platform
}

// images are the full names of the distribution's images, by role, with what the configuration says of them.
func (p *program) images(c clusterConfig) (map[string]string, error) {
	out, err := facts.Images(p.stamp)
	if err != nil || c.Spec.Images == nil {
		return out, err
	}
	i := c.Spec.Images
	over := map[string]*imageSpec{"pause": i.Pause, "konnectivity": i.Konnectivity, "metricsserver": i.MetricsServer, "kubeproxy": i.KubeProxy, "coredns": i.CoreDNS, "pushgateway": i.PushGateway}
	if i.KubeRouter != nil {
		over["kuberouter"], over["cninode"] = i.KubeRouter.CNI, i.KubeRouter.CNIInstaller
	}
	if i.Calico != nil {
		over["calicocni"], over["caliconode"], over["calicocontrollers"] = i.Calico.CNI, i.Calico.Node, i.Calico.Controllers
	}
	for role, o := range over {
		if o == nil {
			continue
		}
		ref := mirror.Parse(out[role])
		image, version := ref.Registry+"/"+ref.Repository, ref.Tag
		if o.Image != "" {
			image = o.Image
		}
		if o.Version != "" {
			version = o.Version
		}
		out[role] = image + ":" + version
	}
	if i.Repository != "" { // it takes the place of the host
		for role, image := range out {
			_, rest, _ := strings.Cut(image, "/")
			out[role] = i.Repository + "/" + rest
		}
	}
	return out, nil
}

// used are the roles of the images that nodes fetch with this configuration; those of the node itself are first.
func used(c clusterConfig) (node, other []string) {
	node = []string{"pause"}
	switch c.Spec.Network.Provider {
	case "kuberouter":
		node = append(node, "cninode", "kuberouter")
	case "calico":
		node = append(node, "calicocni", "caliconode")
		other = append(other, "calicocontrollers")
	}
	if k := c.Spec.Network.KubeProxy; k == nil || !k.Disabled {
		node = append(node, "kubeproxy")
	}
	if c.nllb() {
		if c.Spec.Network.NLLB.Type == "Traefik" {
			node = append(node, "traefik")
		} else {
			node = append(node, "envoy")
		}
	}
	return node, append(other, "konnectivity", "coredns", "metricsserver")
}

func (p *program) configValidate(cmd *cobra.Command, _ []string) error {
	if text(cmd, "config") == "" {
		return errors.New(`required flag(s) "config" not set`)
	}
	c, err := readConfig(text(cmd, "config"))
	if err != nil {
		return err
	}
	return p.validate(c)
}

func (p *program) configCreate(*cobra.Command, []string) error {
	var c clusterConfig
	c.fill()
	content, err := yaml.Marshal(c)
	if err != nil {
		return err
	}
	_, err = p.out.Write(content)
	return err
}

func (p *program) airgapImages(cmd *cobra.Command, _ []string) error {
	c, err := readConfig(text(cmd, "config"))
	if err != nil {
		return err
	}
	images, err := p.images(c)
	if err != nil {
		return err
	}
	node, other := used(c)
	if yes(cmd, "all") {
		for role := range images {
			if !slices.Contains(node, role) && !slices.Contains(other, role) {
				other = append(other, role)
			}
		}
		slices.Sort(other)
	}
	for _, role := range append(node, other...) {
		if image := images[role]; image != "" {
			fmt.Fprintln(p.out, image)
		}
	}
	return nil
}
