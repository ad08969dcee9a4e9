// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"encoding/json"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
)

// Apply creates an object, or merges it into the one that is there: what the double does for itself.
func (s *Server) Apply(ctx context.Context, o *object) error {
	for _, r := range s.resources(ctx) {
		if r.gvk() != o.GroupVersionKind() {
			continue
		}
		if r.namespaced && o.GetNamespace() == "" {
			o.SetNamespace("default")
		}
		patch, err := json.Marshal(o.Object)
		if err != nil {
			return err
		}
		got, err := s.change(ctx, r, o.GetNamespace(), o.GetName(), func(before *object) (*object, error) {
			return patched(types.ApplyYAMLPatchType, r, before, patch)
		})
		if apierrors.IsNotFound(err) {
			got, err = s.create(ctx, r, o)
		}
		if got != nil {
			o.Object = got.Object
		}
		return err
	}
	return fmt.Errorf("no matches for kind %q in version %q", o.GetKind(), o.GetAPIVersion())
}
