// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sealerio/sealer/host"
)

//go:embed facts.sh
var factsScript []byte

// Facts is what was found on a host.
type Facts struct {
	OS, OSVersion, OSName string // as in /etc/os-release: ID, VERSION_ID, PRETTY_NAME
	Arch                  string // Go's name: amd64, arm64
	Kernel                string
	Hostname, MachineID   string
	Init                  string // name of process 1, or OpenRC
	Root                  bool   // commands run as root
	Cgroup                int    // version, 1 or 2; 1 also where both are mounted
	SELinux               bool   // it enforces
	CPUs                  int
	Memory, DiskFree      int64 // bytes; DiskFree of the file system below /var/lib
	Swap                  bool
	Skew                  time.Duration // the host's clock less ours, exact to a second or so
	ReadOnly, NoExec      []string      // folders of those that sealer writes to, and has programs in, that are mounted so
	Nameservers           []string      // as pods inherit them
	DefaultRoute          bool
	Links                 []string
	Addresses             []netip.Prefix          // global ones that last; first those of the link that the default route takes
	LinkOf                map[netip.Prefix]string // of Addresses
	IPv6                  bool                    // the kernel has it, and new links will
	IPVS                  bool                    // the kernel has it, or modules for it
	Listening             []Listener
	Paths                 []string        // the markers that exist
	Units                 map[string]Unit // those that are loaded
	Docker                *Docker         // the host's own; nil where there is none
	Containerd            *Containerd     // the host's own, where the Clusterfile says that it runs Kubernetes' containers; nil where its socket is not there
	State                 *HostState      // nil where sealer was never here
}

// Listener is a TCP port in use.
type Listener struct {
	Port     int
	Loopback bool
	Process  string // as ss shows it; may be empty
}

// Unit is a systemd unit that exists.
type Unit struct{ Active bool }

// NodeName is the name that the host's node has: Kubernetes wants lower case.
func (f Facts) NodeName() string { return strings.ToLower(f.Hostname) }

// Has tells whether any of the marker paths exists.
func (f Facts) Has(paths ...string) bool {
	return slices.ContainsFunc(paths, func(p string) bool { return slices.Contains(f.Paths, p) })
}

// Gather asks a host for its facts in one round trip; marks are what to look for.
func Gather(ctx context.Context, r host.Runner, marks []Marks) (Facts, error) {
	before := time.Now()
	argv := []string{"sh", "-s", "--"}
	for _, m := range marks {
		argv = append(argv, m.paths()...)
		argv = append(argv, m.Units...)
		if m.socket != "" {
			argv = append(argv, socketMark+m.socket)
		}
	}
	out, err := host.Output(ctx, r, host.Command{Argv: argv, Stdin: bytes.NewReader(factsScript)})
	if err != nil {
		return Facts{}, fmt.Errorf("gathering facts: %w", err)
	}
	f, err := parseFacts(out, before.Add(time.Since(before)/2))
	if err != nil {
		return Facts{}, fmt.Errorf("%s: gathering facts: %w", r, err)
	}
	return f, nil
}

func parseFacts(out []byte, now time.Time) (Facts, error) {
	f := Facts{Units: map[string]Unit{}, LinkOf: map[netip.Prefix]string{}}
	whole := false
	sockets := map[int]string{}
	var ways []string // links of default routes
	lines := bufio.NewScanner(bytes.NewReader(out))
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		key, value, _ := strings.Cut(lines.Text(), "=")
		var err error
		switch key {
		case "time":
			var seconds int64
			if seconds, err = strconv.ParseInt(value, 10, 64); err == nil {
				f.Skew = time.Unix(seconds, 0).Sub(now.Truncate(time.Second))
			}
		case "uid":
			f.Root = value == "0"
		case "arch":
			f.Arch = goArch(value)
		case "kernel":
			f.Kernel = value
		case "hostname":
			f.Hostname = value
		case "machine-id":
			f.MachineID = value
		case "os":
			f.OS = value
		case "os-version":
			f.OSVersion = value
		case "os-name":
			f.OSName = value
		case "init":
			f.Init = value
		case "selinux":
			f.SELinux = value == "enforcing"
		case "cgroup":
			f.Cgroup, err = strconv.Atoi(value)
		case "cpus":
			f.CPUs, err = strconv.Atoi(value)
		case "memory":
			f.Memory, err = parseBytes(value)
		case "disk-free":
			f.DiskFree, err = parseBytes(value)
		case "swap":
			f.Swap = value != ""
		case "read-only":
			f.ReadOnly = append(f.ReadOnly, value)
		case "noexec":
			f.NoExec = append(f.NoExec, value)
		case "nameserver":
			f.Nameservers = append(f.Nameservers, value)
		case "default-route":
			f.DefaultRoute = true
			ways = append(ways, value)
		case "ipv6":
			f.IPv6 = value == "on"
		case "ipvs":
			f.IPVS = value == "on"
		case "link":
			f.Links = append(f.Links, value)
		case "address":
			var prefix netip.Prefix
			text, link, _ := strings.Cut(value, " ")
			if prefix, err = netip.ParsePrefix(text); err == nil {
				f.Addresses = append(f.Addresses, prefix)
				f.LinkOf[prefix] = link
			}
		case "listen":
			var l Listener
			if l, err = parseListener(value); err == nil {
				f.Listening = append(f.Listening, l)
			}
		case "socket":
			noteSocket(sockets, value)
		case "path":
			f.Paths = append(f.Paths, value)
		case "unit":
			if w := strings.Fields(value); len(w) == 3 && w[1] != "not-found" {
				f.Units[w[0]] = Unit{Active: w[2] == "active" || w[2] == "activating"}
			}
		case "docker":
			f.Docker = &Docker{}
			if w := strings.Fields(value); len(w) == 2 {
				f.Docker.Version, f.Docker.CgroupDriver = w[0], w[1]
			}
		case "containerd":
			socket, version, _ := strings.Cut(value, " ")
			f.Containerd = &Containerd{Socket: socket, Version: version}
		case "containerd-config":
			if f.Containerd != nil {
				err = f.Containerd.parse(value)
			}
		case "containerd-mirror":
			if f.Containerd != nil {
				f.Containerd.Mirrored = append(f.Containerd.Mirrored, value)
			}
		case "containerd-image":
			if f.Containerd != nil {
				f.Containerd.Images = append(f.Containerd.Images, value)
			}
		case "state":
			var s HostState
			if err = json.Unmarshal([]byte(value), &s); err == nil {
				f.State = &s
			}
		case "end":
			whole = true
		}
		if err != nil {
			return f, fmt.Errorf("reading %q: %w", head(lines.Text()), err)
		}
	}
	if !whole {
		return f, fmt.Errorf("the answer was cut after %d bytes", len(out))
	}
	slices.SortStableFunc(f.Addresses, func(a, b netip.Prefix) int {
		return place(ways, f.LinkOf[a]) - place(ways, f.LinkOf[b])
	})
	for i, l := range f.Listening {
		f.Listening[i].Process = sockets[l.Port]
	}
	return f, lines.Err()
}

// head is what of a line can be shown.
func head(line string) string { return line[:min(len(line), 200)] }

// place of s in list, behind it where it is not there.
func place(list []string, s string) int {
	if i := slices.Index(list, s); i >= 0 {
		return i
	}
	return len(list)
}

// parseBytes reads a whole number; awk prints large ones as 1.23457e+10.
func parseBytes(s string) (int64, error) {
	n, err := strconv.ParseFloat(s, 64)
	return int64(n), err
}

// parseListener reads "tcp 0100007F:1F90".
func parseListener(s string) (Listener, error) {
	_, address, _ := strings.Cut(s, " ")
	ip, port, ok := strings.Cut(address, ":")
	n, err := strconv.ParseUint(port, 16, 16)
	if !ok || err != nil {
		return Listener{}, fmt.Errorf("%q is not a listening socket", s)
	}
	// IPv4 is one little-endian word; ::1 and ::ffff:127.0.0.1 are four of them.
	loopback := strings.HasSuffix(ip, "7F") && len(ip) == 8 || ip == "00000000000000000000000001000000" ||
		strings.HasPrefix(ip, "0000000000000000FFFF0000") && strings.HasSuffix(ip, "7F")
	return Listener{Port: int(n), Loopback: loopback}, nil
}

// noteSocket reads `*:10250 users:(("kubelet",pid=12,fd=3))`.
func noteSocket(sockets map[int]string, s string) {
	address, users, _ := strings.Cut(s, " ")
	i := strings.LastIndexByte(address, ':')
	port, err := strconv.Atoi(address[i+1:])
	if i < 0 || err != nil {
		return
	}
	if _, name, ok := strings.Cut(users, `(("`); ok {
		sockets[port], _, _ = strings.Cut(name, `"`)
	}
}

func goArch(machine string) string {
	switch machine {
	case "x86_64":
		return "amd64"
	case "aarch64":
		return "arm64"
	case "armv7l":
		return "arm"
	}
	return machine
}
