// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"strconv"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// object is any Kubernetes object.
type object = unstructured.Unstructured

func withPrefix() []clientv3.OpOption { return []clientv3.OpOption{clientv3.WithPrefix()} }

// decode gives an object its resource version, which is etcd's revision.
func decode(kv *mvccpb.KeyValue) (*object, error) {
	o := &object{}
	if err := o.UnmarshalJSON(kv.Value); err != nil {
		return nil, fmt.Errorf("reading %s: %w", kv.Key, err)
	}
	o.SetResourceVersion(strconv.FormatInt(kv.ModRevision, 10))
	return o, nil
}

func encode(o *object) (string, error) {
	c := o.DeepCopy()
	c.SetResourceVersion("")
	text, err := json.Marshal(c.Object)
	return string(text), err
}

func (s *Server) get(ctx context.Context, r resource, namespace, name string) (*object, error) {
	got, err := s.store.Get(ctx, r.key(namespace, name))
	if err != nil {
		return nil, unavailable(err)
	}
	if len(got.Kvs) == 0 {
		return nil, apierrors.NewNotFound(r.GroupResource(), name)
	}
	return decode(got.Kvs[0])
}

// list returns objects and the revision of the store.
func (s *Server) list(ctx context.Context, r resource, namespace string) ([]object, int64, error) {
	prefix := r.prefix()
	if namespace != "" {
		prefix += namespace + "/"
	}
	got, err := s.store.Get(ctx, prefix, withPrefix()...)
	if err != nil {
		return nil, 0, unavailable(err)
	}
	out := make([]object, 0, len(got.Kvs))
	for _, kv := range got.Kvs {
		o, err := decode(kv)
		if err != nil {
			return nil, 0, err
		}
		out = append(out, *o)
	}
	return out, got.Header.Revision, nil
}

func (s *Server) create(ctx context.Context, r resource, o *object) (*object, error) {
	if o.GetName() == "" && o.GetGenerateName() != "" {
		o.SetName(o.GetGenerateName() + strconv.FormatUint(rand.Uint64()|1<<63, 36)[:5])
	}
	if errs := validation.IsDNS1123Subdomain(o.GetName()); len(errs) > 0 && r.Group != "rbac.authorization.k8s.io" {
		return nil, apierrors.NewInvalid(r.gvk().GroupKind(), o.GetName(), field.ErrorList{field.Invalid(field.NewPath("metadata", "name"), o.GetName(), errs[0])})
	}
	if r.namespaced {
		if _, err := s.get(ctx, core("namespaces"), "", o.GetNamespace()); err != nil {
			return nil, err
		}
	}
	o.SetUID(uuid.NewUUID())
	o.SetCreationTimestamp(metav1.Now())
	o.SetGeneration(1)
	o.SetDeletionTimestamp(nil)
	o.SetManagedFields(nil)
	fillIn(o)
	text, err := encode(o)
	if err != nil {
		return nil, err
	}
	key := r.key(o.GetNamespace(), o.GetName())
	done, err := s.store.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision(key), "=", 0)).Then(clientv3.OpPut(key, text)).Commit()
	if err != nil {
		return nil, unavailable(err)
	}
	if !done.Succeeded {
		return nil, apierrors.NewAlreadyExists(r.GroupResource(), o.GetName())
	}
	o.SetResourceVersion(strconv.FormatInt(done.Header.Revision, 10))
	return o, nil
}

// core is a kind of the core group that belongs to the cluster.
func core(name string) resource {
	return resource{GroupVersionResource: schema.GroupVersionResource{Version: "v1", Resource: name}}
}

// change applies edit to what is there, again where somebody else was faster, unless the caller asks for a version.
func (s *Server) change(ctx context.Context, r resource, namespace, name string, edit func(*object) (*object, error)) (*object, error) {
	for {
		got, err := s.get(ctx, r, namespace, name)
		if err != nil {
			return nil, err
		}
		before := got.DeepCopy()
		after, err := edit(got)
		if err != nil {
			return nil, err
		}
		if v := after.GetResourceVersion(); v != "" && v != before.GetResourceVersion() {
			return nil, apierrors.NewConflict(r.GroupResource(), name, errors.New("the object has been modified; please apply your changes to the latest version and try again"))
		}
		if after.GetName() != name {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("the name of the object (%s) does not match the name on the URL (%s)", after.GetName(), name))
		}
		after.SetUID(before.GetUID())
		after.SetCreationTimestamp(before.GetCreationTimestamp())
		after.SetDeletionTimestamp(before.GetDeletionTimestamp())
		after.SetManagedFields(nil)
		if !reflect.DeepEqual(before.Object["spec"], after.Object["spec"]) {
			after.SetGeneration(before.GetGeneration() + 1)
		} else {
			after.SetGeneration(before.GetGeneration())
		}
		if after.GetDeletionTimestamp() != nil && len(after.GetFinalizers()) == 0 {
			return after, s.erase(ctx, r, namespace, name)
		}
		after.SetResourceVersion(before.GetResourceVersion())
		if reflect.DeepEqual(before.Object, after.Object) {
			return before, nil
		}
		text, err := encode(after)
		if err != nil {
			return nil, err
		}
		key := r.key(namespace, name)
		revision, _ := strconv.ParseInt(before.GetResourceVersion(), 10, 64)
		done, err := s.store.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(key), "=", revision)).Then(clientv3.OpPut(key, text)).Commit()
		if err != nil {
			return nil, unavailable(err)
		}
		if done.Succeeded {
			after.SetResourceVersion(strconv.FormatInt(done.Header.Revision, 10))
			return after, nil
		}
	}
}

// remove deletes an object, or marks it where finalizers hold it.
func (s *Server) remove(ctx context.Context, r resource, namespace, name string) (*object, error) {
	got, err := s.get(ctx, r, namespace, name)
	if err != nil {
		return nil, err
	}
	if s.config.OnDelete != nil && r.Group == "" && r.Resource == "nodes" {
		if err := s.config.OnDelete(ctx, got); err != nil {
			return nil, unavailable(err)
		}
	}
	if len(got.GetFinalizers()) == 0 {
		if r.Resource == "namespaces" {
			if err := s.emptyNamespace(ctx, name); err != nil {
				return nil, err
			}
		}
		return got, s.erase(ctx, r, namespace, name)
	}
	if got.GetDeletionTimestamp() == nil {
		now := metav1.NewTime(time.Now())
		got.SetDeletionTimestamp(&now)
		text, err := encode(got)
		if err != nil {
			return nil, err
		}
		if _, err := s.store.Put(ctx, r.key(namespace, name), text); err != nil {
			return nil, unavailable(err)
		}
	}
	return got, nil
}

func (s *Server) erase(ctx context.Context, r resource, namespace, name string) error {
	if _, err := s.store.Delete(ctx, r.key(namespace, name)); err != nil {
		return unavailable(err)
	}
	return nil
}

func (s *Server) emptyNamespace(ctx context.Context, name string) error {
	for _, r := range s.resources(ctx) {
		if r.namespaced {
			if _, err := s.store.Delete(ctx, r.prefix()+name+"/", withPrefix()...); err != nil {
				return unavailable(err)
			}
		}
	}
	return nil
}

// fillIn sets defaults that clients look at.
func fillIn(o *object) {
	set := func(value any, path ...string) {
		if _, found, _ := unstructured.NestedFieldNoCopy(o.Object, path...); !found {
			_ = unstructured.SetNestedField(o.Object, value, path...)
		}
	}
	switch o.GetKind() {
	case "Namespace":
		set("Active", "status", "phase")
	case "Pod":
		set("Pending", "status", "phase")
		set("Always", "spec", "restartPolicy")
	case "Deployment", "StatefulSet":
		set(int64(1), "spec", "replicas")
		set(int64(600), "spec", "progressDeadlineSeconds")
		if o.GetKind() == "StatefulSet" {
			set("RollingUpdate", "spec", "updateStrategy", "type")
		}
	case "DaemonSet":
		set("RollingUpdate", "spec", "updateStrategy", "type")
	case "CustomResourceDefinition":
		set([]any{map[string]any{"type": "Established", "status": "True"}, map[string]any{"type": "NamesAccepted", "status": "True"}}, "status", "conditions")
	case "Secret":
		set("Opaque", "type")
		if plain, found, _ := unstructured.NestedStringMap(o.Object, "stringData"); found {
			data, _, _ := unstructured.NestedStringMap(o.Object, "data")
			if data == nil {
				data = map[string]string{}
			}
			maps.Copy(data, encodeAll(plain))
			_ = unstructured.SetNestedStringMap(o.Object, data, "data")
			delete(o.Object, "stringData")
		}
	}
}

// unavailable is what clients see when etcd does not answer: it has lost its quorum.
func unavailable(err error) error {
	var status apierrors.APIStatus
	if err == nil || errors.As(err, &status) {
		return err
	}
	return apierrors.NewServiceUnavailable(err.Error())
}
