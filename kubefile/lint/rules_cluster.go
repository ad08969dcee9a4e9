// SPDX-License-Identifier: Apache-2.0

package lint

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/kubefile"
)

// clusterRules are about what the image installs.
func clusterRules() []Rule {
	return []Rule{
		{
			Name: "runtime-missing", Severity: Warning,
			Summary: "an image from scratch is made like a base image, but holds no distribution of Kubernetes",
			Why:     "sealer run would take it for an application, and would find no cluster to start it on. A base image brings bin/kubeadm, bin/k3s or bin/k0s (often below a folder for each architecture: COPY ${ARCH} .), a file Metadata, or the label cluster.alpha.sealer.io/cluster-runtime-type. An image that packs nothing and starts nothing is reported too.",
			Bad: Example{Kubefile: "FROM scratch\nCOPY rootfs .\n",
				Files: map[string]string{"rootfs/scripts/init-kube.sh": "", "amd64/bin/kubeadm": "", "arm64/bin/kubeadm": ""}},
			Good: Example{Kubefile: "FROM scratch\nCOPY rootfs .\nCOPY ${ARCH} .\n",
				Files: map[string]string{"rootfs/scripts/init-kube.sh": "", "amd64/bin/kubeadm": "", "arm64/bin/kubeadm": ""}},
			check: func(s *subject) {
				v := s.placed()
				switch {
				case !v.whole || len(s.claims()) > 0:
				case v.looksLikeBase():
					s.report(s.last().From, "", "the image is made like a base image, but holds no bin/kubeadm, bin/k3s or bin/k0s, no Metadata and no label of a runtime")
				case len(v.lists())+len(v.manifests())+len(s.Lists) == 0 && !s.startsSomething():
					s.report(s.last().From, "", "the image packs no image and starts nothing: sealer run would have nothing to do")
				}
			},
		},
		{
			Name: "runtime-conflict", Severity: Error,
			Summary: "two places name different distributions of Kubernetes",
			Why:     "The build stops, since nobody can tell what the image installs. Leave one of them out; the label is enough where the files say nothing.",
			Bad: Example{Kubefile: "FROM scratch\nLABEL cluster.alpha.sealer.io/cluster-runtime-type=kubernetes\nCOPY bin bin\n",
				Files: map[string]string{"bin/k3s": ""}},
			Good: Example{Kubefile: "FROM scratch\nLABEL cluster.alpha.sealer.io/cluster-runtime-type=k3s\nCOPY bin bin\n",
				Files: map[string]string{"bin/k3s": ""}},
			check: func(s *subject) {
				claims := s.claims()
				for _, c := range claims {
					if c.runtime != claims[0].runtime {
						s.report(claims[0].line, "", fmt.Sprintf("%s says %s, but %s says %s", claims[0].where, claims[0].runtime, c.where, c.runtime))
						return
					}
				}
			},
		},
		{
			Name: "dropin-format", Severity: Error,
			Summary: "a drop-in for k0s' containerd has a format that this k0s does not read",
			Why:     "k0s 1.36 and later come with containerd 2, whose drop-ins begin with version = 3 and call their plugins io.containerd.cri.v1.*; those before read version = 2 alone. Hosts would refuse the image: write etc/containerd.d/*.toml for the version that the image holds.",
			Bad: Example{Kubefile: "FROM scratch\nLABEL cluster.alpha.sealer.io/cluster-runtime-type=k0s\nLABEL cluster.alpha.sealer.io/cluster-runtime-version=v1.36.3+k0s.2\nCOPY etc etc\n",
				Files: map[string]string{"etc/containerd.d/gpu.toml": "version = 2\n"}},
			Good: Example{Kubefile: "FROM scratch\nLABEL cluster.alpha.sealer.io/cluster-runtime-type=k0s\nLABEL cluster.alpha.sealer.io/cluster-runtime-version=v1.36.3+k0s.2\nCOPY etc etc\n",
				Files: map[string]string{"etc/containerd.d/gpu.toml": "version = 3\n"}},
			check: (*subject).checkDropIns,
		},
		{
			Name: "label-reserved", Severity: Error,
			Summary: "LABEL sets what sealer writes itself",
			Why:     "The build refuses it: the label says how the image is to be read.",
			Bad:     Example{Kubefile: "FROM scratch\nLABEL io.sealer.version=v0.11.0\n"},
			Good:    Example{Kubefile: "FROM scratch\nLABEL org.opencontainers.image.version=v0.11.0\n"},
			check: func(s *subject) {
				s.each(func(_ *stage, line kubefile.Instruction) {
					label, ok := line.(*kubefile.Label)
					if !ok {
						return
					}
					for _, pair := range label.Labels {
						if slices.Contains([]string{clusterimage.LabelExtension, clusterimage.LabelVersion}, pair.Key) {
							s.report(line, pair.Key, pair.Key+" is written by sealer itself: leave it out")
						}
					}
				})
			},
		},
	}
}

// containerd2 is the minor version of k0s that came with containerd 2.
const containerd2 = 36

var dropInVersion = regexp.MustCompile(`^version *= *(\d+)( |#|$)`)

// checkDropIns compares the formats of the image's drop-ins with the one that its k0s reads, where the image says which k0s it holds.
func (s *subject) checkDropIns() {
	var major, minor int
	version := s.label(clusterimage.LabelClusterRuntimeVersion)
	if n, _ := fmt.Sscanf(version, "v%d.%d.", &major, &minor); n != 2 || s.label(clusterimage.LabelClusterRuntime) != "k0s" {
		return
	}
	want := "2"
	if minor >= containerd2 {
		want = "3"
	}
	for _, name := range s.placed().pick(func(target string) bool {
		ours, err := path.Match("etc/containerd.d/*.toml", target)
		return ours && err == nil
	}) {
		at, text, have := 1, "", ""
		for i, line := range strings.Split(string(s.content(name)), "\n") {
			if m := dropInVersion.FindStringSubmatch(line); m != nil {
				at, text, have = i+1, line, m[1]
				break
			}
		}
		switch have {
		case want:
		case "":
			s.add(name, at, text, "", fmt.Sprintf("the drop-in does not say version = %s, which the containerd of k0s %s reads", want, version))
		default:
			s.add(name, at, text, "", fmt.Sprintf("the drop-in has version = %s; the containerd of k0s %s reads version = %s", have, version, want))
		}
	}
}

// label is the value that the last stage, or what it is based on, gives it last.
func (s *subject) label(key string) string {
	value := ""
	for _, t := range s.last().chain() {
		for _, line := range t.lines {
			label, ok := line.(*kubefile.Label)
			if !ok {
				continue
			}
			for _, pair := range label.Labels {
				if pair.Key == key {
					value = pair.Value
				}
			}
		}
	}
	return value
}

// claim is one place that says which distribution the image holds.
type claim struct {
	runtime, where string
	line           kubefile.Instruction
}

// claims are those of the last stage and what it is based on.
func (s *subject) claims() []claim {
	var list []claim
	for _, t := range s.last().chain() {
		for _, line := range t.lines {
			label, ok := line.(*kubefile.Label)
			if !ok {
				continue
			}
			for _, pair := range label.Labels {
				if pair.Key == clusterimage.LabelClusterRuntime {
					list = slices.DeleteFunc(list, func(c claim) bool { return c.where == "LABEL" }) // the last one counts
					list = append(list, claim{pair.Value, "LABEL", line})
				}
			}
		}
	}
	files := s.placed().files
	if name, ok := files["Metadata"]; ok {
		if m, err := clusterimage.ParseMetadata(s.content(name)); err == nil && m.ClusterRuntime != "" {
			list = append(list, claim{m.ClusterRuntime, "the file Metadata", s.last().From})
		}
	}
	for _, program := range [][2]string{{"bin/k3s", "k3s"}, {"bin/k0s", "k0s"}, {"bin/kubeadm", "kubernetes"}} {
		if _, ok := files[program[0]]; ok {
			list = append(list, claim{program[1], program[0], s.last().From})
		}
	}
	return list
}

// startsSomething says whether the last stage, or what it is based on, has
// applications or commands.
func (s *subject) startsSomething() bool {
	return slices.ContainsFunc(s.last().chain(), func(t *stage) bool {
		return slices.ContainsFunc(t.lines, func(line kubefile.Instruction) bool {
			switch line.(type) {
			case *kubefile.App, *kubefile.Launch, *kubefile.Cmds, *kubefile.Cmd, *kubefile.Entrypoint:
				return true
			default:
				return false
			}
		})
	})
}
