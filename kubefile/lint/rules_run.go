// SPDX-License-Identifier: Apache-2.0

package lint

import (
	"fmt"
	"net/netip"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/sealerio/sealer/kubefile"
)

// runRules are about commands: of RUN, in the toolbox, and of CMD, on a host
// that reaches no network.
func runRules() []Rule {
	return []Rule{
		{
			Name: "run-outside-rootfs", Severity: Warning,
			Summary: "RUN writes to an absolute path, which is the toolbox's and is dropped",
			Why:     "RUN begins in the root of the cluster's files, inside a toolbox: what it writes elsewhere does not reach the image. Write the path without the / in front. `RUN --in-rootfs` runs inside the cluster's files themselves.",
			Bad:     Example{Kubefile: "FROM scratch\nRUN echo net.ipv4.ip_forward=1 > /etc/sysctl.d/k8s.conf\n"},
			Good:    Example{Kubefile: "FROM scratch\nRUN mkdir -p etc/sysctl.d && echo net.ipv4.ip_forward=1 > etc/sysctl.d/k8s.conf\n"},
			check: func(s *subject) {
				s.eachRun(func(_ *stage, run *kubefile.Run, commands []command) {
					if !run.InRootfs {
						s.outside(run, commands)
					}
				})
			},
		},
		{
			Name: "run-missing-tool", Severity: Error,
			Summary: "RUN starts a program that the toolbox does not have",
			Why:     "The toolbox has sh, the usual core utilities, tar, gzip, sed, grep, awk, sha256sum, wget and curl, but no package manager, no git and no bash. Do without, bring the program in the context and start it by its path, or name an image that has it: `# toolbox=IMAGE` at the top.",
			Bad:     Example{Kubefile: "FROM scratch\nRUN apt-get install -y jq\n"},
			Good:    Example{Kubefile: "# toolbox=registry.example.com/tools:v1\nFROM scratch\nRUN apt-get install -y jq\n"},
			check: func(s *subject) {
				if s.Toolbox != "" || s.file.Directives.Toolbox != "" {
					return
				}
				s.eachRun(func(_ *stage, run *kubefile.Run, commands []command) {
					if !run.InRootfs && !bringsTools(commands) {
						s.missingTools(run, commands)
					}
				})
			},
		},
		{
			Name: "launch-needs-network", Severity: Warning,
			Summary: "a command for the running cluster fetches from the network",
			Why:     "CMD, CMDS and APPCMDS run on a host that may reach no network: that is what a ClusterImage is for. Fetch the file while the image is built, and let the command use it.",
			Bad:     Example{Kubefile: "FROM scratch\nCMD kubectl apply -f https://example.com/dashboard.yaml\n"},
			Good:    Example{Kubefile: "FROM scratch\nADD --checksum=sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 https://example.com/dashboard.yaml manifests/\nCMD kubectl apply -f manifests/dashboard.yaml\n"},
			check:   checkLaunch,
		},
	}
}

// outside reports what a script writes to absolute paths, unless the script
// comes back to them.
func (s *subject) outside(run *kubefile.Run, commands []command) {
	script := run.Script() + strings.Join(run.Args, " ")
	if strings.Contains(script, "/rootfs") || slices.ContainsFunc(commands, func(c command) bool { return c.program() == "cd" }) {
		return // it knows where it is, or is somewhere else
	}
	for _, c := range commands {
		for _, target := range append(written(c), c.writes...) {
			if !strings.HasPrefix(target, "/") || strings.Count(run.Script(), target) > 1 || isScratch(target) {
				continue
			}
			s.report(run, target, fmt.Sprintf("%s is the toolbox's, not the cluster's: what is written there is dropped; write %s", target, strings.TrimLeft(path.Clean(target), "/")))
		}
	}
}

func isScratch(target string) bool {
	return slices.ContainsFunc([]string{"/dev", "/proc", "/tmp", "/var/tmp", "/run"}, func(folder string) bool {
		return target == folder || strings.HasPrefix(target, folder+"/")
	})
}

// written are the paths that a command makes, as far as its arguments tell.
func written(c command) []string {
	var plain, list []string
	for i, word := range c.words {
		if i > 0 && !strings.HasPrefix(word, "-") {
			plain = append(plain, word)
		}
	}
	value := func(flags ...string) {
		for i, word := range c.words[:max(0, len(c.words)-1)] {
			if slices.Contains(flags, word) {
				list = append(list, c.words[i+1])
			}
		}
	}
	switch c.program() {
	case "mkdir", "touch", "tee":
		return plain
	case "cp", "mv", "install", "ln":
		if len(plain) > 1 {
			return plain[len(plain)-1:]
		}
	case "wget":
		value("-O", "-P")
	case "curl":
		value("-o", "--output", "--output-dir")
	case "tar":
		if slices.ContainsFunc(c.words, func(word string) bool { return strings.Contains(word, "x") }) {
			value("-C", "--directory")
		}
	}
	return list
}

// absent are programs that people call in RUN and that the toolbox has not.
func absent() []string {
	return strings.Fields("apk apt apt-get bash buildah conda crane crictl ctr dnf docker gcc git go helm jq k0s k3s kubeadm kubectl kustomize " +
		"make microdnf nerdctl node npm openssl pacman perl pip pip3 podman python python3 rpm rsync skopeo ssh sudo systemctl unsquashfs yq yum zypper")
}

// bringsTools says whether a script looks for programs or says where they are.
func bringsTools(commands []command) bool {
	return slices.ContainsFunc(commands, func(c command) bool {
		return slices.Contains(c.assigned, "PATH") || slices.Contains([]string{"command", "which", "type", "chroot"}, c.program())
	})
}

func (s *subject) missingTools(run *kubefile.Run, commands []command) {
	var said []string
	for _, c := range commands {
		if len(c.words) == 0 || slices.Contains(said, c.words[0]) || !slices.Contains(absent(), c.words[0]) {
			continue
		}
		said = append(said, c.words[0])
		s.report(run, c.words[0], fmt.Sprintf("the toolbox that RUN runs in has no %s: bring it along, or name another image with # toolbox=IMAGE", c.words[0]))
	}
}

var address = regexp.MustCompile(`https?://[^\s"'|;&)<>]+`)

func checkLaunch(s *subject) {
	s.each(func(_ *stage, line kubefile.Instruction) {
		var commands []string
		word := ""
		switch c := line.(type) {
		case *kubefile.Cmd:
			word, commands = "CMD", []string{strings.Join(c.Args, " ")}
		case *kubefile.Cmds:
			word, commands = "CMDS", c.Cmds
		case *kubefile.AppCmds:
			word, commands = "APPCMDS", c.Cmds
		}
		for _, text := range commands {
			for _, found := range address.FindAllString(text, -1) {
				if isFar(found) {
					s.report(line, found, fmt.Sprintf("%s runs on a host that may reach no network, and fetches %s: put it into the image", word, found))
				}
			}
		}
	})
}

// isFar says whether a URL leads out of the cluster and its network.
func isFar(address string) bool {
	u, err := url.Parse(address)
	if err != nil {
		return false
	}
	host := strings.ToLower(u.Hostname())
	if ip, err := netip.ParseAddr(host); err == nil {
		return !ip.IsPrivate() && !ip.IsLoopback() && !ip.IsUnspecified() && !ip.IsLinkLocalUnicast()
	}
	if strings.ContainsAny(host, "$`") || !strings.Contains(host, ".") {
		return false
	}
	return !slices.ContainsFunc([]string{".svc", ".local", ".internal", ".lan", ".hub", ".localhost"}, func(end string) bool { return strings.HasSuffix(host, end) })
}
