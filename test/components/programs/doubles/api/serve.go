// SPDX-License-Identifier: Apache-2.0

package api

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"
)

// serve does what a request for objects asks.
func (s *Server) serve(w http.ResponseWriter, q request) error {
	switch {
	case q.Method == http.MethodGet && q.name == "":
		if watch := q.URL.Query().Get("watch"); watch == "true" || watch == "1" {
			return s.watch(w, q)
		}
		return s.serveList(w, q)
	case q.Method == http.MethodGet:
		got, err := s.get(q.Context(), q.resource, q.namespace, q.name)
		if err != nil {
			return err
		}
		return s.write(w, q, http.StatusOK, got)
	case q.Method == http.MethodPost && q.sub == "eviction":
		return s.evict(w, q)
	case q.Method == http.MethodPost && q.name == "":
		return s.serveCreate(w, q)
	case q.Method == http.MethodPut:
		return s.serveUpdate(w, q)
	case q.Method == http.MethodPatch:
		return s.servePatch(w, q)
	case q.Method == http.MethodDelete && q.name != "":
		got, err := s.remove(q.Context(), q.resource, q.namespace, q.name)
		if err != nil {
			return err
		}
		return s.write(w, q, http.StatusOK, got)
	case q.Method == http.MethodDelete:
		items, _, err := s.selected(q)
		if err != nil {
			return err
		}
		for _, o := range items {
			if _, err := s.remove(q.Context(), q.resource, o.GetNamespace(), o.GetName()); err != nil && !apierrors.IsNotFound(err) {
				return err
			}
		}
		answer(w, http.StatusOK, metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusSuccess})
		return nil
	}
	return apierrors.NewMethodNotSupported(q.resource.GroupResource(), q.Method)
}

// selected are the objects that the query's selectors mean.
func (s *Server) selected(q request) ([]object, int64, error) {
	match, err := selector(q)
	if err != nil {
		return nil, 0, err
	}
	all, revision, err := s.list(q.Context(), q.resource, q.namespace)
	if err != nil {
		return nil, 0, err
	}
	out := make([]object, 0, len(all))
	for _, o := range all {
		if match(&o) {
			out = append(out, o)
		}
	}
	return out, revision, nil
}

func (s *Server) serveList(w http.ResponseWriter, q request) error {
	items, revision, err := s.selected(q)
	if err != nil {
		return err
	}
	meta := metav1.ListMeta{ResourceVersion: strconv.FormatInt(revision, 10)}
	if wantsTable(q) {
		t := table(q.resource, items)
		t.ListMeta = meta
		answer(w, http.StatusOK, t)
		return nil
	}
	list := &unstructured.UnstructuredList{Items: items}
	list.SetAPIVersion(q.resource.GroupVersion().String())
	list.SetKind(q.resource.kind + "List")
	list.SetResourceVersion(meta.ResourceVersion)
	text, err := list.MarshalJSON()
	if err != nil {
		return err
	}
	answer(w, http.StatusOK, json.RawMessage(text))
	return nil
}

func (s *Server) write(w http.ResponseWriter, q request, code int, o *object) error {
	if wantsTable(q) {
		t := table(q.resource, []object{*o})
		t.ResourceVersion = o.GetResourceVersion()
		answer(w, code, t)
		return nil
	}
	answer(w, code, o.Object)
	return nil
}

// read takes an object out of a request's body and checks it against the path.
func (s *Server) read(q request, body []byte) (*object, error) {
	if strings.Contains(q.Header.Get("Content-Type"), "yaml") {
		var err error
		if body, err = yaml.YAMLToJSON(body); err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
	}
	if strings.Contains(q.Header.Get("Content-Type"), "protobuf") {
		typed, _, err := scheme.Codecs.UniversalDeserializer().Decode(body, nil, nil)
		if err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
		typed.GetObjectKind().SetGroupVersionKind(q.resource.gvk())
		if body, err = json.Marshal(typed); err != nil {
			return nil, err
		}
	}
	o := &object{}
	if err := o.UnmarshalJSON(body); err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	if o.GroupVersionKind() != q.resource.gvk() {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("%s in version %q cannot be handled as a %s", o.GetKind(), o.GetAPIVersion(), q.resource.kind))
	}
	if q.resource.namespaced {
		if o.GetNamespace() == "" {
			o.SetNamespace(q.namespace)
		}
		if o.GetNamespace() != q.namespace {
			return nil, apierrors.NewBadRequest("the namespace of the provided object does not match the namespace sent on the request")
		}
	}
	if q.URL.Query().Get("fieldValidation") == "Strict" && !q.resource.custom {
		if err := strict(o, body); err != nil {
			return nil, err
		}
	}
	return o, nil
}

// strict refuses unknown and repeated fields, and values of a wrong type, as the real server does.
func strict(o *object, body []byte) error {
	gvk := o.GroupVersionKind()
	if !scheme.Scheme.Recognizes(gvk) {
		return nil
	}
	codecs := serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict)
	if _, _, err := codecs.UniversalDeserializer().Decode(body, &gvk, nil); err != nil {
		return apierrors.NewBadRequest(fmt.Sprintf("%s in version %q cannot be handled as a %s: %v", gvk.Kind, gvk.Version, gvk.Kind, err))
	}
	return nil
}

func (s *Server) serveCreate(w http.ResponseWriter, q request) error {
	body, err := readBody(q.Request)
	if err != nil {
		return err
	}
	o, err := s.read(q, body)
	if err != nil {
		return err
	}
	if q.resource.kind == "CertificateSigningRequest" {
		if err := s.sign(o, q.user); err != nil {
			return err
		}
	}
	if q.URL.Query().Get("dryRun") != "" {
		return s.write(w, q, http.StatusCreated, o)
	}
	made, err := s.create(q.Context(), q.resource, o)
	if err != nil {
		return err
	}
	return s.write(w, q, http.StatusCreated, made)
}

// sign approves a request at once: what the controllers of both distributions do for nodes.
func (s *Server) sign(o *object, by User) error {
	if s.config.Sign == nil {
		return nil
	}
	encoded, _, _ := unstructured.NestedString(o.Object, "spec", "request")
	request, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	cert, err := s.config.Sign(request, by)
	if err != nil {
		return apierrors.NewForbidden(certificates().GroupResource(), o.GetName(), err)
	}
	o.Object["status"] = map[string]any{"certificate": base64.StdEncoding.EncodeToString(cert),
		"conditions": []any{map[string]any{"type": "Approved", "status": "True", "reason": "AutoApproved"}}}
	return nil
}

func certificates() resource {
	for _, r := range builtin() {
		if r.kind == "CertificateSigningRequest" {
			return r
		}
	}
	return resource{}
}

func (s *Server) serveUpdate(w http.ResponseWriter, q request) error {
	body, err := readBody(q.Request)
	if err != nil {
		return err
	}
	o, err := s.read(q, body)
	if err != nil {
		return err
	}
	done, err := s.change(q.Context(), q.resource, q.namespace, q.name, func(before *object) (*object, error) {
		return part(q.sub, before, o.DeepCopy()), nil
	})
	if err != nil {
		return err
	}
	return s.write(w, q, http.StatusOK, done)
}

// part is what an update through a path changes: status by the one that is named so, all but status by the plain one.
func part(sub string, before, after *object) *object {
	if sub == "status" {
		out := before.DeepCopy()
		out.Object["status"] = after.Object["status"]
		out.SetResourceVersion(after.GetResourceVersion())
		return out
	}
	if status, ok := before.Object["status"]; ok {
		after.Object["status"] = status
	}
	return after
}

// evict is what drain calls. A budget that forbids it answers 429, and drain asks again.
func (s *Server) evict(w http.ResponseWriter, q request) error {
	pod, err := s.get(q.Context(), q.resource, q.namespace, q.name)
	if err != nil {
		return err
	}
	for _, r := range builtin() {
		if r.kind != "PodDisruptionBudget" {
			continue
		}
		budgets, _, err := s.list(q.Context(), r, q.namespace)
		if err != nil {
			return err
		}
		for _, b := range budgets {
			if budgetForbids(&b, pod) {
				e := apierrors.NewTooManyRequests("Cannot evict pod as it would violate the pod's disruption budget.", 0)
				e.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: "DisruptionBudget", Message: "The disruption budget " + b.GetName() + " does not allow it"}}
				return e
			}
		}
	}
	if _, err := s.remove(q.Context(), q.resource, q.namespace, q.name); err != nil {
		return err
	}
	answer(w, http.StatusCreated, metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusSuccess})
	return nil
}

// budgetForbids knows budgets that allow nothing: maxUnavailable 0, or minAvailable 100%.
func budgetForbids(budget, pod *object) bool {
	labels, _, _ := unstructured.NestedStringMap(budget.Object, "spec", "selector", "matchLabels")
	for k, v := range labels {
		if pod.GetLabels()[k] != v {
			return false
		}
	}
	most, found, _ := unstructured.NestedFieldNoCopy(budget.Object, "spec", "maxUnavailable")
	least, _, _ := unstructured.NestedFieldNoCopy(budget.Object, "spec", "minAvailable")
	text := fmt.Sprint(most)
	return found && (text == "0" || text == "0%") || fmt.Sprint(least) == "100%"
}

// invalid is a 422, which reflectors take for "this server has no such kind of watch".
func invalid(q request, name, detail string) error {
	return apierrors.NewInvalid(q.resource.gvk().GroupKind(), "", field.ErrorList{field.Forbidden(field.NewPath(name), detail)})
}
