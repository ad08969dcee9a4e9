// SPDX-License-Identifier: Apache-2.0

package kubernetes_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/host/hosttest"
	"github.com/sealerio/sealer/runtime/kubernetes"
)

func kubeconfig(ca string) string {
	return "clusters:\n- cluster:\n    certificate-authority-data: " + ca + "\n    server: https://apiserver.cluster.local:6443\n"
}

// Data of another cluster gets this one's authority: before others join, who ask cluster-info for it, and in all pods.
func TestRestore_AnotherClustersData(t *testing.T) {
	c, hosts := newCluster(t, "v1.36.3", "")
	h := onNewHost(hosts[0])
	h.Put("/etc/kubernetes/admin.conf", kubeconfig("bmV3"), 0o600)
	h.Put("/etc/kubernetes/pki/ca.crt", "new\n", 0o600)
	type object = map[string]any
	pod := func(name string, uid int, network bool, owner string) object {
		o := object{
			"metadata": object{"namespace": "default", "name": name, "uid": fmt.Sprint(uid)}, "spec": object{"hostNetwork": network},
			"status": object{"phase": "Running", "conditions": []object{{"type": "Ready", "status": "True"}}},
		}
		if owner != "" {
			o["metadata"].(object)["ownerReferences"] = []object{{"kind": owner}}
		}
		return o
	}
	answer := func(items ...object) hosttest.Answer {
		text, err := json.Marshal(object{"items": items})
		require.NoError(t, err)
		return hosttest.Answer{Stdout: string(text)}
	}
	strange, uid, asked := false, 1, 0
	h.On("^test -e /var/lib/sealer/kubernetes/restored-from-another", hosttest.Answer{Do: func(context.Context, hosttest.Call) hosttest.Answer {
		return hosttest.Answer{Code: map[bool]int{false: 1}[strange]}
	}})
	h.On(`get --raw /readyz`, hosttest.Answer{}).On("^sh -c|^flock|^rm|kubeadm", hosttest.Answer{})
	h.On("get configmap cluster-info", hosttest.Answer{Stdout: kubeconfig("b2xk")})
	h.On("patch configmap cluster-info", hosttest.Answer{Do: func(context.Context, hosttest.Call) hosttest.Answer {
		strange = true
		return hosttest.Answer{}
	}})
	h.On("get configmaps", hosttest.Answer{Do: func(context.Context, hosttest.Call) hosttest.Answer {
		ca := "old"
		if asked++; asked > 1 {
			ca = "new"
		}
		return answer(object{"metadata": object{"namespace": "default"}, "data": object{"ca.crt": ca}})
	}})
	h.On("get secrets", answer(object{"metadata": object{"namespace": "default", "name": "token"}}))
	h.On("get pods", hosttest.Answer{Do: func(context.Context, hosttest.Call) hosttest.Answer {
		return answer(pod("network", uid, true, "DaemonSet"), pod("api", 10, true, "Node"), pod("app", 11, false, "ReplicaSet"), pod("bare", 12, false, ""))
	}})
	h.On("patch secret", hosttest.Answer{}).On("delete pod", hosttest.Answer{Do: func(context.Context, hosttest.Call) hosttest.Answer {
		uid++
		return hosttest.Answer{}
	}})
	c.Hosts = slices.Concat(c.Hosts[:1], c.Hosts[2:]) // one control plane
	out, err := do(t, kubernetes.New().Restore(c, c.Hosts[0], "/a.db"))
	require.NoError(t, err)
	require.Contains(t, out, "default/bare is left as it is")
	var changed []string
	for _, command := range h.Commands() {
		if _, args, ok := strings.Cut(command, "kubectl-cache "); ok && (strings.HasPrefix(args, "patch") || strings.HasPrefix(args, "delete")) {
			changed = append(changed, args)
		}
	}
	require.Equal(t, []string{
		`patch configmap cluster-info --namespace kube-public --type merge --patch '{"data":{"kubeconfig":"clusters:\n- cluster:\n    certificate-authority-data: bmV3\n    server: https://apiserver.cluster.local:6443\n"}}' --request-timeout 60s`,
		`patch secret token --namespace default --type merge --patch '{"data":{"token":null,"ca.crt":null}}' --request-timeout 60s`,
		"delete pod --namespace default --ignore-not-found --wait=false network --request-timeout 60s",
		"delete pod --namespace default --ignore-not-found --wait=false app --request-timeout 60s",
	}, changed)
	require.Contains(t, h.Commands(), "rm -f -- /var/lib/sealer/kubernetes/restored-from-another")

	// Its own data is left as it is.
	strange = false
	h.On("get configmap cluster-info", hosttest.Answer{Stdout: kubeconfig("bmV3")})
	before := len(h.Commands())
	_, err = do(t, kubernetes.New().Restore(c, c.Hosts[0], "/a.db"))
	require.NoError(t, err)
	require.NotContains(t, strings.Join(h.Commands()[before:], "\n"), "delete pod")
}
