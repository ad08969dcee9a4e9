// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/cluster"
	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/host/hosttest"
	"github.com/sealerio/sealer/runtime"
)

// onDocker runs the containers of its workers by their own docker.
type onDocker struct{ distribution }

func (onDocker) UsesDocker(_ *runtime.Cluster, h *runtime.Host) bool {
	return h.Spec.Role == clusterfile.Worker
}

type dockerAccess struct {
	Registry, CA, Username, Password string
	Images                           []struct {
		Name, Repository, Manifest, ID string
		For                            []string
	}
}

// dockerOn answers for the docker of a host, and remembers what was brought to it.
func dockerOn(t *testing.T, h *fakeHost) *[]dockerAccess {
	t.Helper()
	var brought []dockerAccess
	h.On("docker lacks", hosttest.Answer{Do: func(context.Context, hosttest.Call) hosttest.Answer {
		if len(brought) == 0 {
			return hosttest.Answer{Stdout: `{"images":["docker.io/library/nginx:1.27"],"ca":true}`}
		}
		return hosttest.Answer{Stdout: `{"images":[],"ca":false}`}
	}})
	h.On("docker bring", hosttest.Answer{Do: func(_ context.Context, c hosttest.Call) hosttest.Answer {
		var a dockerAccess
		if err := json.Unmarshal(c.Stdin, &a); err != nil {
			return hosttest.Answer{Code: 1, Stderr: err.Error()}
		}
		brought = append(brought, a)
		return hosttest.Answer{}
	}})
	return &brought
}

// Hosts with docker are given the images, by digests, from the cluster's registry; those that join later also what others were given for
// applications.
func TestRun_Docker(t *testing.T) {
	for name, text := range map[string]string{"own": strings.Replace(elsewhere, elsewhereRegistry, "", 1), "external": elsewhere} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, text)
			b.opts.Pusher = &pusher{}
			b.opts.Distributions = runtime.Distributions{"fake": onDocker{}}
			worker := b.hosts["10.0.0.3"]
			brought := dockerOn(t, worker)
			require.NoError(t, b.run(t))
			require.Len(t, *brought, 1)
			a := (*brought)[0]
			prefix := map[string]string{"own": "", "external": "mirror/"}[name]
			require.Equal(t, map[string]string{"own": "sea.hub:5000", "external": "hub.corp.example"}[name], a.Registry)
			require.NotEmpty(t, a.Password)
			require.Len(t, a.Images, 3)
			require.Equal(t, "docker.io/library/nginx:1.27", a.Images[0].Name)
			require.Equal(t, prefix+"docker.io/library/nginx", a.Images[0].Repository)
			require.Equal(t, []string{b.opts.Image.Descriptor.Digest.String()}, a.Images[0].For)
			require.NotEqual(t, a.Images[0].Manifest, a.Images[0].ID)
			for _, line := range worker.did() {
				require.NotContains(t, line, a.Password)
			}
			require.NotContains(t, strings.Join(b.hosts["10.0.0.1"].did(), "\n"), "docker bring")
			require.NoError(t, b.run(t))
			require.Contains(t, b.out.String(), "nothing to change")

			shop := `{"name":"quay.io/shop:v1","repository":"as/it/was","manifest":"sha256:1","id":"sha256:2","for":["sha256:app"]}`
			worker.On("docker list", hosttest.Answer{Stdout: fmt.Sprintf(`[{"name":%q},%s]`, a.Images[0].Name, shop)})
			joins := clusterfile.Host{Address: "10.0.0.4", Role: clusterfile.Worker}
			b.hosts["10.0.0.4"] = newFakeHost(joins, "h3")
			more := dockerOn(t, b.hosts["10.0.0.4"])
			require.NoError(t, cluster.Join(t.Context(), cluster.JoinOptions{
				Name: "prod", Hosts: []clusterfile.Host{joins}, Content: b.opts.Content, Pusher: b.opts.Pusher, Operator: b.opts.Operator,
				FindImage: func(context.Context, string, string) (*clusterimage.Image, string, error) {
					return b.opts.Image, b.opts.ImageName, nil
				},
			}))
			require.Len(t, *more, 1)
			images := (*more)[0].Images
			require.Len(t, images, 4)
			require.Equal(t, prefix+"quay.io/shop", images[3].Repository)
			require.Equal(t, []string{"sha256:app"}, images[3].For)
			require.Equal(t, images[:3], a.Images)
		})
	}
}
