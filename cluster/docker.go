// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/cluster/application"
	"github.com/sealerio/sealer/cluster/program"
	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/runtime"
)

// dockerImage and dockerAccess are internal/node's DockerImage and DockerAccess.
type dockerImage struct {
	Name       string        `json:"name"`
	Repository string        `json:"repository"`
	Manifest   digest.Digest `json:"manifest"`
	ID         digest.Digest `json:"id"`
	For        []string      `json:"for"`
}

type dockerAccess struct {
	Registry string        `json:"registry"`
	CA       string        `json:"ca"`
	Username string        `json:"username"`
	Password string        `json:"password"`
	Images   []dockerImage `json:"images"`
}

const stepDocker = "bringing the packed images to docker"

// docker brings the packed images to a host whose own docker runs its containers, by the registry that has them.
func (r *run) docker(h *runtime.Host) []runtime.Step {
	if !r.usesDocker(h) {
		return nil
	}
	return []runtime.Step{{
		Name: stepDocker,
		Done: func(ctx context.Context) (bool, error) {
			access, err := r.dockerAccess(ctx, h)
			if err != nil {
				return false, err
			}
			var lack struct {
				Images []string `json:"images"`
				CA     bool     `json:"ca"`
			}
			err = program.Call{In: access, Out: &lack, Reads: true, Secret: true}.Run(ctx, h, "docker", "lacks")
			return len(lack.Images) == 0 && !lack.CA, err
		},
		Do: func(ctx context.Context, log io.Writer) error {
			access, err := r.dockerAccess(ctx, h)
			if err != nil {
				return err
			}
			return program.Call{Log: log, In: access, Secret: true}.Run(ctx, h, "docker", "bring")
		},
	}}
}

func (r *run) usesDocker(h *runtime.Host) bool {
	return h.Lost == nil && runtime.UsesDocker(r.distribution, r.cluster, h)
}

// dockerAccess is what the host's docker is to have: what this image packs for the host's platform, and what other hosts of that
// platform have had brought, by which applications come to hosts that join later.
func (r *run) dockerAccess(ctx context.Context, h *runtime.Host) (dockerAccess, error) {
	reg := r.cluster.Registry
	a := dockerAccess{Registry: reg.Name(), CA: string(reg.CA), Username: reg.Username, Password: reg.Password.Reveal()}
	var err error
	if a.Images, err = r.dockerImages(ctx, h); err != nil {
		return a, err
	}
	for _, other := range r.cluster.Hosts {
		if other == h || !r.usesDocker(other) || other.Facts.Arch != h.Facts.Arch || other.Facts.State == nil || !other.Facts.State.Complete {
			continue
		}
		var theirs []dockerImage
		if err := (program.Call{Out: &theirs, Reads: true}).Run(ctx, other, "docker", "list"); err != nil {
			return a, err
		}
		for _, image := range theirs {
			if slices.ContainsFunc(a.Images, func(i dockerImage) bool { return i.Name == image.Name }) {
				continue
			}
			if image.Repository, err = dockerRepository(reg, image.Name); err != nil { // theirs may be of the registry before
				return a, err
			}
			a.Images = append(a.Images, image)
		}
		break
	}
	return a, nil
}

// dockerImages are the packed images of a host's platform that have names with a tag. The others are called by the registry's own name,
// or Check has refused them.
func (r *run) dockerImages(ctx context.Context, h *runtime.Host) ([]dockerImage, error) {
	want, err := platforms.Parse(h.Platform)
	if err != nil {
		return nil, fmt.Errorf("reading the platform of %s: %w", h, err)
	}
	fits := platforms.Only(want)
	best := map[string]clusterimage.PackedImage{}
	var names []string
	for _, p := range r.Image.Images {
		of, err := platforms.Parse(p.Platform)
		if err != nil {
			return nil, fmt.Errorf("reading the platform of %s: %w", p.Name, err)
		}
		if !fits.Match(of) || strings.Contains(p.Name, "@") {
			continue
		}
		have, there := best[p.Name]
		if !there {
			names = append(names, p.Name)
		} else if other, err := platforms.Parse(have.Platform); err == nil && !fits.Less(of, other) {
			continue
		}
		best[p.Name] = p
	}
	list := make([]dockerImage, 0, len(names))
	for _, name := range names {
		p := best[name]
		var m ocispec.Manifest
		if err := clusterimage.ReadJSON(ctx, r.Content, p.Manifest, &m); err != nil {
			return nil, fmt.Errorf("reading the manifest of %s: %w", name, err)
		}
		repository, err := dockerRepository(r.cluster.Registry, name)
		if err != nil {
			return nil, err
		}
		list = append(list, dockerImage{Name: name, Repository: repository, Manifest: p.Manifest.Digest, ID: m.Config.Digest, For: []string{r.cluster.Digest}})
	}
	return list, nil
}

// dockerRepository is where the registry has an image, as the registry package's Target and RepositoryName have it.
func dockerRepository(reg runtime.Registry, name string) (string, error) {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return "", fmt.Errorf("reading the image name %q: %w", name, err)
	}
	domain := reference.Domain(named)
	switch {
	case reg.External && strings.EqualFold(domain, reg.Name()):
		return reference.Path(named), nil
	case reg.External:
		return path.Join(reg.Folder(domain), reference.Path(named)), nil
	}
	return path.Join(clusterimage.DomainFolder(domain), reference.Path(named)), nil
}

// docker is what run's is, under the application's name, with a login that no step before has told of.
func (a *appRun) docker(h *runtime.Host) []runtime.Step {
	steps := a.run.docker(h)
	for i := range steps {
		steps[i].Name = a.stepName(steps[i].Name)
	}
	return steps
}

// dockerLogin asks a control plane for the login of the cluster's registry, where docker needs it.
func (a *appRun) dockerLogin(h *runtime.Host) []runtime.Step {
	if a.external() || !slices.ContainsFunc(a.cluster.Hosts, a.usesDocker) {
		return nil
	}
	return []runtime.Step{{
		Name: a.stepName("asking for the registry's login"),
		Do:   func(ctx context.Context, log io.Writer) error { return a.shared().prepare(ctx, h, false, log) },
	}}
}

// dropDocker takes images of versions that are gone from a host's docker.
func (a *appRun) dropDocker(h *runtime.Host, old []application.Version) []runtime.Step {
	if !a.usesDocker(h) {
		return nil
	}
	return []runtime.Step{{
		Name: a.stepName("dropping its images from docker"),
		Do: func(ctx context.Context, log io.Writer) error {
			for _, v := range old {
				if a.needed(h, v) {
					continue
				}
				if err := (program.Call{Log: log}).Run(ctx, h, "docker", "drop", "--image", v.Digest); err != nil {
					return err
				}
			}
			return nil
		},
	}}
}

// dockerTakes finds images that docker cannot be given.
func (a *appRun) dockerTakes() error {
	if !slices.ContainsFunc(a.cluster.Hosts, a.usesDocker) {
		return nil
	}
	if p, ok := runtime.PinnedProblem(a.cluster.Images, a.cluster.Registry); !ok {
		return &runtime.PreflightError{Problems: []runtime.Problem{p}}
	}
	return nil
}
