// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"

	"k8s.io/apimachinery/pkg/fields"
)

// selector is the query's label and field selectors as one condition.
func selector(q request) (func(*object) bool, error) {
	values := q.URL.Query()
	byLabel, err := labels.Parse(values.Get("labelSelector"))
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	byField, err := fields.ParseSelector(values.Get("fieldSelector"))
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	return func(o *object) bool {
		return byLabel.Matches(labels.Set(o.GetLabels())) && byField.Matches(fieldsOf{o})
	}, nil
}

// fieldsOf lets a field selector look anywhere into an object.
type fieldsOf struct{ *object }

func (f fieldsOf) Has(path string) bool {
	_, found, _ := unstructured.NestedFieldNoCopy(f.Object, strings.Split(path, ".")...)
	return found
}

func (f fieldsOf) Get(path string) string {
	v, found, _ := unstructured.NestedFieldNoCopy(f.Object, strings.Split(path, ".")...)
	if !found || v == nil {
		if path == "spec.unschedulable" {
			return "false"
		}
		return ""
	}
	return fmt.Sprint(v)
}

// watch streams changes from the revision that the client names, or all there is and then changes.
func (s *Server) watch(w http.ResponseWriter, q request) error {
	values := q.URL.Query()
	if values.Get("sendInitialEvents") == "true" {
		return invalid(q, "sendInitialEvents", "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled")
	}
	match, err := selector(q)
	if err != nil {
		return err
	}
	ctx := q.Context()
	if seconds, err := strconv.Atoi(values.Get("timeoutSeconds")); err == nil && seconds > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(seconds)*time.Second)
		defer cancel()
	}
	prefix := q.resource.prefix()
	if q.namespace != "" {
		prefix += q.namespace + "/"
	}
	out := stream{w: w, q: q, match: match, send: json.NewEncoder(w)}
	revision, _ := strconv.ParseInt(values.Get("resourceVersion"), 10, 64)
	if revision == 0 {
		items, at, err := s.list(ctx, q.resource, q.namespace)
		if err != nil {
			return err
		}
		out.begin()
		for _, o := range items {
			out.event("ADDED", &o, nil)
		}
		revision = at
	}
	out.begin()
	changes := s.store.Watch(clientv3.WithRequireLeader(ctx), prefix, clientv3.WithPrefix(), clientv3.WithRev(revision+1), clientv3.WithPrevKV())
	for answer := range changes {
		if err := answer.Err(); err != nil {
			out.failed(err, answer.CompactRevision > 0)
			return nil
		}
		for _, e := range answer.Events {
			out.change(e)
		}
	}
	return nil
}

// stream writes the events of one watch.
type stream struct {
	w     http.ResponseWriter
	q     request
	match func(*object) bool
	send  *json.Encoder
	begun bool
}

func (s *stream) begin() {
	if !s.begun {
		s.begun = true
		s.w.Header().Set("Content-Type", "application/json")
		s.w.WriteHeader(http.StatusOK)
		s.flush()
	}
}

func (s *stream) flush() {
	if f, ok := s.w.(http.Flusher); ok {
		f.Flush()
	}
}

// change turns a change of the store into an event; an object that comes to match is new to the client, and one that
// does not match any more is gone.
func (s *stream) change(e *clientv3.Event) {
	var before, after *object
	if e.PrevKv != nil {
		before, _ = decode(e.PrevKv)
	}
	if e.Type == clientv3.EventTypePut {
		after, _ = decode(e.Kv)
	}
	was, is := before != nil && s.match(before), after != nil && s.match(after)
	switch {
	case is && was:
		s.event("MODIFIED", after, nil)
	case is:
		s.event("ADDED", after, nil)
	case was:
		before.SetResourceVersion(strconv.FormatInt(e.Kv.ModRevision, 10))
		s.event("DELETED", before, nil)
	}
}

func (s *stream) event(kind string, o *object, status *metav1.Status) {
	var content any
	switch {
	case status != nil:
		content = status
	case !s.match(o):
		return
	case wantsTable(s.q):
		content = table(s.q.resource, []object{*o})
	default:
		content = o.Object
	}
	if s.send.Encode(map[string]any{"type": kind, "object": content}) == nil {
		s.flush()
	}
}

func (s *stream) failed(err error, compacted bool) {
	e := apierrors.NewServiceUnavailable(err.Error())
	if compacted {
		e = apierrors.NewResourceExpired(err.Error())
	}
	status := e.Status()
	status.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
	s.event("ERROR", nil, &status)
}
