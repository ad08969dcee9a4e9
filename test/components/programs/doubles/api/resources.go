// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"encoding/json"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// resource is a kind of object that the server keeps.
type resource struct {
	schema.GroupVersionResource
	kind       string
	namespaced bool
	short      []string
	custom     bool // by a CustomResourceDefinition: nothing is known of its fields
}

func (r resource) gvk() schema.GroupVersionKind { return r.GroupVersion().WithKind(r.kind) }

// prefix of the keys of all objects.
func (r resource) prefix() string {
	group := r.Group
	if group == "" {
		group = "core"
	}
	return "/registry/" + group + "/" + r.Resource + "/"
}

func (r resource) key(namespace, name string) string {
	if r.namespaced {
		return r.prefix() + namespace + "/" + name
	}
	return r.prefix() + name
}

// builtin lists what a cluster without definitions of its own has, as "group/version resource Kind scope,short".
func builtin() []resource {
	const text = `
/v1 namespaces Namespace c ns
/v1 nodes Node c no
/v1 pods Pod n po
/v1 secrets Secret n
/v1 configmaps ConfigMap n cm
/v1 services Service n svc
/v1 serviceaccounts ServiceAccount n sa
/v1 events Event n ev
/v1 endpoints Endpoints n ep
/v1 limitranges LimitRange n limits
/v1 resourcequotas ResourceQuota n quota
/v1 persistentvolumes PersistentVolume c pv
/v1 persistentvolumeclaims PersistentVolumeClaim n pvc
/v1 replicationcontrollers ReplicationController n rc
apps/v1 deployments Deployment n deploy
apps/v1 daemonsets DaemonSet n ds
apps/v1 replicasets ReplicaSet n rs
apps/v1 statefulsets StatefulSet n sts
apps/v1 controllerrevisions ControllerRevision n
batch/v1 jobs Job n
batch/v1 cronjobs CronJob n cj
policy/v1 poddisruptionbudgets PodDisruptionBudget n pdb
rbac.authorization.k8s.io/v1 roles Role n
rbac.authorization.k8s.io/v1 rolebindings RoleBinding n
rbac.authorization.k8s.io/v1 clusterroles ClusterRole c
rbac.authorization.k8s.io/v1 clusterrolebindings ClusterRoleBinding c
networking.k8s.io/v1 ingresses Ingress n ing
networking.k8s.io/v1 ingressclasses IngressClass c
networking.k8s.io/v1 networkpolicies NetworkPolicy n netpol
storage.k8s.io/v1 storageclasses StorageClass c sc
storage.k8s.io/v1 csidrivers CSIDriver c
scheduling.k8s.io/v1 priorityclasses PriorityClass c pc
coordination.k8s.io/v1 leases Lease n
discovery.k8s.io/v1 endpointslices EndpointSlice n
certificates.k8s.io/v1 certificatesigningrequests CertificateSigningRequest c csr
apiregistration.k8s.io/v1 apiservices APIService c
admissionregistration.k8s.io/v1 mutatingwebhookconfigurations MutatingWebhookConfiguration c
admissionregistration.k8s.io/v1 validatingwebhookconfigurations ValidatingWebhookConfiguration c
apiextensions.k8s.io/v1 customresourcedefinitions CustomResourceDefinition c crd`
	var out []resource
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) >= 4 {
			group, version, _ := strings.Cut(f[0], "/")
			out = append(out, resource{GroupVersionResource: schema.GroupVersionResource{Group: group, Version: version, Resource: f[1]},
				kind: f[2], namespaced: f[3] == "n", short: f[4:]})
		}
	}
	return out
}

// Definition of a kind that a distribution brings.
type Definition struct {
	schema.GroupVersionResource
	Kind       string
	Namespaced bool
	Short      []string
}

// resources are the builtin ones, the distribution's, and those of CustomResourceDefinitions.
func (s *Server) resources(ctx context.Context) []resource {
	out := builtin()
	for _, d := range s.config.Definitions {
		out = append(out, resource{GroupVersionResource: d.GroupVersionResource, kind: d.Kind, namespaced: d.Namespaced, short: d.Short, custom: true})
	}
	list, err := s.store.Get(ctx, "/registry/apiextensions.k8s.io/customresourcedefinitions/", withPrefix()...)
	if err != nil {
		return out
	}
	for _, kv := range list.Kvs {
		var crd struct {
			Spec struct {
				Group, Scope string
				Names        struct {
					Plural, Kind string
					ShortNames   []string
				}
				Versions []struct {
					Name   string
					Served bool
				}
			}
		}
		if json.Unmarshal(kv.Value, &crd) != nil {
			continue
		}
		for _, v := range crd.Spec.Versions {
			if v.Served {
				out = append(out, resource{GroupVersionResource: schema.GroupVersionResource{Group: crd.Spec.Group, Version: v.Name, Resource: crd.Spec.Names.Plural},
					kind: crd.Spec.Names.Kind, namespaced: crd.Spec.Scope == "Namespaced", short: crd.Spec.Names.ShortNames, custom: true})
			}
		}
	}
	return out
}

// groups tells discovery which API groups there are.
func groups(all []resource) metav1.APIGroupList {
	list := metav1.APIGroupList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"}}
	at := map[string]int{}
	seen := map[schema.GroupVersion]bool{}
	for _, r := range all {
		gv := r.GroupVersion()
		if r.Group == "" || seen[gv] {
			continue
		}
		seen[gv] = true
		i, ok := at[r.Group]
		if !ok {
			i = len(list.Groups)
			at[r.Group] = i
			list.Groups = append(list.Groups, metav1.APIGroup{Name: r.Group, PreferredVersion: metav1.GroupVersionForDiscovery{GroupVersion: gv.String(), Version: gv.Version}})
		}
		list.Groups[i].Versions = append(list.Groups[i].Versions, metav1.GroupVersionForDiscovery{GroupVersion: gv.String(), Version: gv.Version})
	}
	return list
}

// resourceList is the discovery of one group and version; ok is false where there is none.
func resourceList(all []resource, gv schema.GroupVersion) (list metav1.APIResourceList, ok bool) {
	list = metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: gv.String()}
	for _, r := range all {
		if r.GroupVersion() != gv {
			continue
		}
		list.APIResources = append(list.APIResources, metav1.APIResource{
			Name: r.Resource, SingularName: strings.ToLower(r.kind), Namespaced: r.namespaced, Kind: r.kind, ShortNames: r.short,
			Verbs: metav1.Verbs{"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"},
		}, metav1.APIResource{Name: r.Resource + "/status", Namespaced: r.namespaced, Kind: r.kind, Verbs: metav1.Verbs{"get", "patch", "update"}})
		if r.Resource == "pods" {
			list.APIResources = append(list.APIResources, metav1.APIResource{Name: "pods/eviction", Namespaced: true, Group: "policy", Version: "v1", Kind: "Eviction", Verbs: metav1.Verbs{"create"}})
		}
	}
	return list, len(list.APIResources) > 0
}

// openAPI is what clients need to know before they let the server validate fields: that it takes the parameter.
func openAPI(all []resource, gv schema.GroupVersion) map[string]any {
	paths := map[string]any{}
	for _, r := range all {
		if r.GroupVersion() != gv {
			continue
		}
		paths[root(gv)+"/"+r.Resource+"/{name}"] = map[string]any{"patch": map[string]any{
			"x-kubernetes-group-version-kind": map[string]any{"group": r.Group, "version": r.Version, "kind": r.kind},
			"parameters":                      []any{map[string]any{"name": "fieldValidation", "in": "query", "schema": map[string]any{"type": "string"}}},
			"requestBody":                     map[string]any{"content": map[string]any{"application/json-patch+json": map[string]any{}}},
			"responses":                       map[string]any{"200": map[string]any{"description": "OK"}},
		}}
	}
	return map[string]any{"openapi": "3.0.0", "info": map[string]any{"title": "Kubernetes", "version": "v1"}, "paths": paths}
}

func root(gv schema.GroupVersion) string {
	if gv.Group == "" {
		return "/api/" + gv.Version
	}
	return "/apis/" + gv.String()
}
