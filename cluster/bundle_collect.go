// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/sealerio/sealer/cluster/application"
	"github.com/sealerio/sealer/cluster/kube"
	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/runtime"
)

// journalLines and podLines are how much is taken of each unit's journal and each container's log; maxPods of how many pods.
const (
	journalLines = "5000"
	podLines     = "300"
	maxPods      = 200
)

// bundledUnits are those whose journals tell why a cluster is not well.
func bundledUnits() []string {
	return []string{
		"kubelet", "containerd", "docker", "k3s", "k3s-agent", "k0scontroller", "k0sworker", "sealer-registry", "sealer-endpoint",
	}
}

// questions are asked of every host. Command lines of processes are left out: they may hold secrets.
func questions() map[string]string {
	return map[string]string{
		"system.txt":     "uname -a; cat /etc/os-release; uptime; date -u; timedatectl 2>/dev/null",
		"disks.txt":      "df -h; echo; df -i; echo; lsblk 2>/dev/null; echo; findmnt 2>/dev/null | grep -v overlay",
		"memory.txt":     "free -m; echo; cat /proc/meminfo; echo; cat /proc/pressure/* 2>/dev/null; echo; ps -eo pid,ppid,user,stat,etime,rss,pcpu,comm --sort=-rss | head -n 60",
		"network.txt":    "ip address; echo; ip route; ip -6 route; echo; ss -ltnu; echo; cat /etc/hosts /etc/resolv.conf",
		"firewall.txt":   "iptables-save -c 2>/dev/null | tail -n 2000; nft list tables 2>/dev/null",
		"sysctl.txt":     "sysctl -a 2>/dev/null | grep -E '^(net.ipv4.ip_forward|net.bridge|net.ipv6.conf.all|fs.inotify|vm.|kernel.panic)'; lsmod 2>/dev/null",
		"units.txt":      "systemctl --failed --no-pager --plain; systemctl list-units --all --no-pager --plain --type service | grep -E 'kube|containerd|docker|k3s|k0s|sealer|etcd'",
		"kernel.txt":     "journalctl --dmesg --no-pager --output short-iso --lines 500 2>/dev/null || dmesg | tail -n 500",
		"sealer.txt":     "sealer-cluster-node version; ls -lR --time-style=long-iso /etc/sealer 2>/dev/null; du -sh /var/lib/sealer/* 2>/dev/null; cat /etc/sealer/state.json 2>/dev/null",
		"containers.txt": "crictl ps --all 2>/dev/null; echo; crictl images 2>/dev/null; echo; crictl info 2>/dev/null | head -n 200",
	}
}

// hosts asks all hosts at once, and tells which are lost.
func (b *bundle) hosts(ctx context.Context) []string {
	v := b.View
	var lost []string
	for _, h := range v.cluster.Hosts {
		if h.Lost != nil {
			lost = append(lost, h.Lost.Error())
			b.addText("hosts/"+hostFolder(h)+"/unreachable.txt", h.Lost.Error())
		}
	}
	_ = each(v.cluster.Hosts, func(h *runtime.Host) error { // what fails is noted in its place
		task := b.Display.Task("collecting from " + h.String())
		b.host(ctx, h)
		task.Done(ctx.Err())
		return nil
	})
	if ctx.Err() == nil {
		certificates, err := v.Certificates(ctx)
		b.addJSON("certificates.json", certificates, err)
	}
	return lost
}

func hostFolder(h *runtime.Host) string {
	return strings.NewReplacer("/", "_", ":", "-").Replace(h.Spec.String())
}

func (b *bundle) host(ctx context.Context, h *runtime.Host) {
	dir := "hosts/" + hostFolder(h) + "/"
	b.addJSON(dir+"facts.json", h.Facts, nil)
	all := questions()
	for _, name := range sortedKeys(all) {
		b.ask(ctx, h, dir+name, host.Command{Argv: []string{"sh", "-c", all[name]}})
	}
	since := fmt.Sprintf("-%ds", int(b.Since.Seconds()))
	for _, unit := range bundledUnits() {
		if ctx.Err() != nil {
			return
		}
		there, err := asks(ctx, h, "systemctl", "cat", "--no-pager", unit+".service")
		if err != nil || !there {
			continue
		}
		b.ask(ctx, h, dir+"units/"+unit+".txt", host.Command{Argv: []string{"sh", "-c",
			`systemctl status --no-pager --lines 0 "$1.service"; journalctl --unit "$1.service" --no-pager --output short-iso --since "$2" --lines "$3"`, "sh", unit, since, journalLines}})
	}
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// kubernetes asks the API; its Secrets are asked for by nothing here.
func (b *bundle) kubernetes(ctx context.Context) {
	v := b.View
	contact, err := v.contact()
	if err != nil {
		b.addText("kubernetes/unreachable.txt", err.Error())
		return
	}
	task := b.Display.Task("collecting from Kubernetes")
	defer func() { task.Done(ctx.Err()) }()
	status, err := v.Status(ctx)
	b.addJSON("status.json", status, err)
	applications, err := v.Applications(ctx)
	b.addJSON("applications.json", applications, err)
	ask := func(name string, args ...string) {
		if ctx.Err() == nil {
			b.ask(ctx, contact, "kubernetes/"+name, v.distribution.Kubectl().Command(append(args, "--request-timeout", "45s")...))
		}
	}
	ask("version.txt", "version")
	ask("readyz.txt", "get", "--raw", "/readyz?verbose")
	ask("nodes.txt", "get", "nodes", "--output", "wide")
	ask("nodes-described.txt", "describe", "nodes")
	ask("objects.txt", "get", "pods,deployments,statefulsets,daemonsets,replicasets,jobs,cronjobs,services,endpointslices,ingresses,persistentvolumes,persistentvolumeclaims,storageclasses,"+
		"poddisruptionbudgets,networkpolicies,customresourcedefinitions,apiservices", "--all-namespaces", "--output", "wide", "--ignore-not-found")
	ask("pods-described.txt", "describe", "pods", "--all-namespaces")
	ask("workloads-described.txt", "describe", "deployments,statefulsets,daemonsets,jobs", "--all-namespaces")
	ask("events.txt", "get", "events", "--all-namespaces", "--sort-by", ".metadata.creationTimestamp")
	ask("leases.txt", "get", "leases", "--all-namespaces")
	b.podLogs(ctx, ask)
}

// podLogs takes the ends of the logs of all pods, those of the cluster itself first.
func (b *bundle) podLogs(ctx context.Context, ask func(string, ...string)) {
	v := b.View
	type pod struct {
		Metadata struct{ Namespace, Name string }
		Status   struct {
			ContainerStatuses []struct{ RestartCount int }
		}
	}
	var list struct{ Items []pod }
	if err := (kube.API{Cluster: v.cluster, Kubectl: v.distribution.Kubectl()}).Get(ctx, &list, "get", "pods", "--all-namespaces"); err != nil {
		b.addText("kubernetes/logs/unreadable.txt", err.Error())
		return
	}
	slices.SortStableFunc(list.Items, func(x, y pod) int {
		rank := func(ns string) int {
			if ns == "kube-system" {
				return 0
			}
			return 1
		}
		return rank(x.Metadata.Namespace) - rank(y.Metadata.Namespace)
	})
	for i, p := range list.Items {
		if i == maxPods {
			b.addText("kubernetes/logs/left-out.txt", fmt.Sprintf("%d pods more", len(list.Items)-i))
			return
		}
		if ctx.Err() != nil {
			return
		}
		args := []string{"logs", "--namespace", p.Metadata.Namespace, p.Metadata.Name, "--all-containers", "--prefix", "--timestamps", "--tail", podLines}
		file := "logs/" + p.Metadata.Namespace + "/" + p.Metadata.Name
		ask(file+".txt", args...)
		for _, c := range p.Status.ContainerStatuses {
			if c.RestartCount > 0 {
				ask(file+".previous.txt", append(args, "--previous")...)
				break
			}
		}
	}
}

// knownSecrets are what the cluster keeps secret: it is looked for in everything that is bundled, since a log may have it.
// It is nowhere kept.
func (b *bundle) knownSecrets(ctx context.Context) []string {
	v := b.View
	var all []string
	for _, h := range v.cluster.ControlPlanes() {
		if h.Lost != nil {
			continue
		}
		for _, file := range []string{"/var/lib/sealer/node/registry/credentials.json", v.distribution.Kubectl().Kubeconfig, "/var/lib/rancher/k3s/server/token"} {
			data, err := host.ReadFile(ctx, h.Runner, file)
			if err != nil {
				continue // what is not there is in no log
			}
			all = append(all, secretWords(data)...)
		}
	}
	contact, err := v.contact()
	if err != nil {
		return all
	}
	// Releases of charts are as large as the charts.
	c := v.distribution.Kubectl().Command("get", "secrets", "--all-namespaces", "--field-selector", "type!=helm.sh/release.v1", "--output", "json", "--request-timeout", "45s")
	c.Secret = true
	data, err := host.Output(ctx, contact.Runner, c)
	if err != nil {
		return all
	}
	var list struct {
		Items []struct {
			Type string
			Data map[string][]byte
		}
	}
	if json.Unmarshal(data, &list) != nil {
		return all
	}
	for _, s := range list.Items {
		for key, value := range s.Data {
			switch {
			case key == "namespace", key == "ca.crt", s.Type == "sealer.io/application", len(value) < 8, len(value) > 64<<10:
			default:
				all = append(all, string(value))
			}
		}
		if s.Type == "sealer.io/application" {
			all = append(all, application.SecretValues(s.Data)...)
		}
	}
	return all
}

// secretWords are the values in a file of secrets that are long enough to be one.
func secretWords(data []byte) []string {
	var words []string
	for _, w := range strings.FieldsFunc(string(data), func(r rune) bool { return strings.ContainsRune("\"', \n\t\r{}", r) }) {
		if len(w) >= 20 && !strings.HasPrefix(w, "http") {
			words = append(words, w)
		}
	}
	return words
}
