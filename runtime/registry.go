// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"maps"
	"net"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/host"
)

// Registry is how hosts reach the registry that has the packed images: the cluster's own, which every control plane serves, or an
// external one.
type Registry struct {
	Domain string
	Port   int
	// External is set for a registry that is no part of the cluster. It has the image DOMAIN/path in the repository
	// Path/DOMAIN/path (clusterimage.DomainFolder), but for those of its own.
	External bool
	Path     string   // may be empty
	Domains  []string // of the packed images
	// Servers are the addresses of the control planes that serve it, in the order in which they are to be asked.
	Servers  []string
	CA       []byte // PEM; empty for an external one whose certificate hosts trust anyway
	Username string
	Password host.Secret
}

// Endpoint is the host:port by which the registry is named.
func (r Registry) Endpoint() string { return net.JoinHostPort(r.Domain, strconv.Itoa(r.Port)) }

// Name is the registry as references name it: an external one at HTTPS' own port goes without it.
func (r Registry) Name() string {
	if r.External && r.Port == 443 {
		return strings.TrimSuffix(r.Endpoint(), ":443")
	}
	return r.Endpoint()
}

// Endpoints are the URLs of all that serve the registry. Each has what the others have, and each
// certificate the address in it. Where no address is known yet, it is the registry's name.
func (r Registry) Endpoints() []string {
	if len(r.Servers) == 0 {
		return []string{"https://" + r.Endpoint()}
	}
	urls := make([]string, 0, len(r.Servers))
	for _, ip := range r.Servers {
		urls = append(urls, "https://"+net.JoinHostPort(ip, strconv.Itoa(r.Port)))
	}
	return urls
}

// RegistryFor is the registry as one host asks for it: a control plane itself first, workers each
// beginning with another control plane.
func (c *Cluster) RegistryFor(h *Host) Registry {
	r := c.Registry
	n := len(r.Servers)
	if n < 2 {
		return r
	}
	at := slices.Index(r.Servers, h.IP())
	if at < 0 {
		sum := fnv.New32a()
		_, _ = io.WriteString(sum, h.IP()) // a hash takes everything
		at = int(sum.Sum32() % uint32(n))
	}
	r.Servers = slices.Concat(r.Servers[at:], r.Servers[:at])
	return r
}

// hostsFile is containerd's hosts.toml, as far as registries that stand for all others need it
// (containerd, docs/hosts.md). Hosts are asked in the order of the file. The keys of the root are about Server, which
// is always asked last; without it containerd asks the image's own registry.
type hostsFile struct {
	Server string `toml:"server"`
	hostTable
	Host map[string]hostTable `toml:"host"`
}

type hostTable struct {
	Capabilities []string            `toml:"capabilities"`
	CA           string              `toml:"ca"`
	DialTimeout  string              `toml:"dial_timeout"`
	OverridePath bool                `toml:"override_path"`
	Header       map[string][]string `toml:"header"`
}

// dialTimeout is how long a control plane that is gone keeps a pull waiting.
const dialTimeout = "3s"

// MirrorFile is the hosts.toml of a folder of containerd's certs.d.
type MirrorFile struct {
	Dir  string // _default, or the registry that it is about
	Data []byte
}

// MirrorFiles are the files that let containerd take every image of every registry from r, and from nowhere else: one for all, and for
// an external registry one for each domain of packed images and each of CommonDomains, and one for its own. Each is to be Dir/hosts.toml, mode 0600: it
// holds the registry's password. caFile is the path of the registry's CA on the host. r is that of the host: RegistryFor.
func MirrorFiles(r Registry, caFile string) ([]MirrorFile, error) {
	paths := map[string]string{"_default": r.Path}
	if r.External {
		for _, domain := range slices.Concat(CommonDomains(), r.Domains) {
			paths[domain] = r.Folder(domain)
		}
		paths[r.Name()] = ""
	}
	var files []MirrorFile
	for _, dir := range slices.Sorted(maps.Keys(paths)) {
		of := r
		of.Path = paths[dir]
		data, err := HostsTOML(of, caFile)
		if err != nil {
			return nil, err
		}
		files = append(files, MirrorFile{dir, data})
	}
	return files, nil
}

// CommonDomains are registries that applications have images of, which may come later.
func CommonDomains() []string {
	return []string{
		"docker.elastic.co", "docker.io", "gcr.io", "ghcr.io", "mcr.microsoft.com", "nvcr.io", "public.ecr.aws", "quay.io",
		"registry.access.redhat.com", "registry.gitlab.com", "registry.k8s.io", "registry.redhat.io", "us-docker.pkg.dev",
	}
}

// Folder is where an external registry has the images of a domain.
func (r Registry) Folder(domain string) string {
	return path.Join(r.Path, clusterimage.DomainFolder(domain))
}

// HostsTOML is one of MirrorFiles: images are below r.Path.
//
// containerd ignores a file that it cannot read and then asks the internet:
// so what was written is read back and compared.
func HostsTOML(r Registry, caFile string) ([]byte, error) {
	urls := r.Endpoints()
	var authorization []string
	if r.Username != "" {
		authorization = []string{"Basic " + base64.StdEncoding.EncodeToString([]byte(r.Username+":"+r.Password.Reveal()))}
	}
	if len(r.CA) == 0 {
		caFile = ""
	}
	if r.Path != "" {
		for i := range urls {
			urls[i] += "/v2/" + r.Path
		}
	}
	var out bytes.Buffer
	table := func(prefix, name string) {
		fmt.Fprintf(&out, "%scapabilities = [\"pull\", \"resolve\"]\n", prefix)
		if caFile != "" {
			fmt.Fprintf(&out, "%sca = %q\n", prefix, caFile)
		}
		fmt.Fprintf(&out, "%sdial_timeout = %q\n", prefix, dialTimeout)
		if r.Path != "" {
			fmt.Fprintf(&out, "%soverride_path = true\n", prefix)
		}
		if authorization != nil {
			fmt.Fprintf(&out, "%s[%sheader]\n%sAuthorization = [%q]\n", prefix, name, prefix, authorization[0])
		}
	}
	last := urls[len(urls)-1]
	fmt.Fprintf(&out, "server = %q\n", last)
	table("", "")
	for _, url := range urls[:len(urls)-1] {
		fmt.Fprintf(&out, "\n[host.%q]\n", url)
		table("  ", fmt.Sprintf("host.%q.", url))
	}
	if len(urls) == 1 { // without it containerd 1.6, and 1.7 at least up to 1.7.30, cannot read the file, and so ignore it
		out.WriteString("\n[host]\n")
	}
	var got hostsFile
	if err := toml.NewDecoder(bytes.NewReader(out.Bytes())).DisallowUnknownFields().Decode(&got); err != nil {
		return nil, fmt.Errorf("checking hosts.toml: %w", err)
	}
	well := func(t hostTable) bool {
		return t.CA == caFile && len(t.Capabilities) == 2 && t.OverridePath == (r.Path != "") && slices.Equal(t.Header["Authorization"], authorization)
	}
	if got.Server != last || !well(got.hostTable) || len(got.Host) != len(urls)-1 {
		return nil, errors.New("checking hosts.toml: it does not say what was meant")
	}
	for _, url := range urls[:len(urls)-1] {
		if !well(got.Host[url]) {
			return nil, errors.New("checking hosts.toml: it does not say what was meant")
		}
	}
	return append([]byte(mirrorHeader), out.Bytes()...), nil
}

// mirrorHeader begins the files that sealer writes.
const mirrorHeader = "# Written by sealer: all images come from the cluster's registry.\n"

// dropMirrors takes the files away that stand for domains of which this registry has no file: they were of another one. $1 is certs.d.
const dropMirrors = `cd "$1" 2>/dev/null || exit 0
shift
for f in */hosts.toml; do
	[ -f "$f" ] || continue
	for keep in "$@"; do
		[ "$keep" != "${f%/hosts.toml}" ] || continue 2
	done
	IFS= read -r line <"$f" || :
	case $line in "# Written by sealer:"*) rm -f "$f" && rmdir "${f%/hosts.toml}" ;; esac
done
`

// DropMirrors takes the files of a registry before, which are not among files, out of containerd's certs.d: they would go before _default. It
// comes before the files are written.
func DropMirrors(ctx context.Context, r host.Runner, certsDir string, files []MirrorFile) error {
	argv := []string{"sh", "-c", dropMirrors, "sh", certsDir}
	for _, f := range files {
		argv = append(argv, f.Dir)
	}
	return r.Run(ctx, host.Command{Argv: argv, Mutates: true})
}

// SameFile tells whether the host has exactly this file; its mode is not looked at.
func SameFile(ctx context.Context, r host.Runner, path string, want []byte) (bool, error) {
	got, err := host.ReadFile(ctx, r, path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return bytes.Equal(got, want), nil
}
