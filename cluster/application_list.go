// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"fmt"
	"time"

	"github.com/sealerio/sealer/cluster/application"
	"github.com/sealerio/sealer/cluster/kube"
)

// ApplicationStatus is how an application is.
type ApplicationStatus struct {
	Name   string `json:"name"`
	Image  string `json:"image"`
	Digest string `json:"digest"`
	// Origin is application.OriginImage, or application.OriginCluster for what the cluster's own image has launched.
	Origin string `json:"origin"`
	// Declared: a Clusterfile names it, and the next apply makes it again what that says.
	Declared bool `json:"declared"`
	// Applications are those of the image that are launched.
	Applications []string  `json:"applications"`
	Since        time.Time `json:"since"` // when this image was launched
	Ready        bool      `json:"ready"`
	Why          []string  `json:"why,omitempty"` // it is not
}

// Applications are all that run on the cluster, as it keeps them, in the order of their names.
func (v *View) Applications(ctx context.Context) ([]ApplicationStatus, error) {
	if _, err := v.contact(); err != nil {
		return nil, err
	}
	inventory := application.Inventory{API: kube.API{Cluster: v.cluster, Kubectl: v.distribution.Kubectl()}}
	records, err := inventory.Records(ctx)
	if err != nil {
		return nil, err
	}
	list := []ApplicationStatus{}
	for _, r := range records {
		s := ApplicationStatus{Name: r.Name, Image: r.Image, Digest: r.Digest, Origin: r.Origin(), Declared: r.Declared, Applications: r.Applications, Since: r.Begun}
		if s.Applications == nil {
			s.Applications = []string{}
		}
		switch {
		case r.Deleting:
			s.Why = append(s.Why, "it is being deleted; sealer app delete "+r.Name+" goes on with that")
		case r.Former != nil:
			s.Why = append(s.Why, fmt.Sprintf("its upgrade from %s has not come to its end; sealer app upgrade %s goes on with it, or back", r.Former.Image, r.Name))
		case r.Ended.IsZero():
			s.Why = append(s.Why, "its launch has not come to its end; the same command goes on with it")
		}
		state, err := inventory.State(ctx, r)
		if err != nil {
			return nil, err
		}
		for _, p := range state.Unready {
			s.Why = append(s.Why, p.String())
		}
		s.Ready = len(s.Why) == 0
		list = append(list, s)
	}
	return list, nil
}
