// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/runtime"
)

const kubernetesDir = "/etc/kubernetes"

// components are the control plane's static pods, etcd first.
func components(c *runtime.Cluster) []string {
	list := []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler"}
	if !externalEtcd(c) {
		list = append([]string{"etcd"}, list...)
	}
	return list
}

// restarted is the annotation by which a pod's manifest is changed, so that the kubelet starts it anew.
const restarted = "sealer.io/restarted"

// changeManifest sets the annotation $2 to $3 in the manifest of the component $1, below the folder $4. The new file is made where
// the kubelet does not look.
const changeManifest = `set -eu
file=$4/manifests/$1.yaml
new=$4/.sealer-$1.yaml
awk -v name="$2" -v value="$3" '
	index($0, "    " name ":") == 1 { next }
	{ print }
	!done && $0 == "metadata:" { inside = 1 }
	inside && !done && $0 == "  annotations:" { print "    " name ": \"" value "\""; done = 1 }
' "$file" >"$new"
grep -q "$2" "$new" || sed -i "s|^metadata:\$|metadata:\n  annotations:\n    $2: \"$3\"|" "$new"
chmod 0600 "$new"
mv -f "$new" "$file"
`

// stopContainers stops containers at once, each within $1 seconds; the kubelet starts them anew within seconds, in the same pods. New pods, of a changed
// manifest, take a minute each: the kubelet first has the API server, whose etcd may be away, forget the old one.
const stopContainers = `grace=$1
shift
for id in "$@"; do crictl --timeout 90s stop --timeout "$grace" "$id" >/dev/null & done
wait`

// An API server that is told to go takes no connection any more, and yet waits for its last watches, for longer than it is given. etcd goes by itself.
const (
	etcdGrace = "30"
	apiGrace  = "10"
)

// restartPods starts components of one control plane anew: etcd first, since an API server that begins without its etcd gives up,
// and is kept waiting before it is tried again; then all others at once.
func restartPods(ctx context.Context, h *runtime.Host, log io.Writer, names []string) error {
	for _, wave := range [][]string{{"etcd"}, {"kube-apiserver", "kube-controller-manager", "kube-scheduler"}} {
		wave = slices.DeleteFunc(wave, func(name string) bool { return !slices.Contains(names, name) })
		if err := restartWave(ctx, h, log, wave); err != nil {
			return err
		}
	}
	return nil
}

func restartWave(ctx context.Context, h *runtime.Host, log io.Writer, names []string) error {
	var pods []*staticPod
	grace := apiGrace
	if slices.Contains(names, "etcd") {
		grace = etcdGrace
	}
	stop := []string{"sh", "-c", stopContainers, "sh", grace}
	for _, name := range names {
		p, err := readPod(ctx, h, name)
		if err != nil {
			return err
		}
		pods = append(pods, p)
		if p.before != "" {
			stop = append(stop, p.before)
			continue
		}
		// It fails again and again, for the old certificates maybe, and is kept waiting: a new pod is not.
		stamp := time.Now().UTC().Format(time.RFC3339)
		if err := run(ctx, h, log, "sh", "-c", changeManifest, "sh", name, restarted, stamp, kubernetesDir); err != nil {
			return err
		}
	}
	if len(stop) > 5 {
		if err := run(ctx, h, log, stop...); err != nil {
			return err
		}
	}
	return waitPods(ctx, h, pods)
}

// staticPod is a component as its host runs it.
type staticPod struct {
	name   string
	before string // id of its container before it is started anew; empty: none runs
	health string // URL that answers when it is well; empty: nothing is known
}

func readPod(ctx context.Context, h *runtime.Host, name string) (*staticPod, error) {
	file := path.Join(kubernetesDir, "manifests", name+".yaml")
	manifest, err := host.ReadFile(ctx, h.Runner, file)
	if err != nil {
		return nil, err
	}
	p := &staticPod{name: name}
	if p.health, err = healthURL(manifest); err != nil {
		return nil, fmt.Errorf("%s: reading %q: %w", h, file, err)
	}
	p.before, err = containerOf(ctx, h, name)
	return p, err
}

// containerOf is the id of the component's container that runs; empty where none does.
func containerOf(ctx context.Context, h *runtime.Host, name string) (string, error) {
	out, err := host.Output(ctx, h.Runner, host.Command{Argv: []string{
		"crictl", "--timeout", "30s", "ps", "--quiet", "--state", "Running", "--latest",
		"--label", "io.kubernetes.container.name=" + name, "--label", "io.kubernetes.pod.namespace=kube-system",
	}})
	return strings.TrimSpace(string(out)), err
}

// healthURL is what the kubelet asks whether the pod of a manifest is well.
func healthURL(manifest []byte) (string, error) {
	type probe struct {
		HTTPGet *struct {
			Host, Path, Scheme string
			Port               any // a number, or the name of one
		} `json:"httpGet"`
	}
	var pod struct {
		Spec struct {
			Containers []struct {
				Ports []struct {
					Name          string `json:"name"`
					ContainerPort int    `json:"containerPort"`
				} `json:"ports"`
				ReadinessProbe, LivenessProbe *probe
			} `json:"containers"`
		} `json:"spec"`
	}
	if err := yaml.Unmarshal(manifest, &pod); err != nil {
		return "", err
	}
	for _, c := range pod.Spec.Containers {
		for _, p := range []*probe{c.ReadinessProbe, c.LivenessProbe} {
			if p == nil || p.HTTPGet == nil {
				continue
			}
			port := fmt.Sprint(p.HTTPGet.Port)
			for _, named := range c.Ports {
				if named.Name == port {
					port = strconv.Itoa(named.ContainerPort)
				}
			}
			address := p.HTTPGet.Host
			if address == "" {
				address = "127.0.0.1"
			}
			scheme := strings.ToLower(p.HTTPGet.Scheme)
			if scheme == "" {
				scheme = "http"
			}
			return scheme + "://" + net.JoinHostPort(address, port) + p.HTTPGet.Path, nil
		}
	}
	return "", nil
}

// podTimeout bounds how long components may take to come back.
const podTimeout = 4 * time.Minute

// podInterval is how often they are looked at. The API shows what became of them up to a minute later: so it is their containers that
// are looked at, and what the kubelet itself asks them.
const podInterval = time.Second

// waitPods waits until each component runs in a new container, and is well.
func waitPods(ctx context.Context, h *runtime.Host, pods []*staticPod) error {
	limited, cancel := context.WithTimeout(ctx, podTimeout)
	defer cancel()
	tick := time.NewTicker(podInterval)
	defer tick.Stop()
	for left := slices.Clone(pods); len(left) > 0; {
		p := left[0]
		back, err := p.isBack(limited, h)
		switch {
		case err != nil && limited.Err() == nil:
			return err
		case back:
			left = left[1:]
			continue
		}
		select {
		case <-limited.Done():
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return &StuckPodError{Host: h.String(), Pod: p.name}
		case <-tick.C:
		}
	}
	return nil
}

func (p *staticPod) isBack(ctx context.Context, h *runtime.Host) (bool, error) {
	now, err := containerOf(ctx, h, p.name)
	if _, answered := errors.AsType[*host.ExitError](err); answered || err == nil && (now == "" || now == p.before) {
		return false, nil // containerd, too, may be busy
	}
	if err != nil || p.health == "" {
		return err == nil, err
	}
	ask, err := url.Parse(p.health)
	if err != nil {
		return false, err
	}
	args := []string{"--server", ask.Scheme + "://" + ask.Host, "get", "--raw", ask.Path, "--request-timeout", "10s"}
	if ask.Scheme == "https" {
		args = append(args, "--insecure-skip-tls-verify") // as the kubelet does: some have certificates that nobody has signed
	}
	return ok(h.Runner.Run(ctx, Distribution{}.Kubectl().Command(args...)))
}

// StuckPodError is a pod of the control plane that did not come back.
type StuckPodError struct{ Host, Pod string }

func (e *StuckPodError) Error() string {
	return fmt.Sprintf("%s: %s was started anew and is not well after %s", e.Host, e.Pod, podTimeout)
}

// Hint says where to look.
func (e *StuckPodError) Hint() string {
	return "look at crictl ps -a and crictl logs of " + e.Pod + " on the host"
}
