// SPDX-License-Identifier: Apache-2.0

package api

import (
	"encoding/json"
	"net/http"
	"strings"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"
)

// servePatch changes an object by one of the four kinds of patch. A server-side apply merges what it is given: it does
// not know who set which field before, and so takes nothing out.
func (s *Server) servePatch(w http.ResponseWriter, q request) error {
	body, err := readBody(q.Request)
	if err != nil {
		return err
	}
	kind, _, _ := strings.Cut(q.Header.Get("Content-Type"), ";")
	if kind == string(types.ApplyYAMLPatchType) {
		if body, err = yaml.YAMLToJSON(body); err != nil {
			return apierrors.NewBadRequest(err.Error())
		}
		o, err := s.read(q, body)
		if err != nil {
			return err
		}
		made, err := s.create(q.Context(), q.resource, o)
		if err == nil {
			return s.write(w, q, http.StatusCreated, made)
		}
		if !apierrors.IsAlreadyExists(err) {
			return err
		}
	}
	done, err := s.change(q.Context(), q.resource, q.namespace, q.name, func(before *object) (*object, error) {
		after, err := patched(types.PatchType(kind), q.resource, before, body)
		if err != nil {
			return nil, err
		}
		return part(q.sub, before, after), nil
	})
	if err != nil {
		return err
	}
	return s.write(w, q, http.StatusOK, done)
}

func patched(kind types.PatchType, r resource, before *object, patch []byte) (*object, error) {
	original, err := json.Marshal(before.Object)
	if err != nil {
		return nil, err
	}
	var text []byte
	switch kind {
	case types.JSONPatchType:
		var p jsonpatch.Patch
		if p, err = jsonpatch.DecodePatch(patch); err == nil {
			text, err = p.Apply(original)
		}
	case types.MergePatchType:
		text, err = jsonpatch.MergePatch(original, patch)
	case types.StrategicMergePatchType, types.ApplyYAMLPatchType:
		typed, unknown := scheme.Scheme.New(r.gvk())
		switch {
		case unknown == nil:
			text, err = strategicpatch.StrategicMergePatch(original, patch, typed)
		case kind == types.ApplyYAMLPatchType:
			text, err = jsonpatch.MergePatch(original, patch)
		default:
			return nil, apierrors.NewGenericServerResponse(http.StatusUnsupportedMediaType, "PATCH", r.GroupResource(), before.GetName(),
				"the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml", 0, true)
		}
	default:
		return nil, apierrors.NewGenericServerResponse(http.StatusUnsupportedMediaType, "PATCH", r.GroupResource(), before.GetName(), "unknown patch type "+string(kind), 0, true)
	}
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	after := &object{}
	if err := after.UnmarshalJSON(text); err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	return after, nil
}
