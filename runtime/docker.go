// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/Masterminds/semver/v3"

	"github.com/sealerio/sealer/host"
)

// Docker is a docker that the people of a host run there.
type Docker struct {
	Version      string // "20.10.24+dfsg1"; empty where it does not answer
	CgroupDriver string // "systemd" or "cgroupfs"
}

// DockerUser is a Distribution that can run the containers of a host by the docker that is there. The packed images are then brought to
// it under their own names: docker has mirrors for docker.io alone, and knows no login for them
// (docs.docker.com/docker-hub/image-library/mirror).
type DockerUser interface {
	// UsesDocker tells whether h does so.
	UsesDocker(c *Cluster, h *Host) bool
}

// UsesDocker asks the distribution.
func UsesDocker(d Distribution, c *Cluster, h *Host) bool {
	user, ok := d.(DockerUser)
	return ok && user.UsesDocker(c, h)
}

// oldestDocker is the first one that knows cgroup v2 (docs.docker.com/engine/release-notes/20.10).
const oldestDocker = "20.10.0"

// DockerProblems are what keeps the docker of a host from running containers of Kubernetes.
func DockerProblems(h *Host) []Problem {
	d := h.Facts.Docker
	switch {
	case d == nil:
		return []Problem{{
			h.String(), "docker", "docker is to run its containers, and there is none: no program docker, or nothing at /var/run/docker.sock",
			"install docker on the host, with its client, and start it; or leave docker out of the Clusterfile: k3s brings containerd",
		}}
	case d.Version == "":
		return []Problem{{h.String(), "docker", "docker is to run its containers, and its daemon does not answer", "start it on the host: systemctl start docker"}}
	}
	have, err := semver.NewVersion(strings.SplitN(d.Version, "+", 2)[0])
	if err != nil || have.LessThan(semver.MustParse(oldestDocker)) {
		return []Problem{{h.String(), "docker", fmt.Sprintf("its docker is %s; %s is the oldest that will do", d.Version, oldestDocker), "install a later docker on the host"}}
	}
	return nil
}

// DockerProbe asks whether the host's docker answers, and has all that was brought to it: people of the host may have removed images, and a
// kubelet whose disk is full.
func DockerProbe(h *Host) Probe {
	return Probe{
		Name: "docker", Fix: "see systemctl status docker on the host; images come back when the cluster's image is run again",
		Ask: func(ctx context.Context) error {
			out, err := host.Output(ctx, h.Runner, host.Command{Argv: []string{NodeBinary, "docker", "lost"}})
			if err != nil {
				return err
			}
			var lost []string
			if err := json.Unmarshal(out, &lost); err != nil {
				return fmt.Errorf("%s: asking what docker has lost: %w", h, err)
			}
			if len(lost) > 0 {
				return fmt.Errorf("%s: its docker has no more the images %s", h, strings.Join(lost, ", "))
			}
			return nil
		},
	}
}

// PinnedProblem is about images that docker cannot be given under their names: it forgets the digests of all that it did not pull from
// where the name says. Those of an external registry's own name are pulled from there. ok: there are none.
func PinnedProblem(images []string, reg Registry) (p Problem, ok bool) {
	pinned := slices.DeleteFunc(slices.Clone(images), func(name string) bool {
		return !strings.Contains(name, "@") || reg.External && strings.HasPrefix(name, reg.Name()+"/")
	})
	if len(pinned) == 0 {
		return p, true
	}
	return Problem{
		Check: "docker", What: "docker cannot be given images under names with a digest, as the image packs them: " + strings.Join(pinned, ", "),
		Fix: "name them by tag in the imageList and in manifests; or leave docker out of the Clusterfile",
	}, false
}

// withoutDocker leaves out the marks of a docker that is to be there, and of the containerd that came with it.
func withoutDocker(marks []Marks) []Marks {
	return slices.DeleteFunc(slices.Clone(marks), func(m Marks) bool { return m.Title == dockerTitle || m.Title == containerdMarks().Title })
}

const dockerTitle = "docker"
