// SPDX-License-Identifier: Apache-2.0

// Package k0s installs Kubernetes with k0s, from the binary that the rootfs
// holds as bin/k0s. What is said about k0s here was seen with v1.36.3+k0s.2
// and read in its sources for 1.31 to 1.36.
package k0s

import (
	"bytes"
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/runtime"
)

// Name is what Metadata.ClusterRuntime calls this distribution.
const Name = "k0s"

// Where things are on a host.
const (
	k0sBin     = "/usr/local/bin/k0s"
	kubectlBin = "/usr/local/bin/kubectl"
	configDir  = "/etc/k0s"
	configFile = configDir + "/k0s.yaml"
	tokenFile  = configDir + "/k0stoken"
	dataDir    = "/var/lib/k0s"
	adminConf  = dataDir + "/pki/admin.conf"
	imageDir   = "/var/lib/sealer/k0s" // what outlives the rootfs; the image's scripts keep theirs here
	keptDir    = imageDir + "/own"     // and we ours

	controllerUnit = "k0scontroller"
	workerUnit     = "k0sworker"
)

// Distribution is k0s. The zero value is ready.
type Distribution struct {
	// Timeout is how long a node may take to start. Default 6 minutes.
	Timeout time.Duration
	// Interval is how often it is asked. Default 2 seconds.
	Interval time.Duration
}

// New is k0s.
func New() Distribution { return Distribution{} }

func (d Distribution) timeout() time.Duration  { return cmp.Or(d.Timeout, 6*time.Minute) }
func (d Distribution) interval() time.Duration { return cmp.Or(d.Interval, 2*time.Second) }

var (
	_ runtime.Distribution = Distribution{}
	_ runtime.Addressed    = Distribution{}
)

// Name is "k0s".
func (Distribution) Name() string { return Name }

// Marks are what k0s leaves.
func (Distribution) Marks() runtime.Marks {
	return runtime.Marks{
		Name: Name, Title: "k0s",
		Started:  []string{joinedMark, etcdMark, dataDir + "/pki/ca.key", dataDir},
		Programs: []string{k0sBin, "/usr/bin/k0s", configDir, "/etc/init.d/" + controllerUnit, "/etc/init.d/" + workerUnit},
		Units:    []string{controllerUnit + ".service", workerUnit + ".service"},
	}
}

// The traces of a node that has joined: from then on k0s looks at no token.
const (
	joinedMark = dataDir + "/kubelet.conf"
	etcdDir    = dataDir + "/etcd"
	etcdMark   = etcdDir + "/member/snap/db"
)

// Kubectl asks as cluster-admin, with the kubectl that k0s holds.
func (Distribution) Kubectl() runtime.Kubectl {
	return runtime.Kubectl{Argv: []string{k0sBin, "kubectl", "--cache-dir", keptDir + "/kubectl-cache"}, Kubeconfig: adminConf}
}

// version is k0s' own, "v1.36.3+k0s.2", or Kubernetes' where the image says no more.
func version(c *runtime.Cluster) string {
	return cmp.Or(c.Metadata.ClusterRuntimeVersion, c.KubeVersion())
}

// KubeletVersion is "v1.36.3+k0s" for k0s v1.36.3+k0s.2.
func (Distribution) KubeletVersion(c *runtime.Cluster) string {
	upstream, _, _ := strings.Cut(version(c), "+")
	if upstream == "" {
		return ""
	}
	return upstream + "+k0s"
}

// minorOf reads the 36 of v1.36.3+k0s.2.
func minorOf(version string) (int, error) {
	var major, minor int
	if _, err := fmt.Sscanf(version, "v%d.%d.", &major, &minor); err != nil || major != 1 {
		return 0, fmt.Errorf("%q is not a version such as v1.36.3+k0s.2", version)
	}
	return minor, nil
}

func isController(h *runtime.Host) bool { return h.Spec.Role == clusterfile.ControlPlane }

// Service is k0s'.
func (Distribution) Service(h *runtime.Host) runtime.Service { return service(h) }

// service is what runs k0s on the host.
func service(h *runtime.Host) runtime.Service {
	s := runtime.Service{Host: h, Name: workerUnit, LogName: "k0s"} // its script for OpenRC names the files after the program
	if isController(h) {
		s.Name = controllerUnit
	}
	return s
}

// call is a call of k0s with a limit: some of its commands never end, as member-list on a node that has left etcd.
func call(limit time.Duration, args ...string) []string {
	return append([]string{"timeout", "-k", "5", fmt.Sprint(int(limit.Seconds())), k0sBin}, args...)
}

// kubectl is a call of kubectl with a limit.
func kubectl(limit time.Duration, args ...string) host.Command {
	c := Distribution{}.Kubectl().Command(args...)
	c.Argv = append([]string{"timeout", "-k", "5", fmt.Sprint(int(limit.Seconds()))}, c.Argv...)
	return c
}

//go:embed scripts/prepare.sh
var prepareScript []byte

// Install puts k0s on a host, and lets its containerd ask the cluster's registry only.
func (d Distribution) Install(c *runtime.Cluster, h *runtime.Host) []runtime.Step {
	return []runtime.Step{
		{
			Name: "preparing the host for k0s",
			Key:  c.RootfsKey(h),
			Done: func(ctx context.Context) (bool, error) {
				return succeeds(ctx, h.Runner, "test", "-e", keptDir+"/recorded")
			},
			Do: func(ctx context.Context, log io.Writer) error { return prepare(ctx, c, h, log) },
		},
		{
			Name: "installing k0s",
			Key:  c.RootfsKey(h),
			Done: func(ctx context.Context) (bool, error) { return placed(ctx, h) },
			Do:   func(ctx context.Context, log io.Writer) error { return place(ctx, c, h, log) },
		},
		fitStep(c, h),
		registryStep(c, h),
	}
}

// prepare records how the host was found, and does what an image brings for the host in scripts/init-k0s.sh.
func prepare(ctx context.Context, c *runtime.Cluster, h *runtime.Host, log io.Writer) error {
	err := h.Runner.Run(ctx, host.Command{
		Argv: []string{"sh", "-s", "--", keptDir}, Stdin: bytes.NewReader(prepareScript), Stdout: log, Stderr: log, Mutates: true,
		Env: []string{"PodCIDR=" + networks(c).Pods},
	})
	if err != nil {
		return err
	}
	script := path.Join(h.Rootfs, "scripts", "init-k0s.sh")
	there, err := succeeds(ctx, h.Runner, "test", "-x", script)
	if err != nil || !there {
		return err
	}
	n := networks(c)
	env := append(c.EnvList(h), "HostIP="+h.IP(), "PodCIDR="+n.Pods, "ServiceCIDR="+n.Services)
	return h.Runner.Run(ctx, host.Command{Argv: []string{script}, Dir: h.Rootfs, Env: env, Stdout: log, Stderr: log, Mutates: true})
}

func placed(ctx context.Context, h *runtime.Host) (bool, error) {
	return succeeds(ctx, h.Runner, "cmp", "-s", path.Join(h.Rootfs, "bin", "k0s"), k0sBin)
}

// placeScript puts $1 at $2 at once and whole: a k0s that runs goes on with the file it was started from. Where the host has no
// kubectl, $3 becomes k0s' own.
const placeScript = `set -eu
mkdir -p "${2%/*}"
if ! cmp -s "$1" "$2"; then
	cp "$1" "$2.sealer-new"
	chmod 0755 "$2.sealer-new"
	sync "$2.sealer-new" 2>/dev/null || sync
	mv -f "$2.sealer-new" "$2"
fi
if [ ! -e "$3" ] && [ ! -h "$3" ]; then
	printf '#!/bin/sh\n# Written by sealer: the kubectl that k0s holds.\nexec %s kubectl "$@"\n' "$2" >"$3.sealer-new"
	chmod 0755 "$3.sealer-new"
	mv -f "$3.sealer-new" "$3"
fi
`

func place(ctx context.Context, c *runtime.Cluster, h *runtime.Host, log io.Writer) error {
	source := path.Join(h.Rootfs, "bin", "k0s")
	there, err := succeeds(ctx, h.Runner, "test", "-f", source)
	if err != nil {
		return err
	}
	if !there {
		return &ImageError{What: "it has no bin/k0s", Fix: "put k0s into bin/ of the Kubefile's context and build again"}
	}
	if err := checkProgram(ctx, c, h); err != nil {
		return err
	}
	return run(ctx, h, log, "sh", "-c", placeScript, "sh", source, k0sBin, kubectlBin)
}

// checkProgram runs the image's k0s once: it may be of another version than its image says, or for another machine.
func checkProgram(ctx context.Context, c *runtime.Cluster, h *runtime.Host) error {
	argv := call(30*time.Second, "version")
	argv[4] = path.Join(h.Rootfs, "bin", "k0s")
	out, err := host.Output(ctx, h.Runner, host.Command{Argv: argv})
	if err != nil {
		return err
	}
	return sameVersion(version(c), strings.TrimSpace(string(out)))
}

// sameVersion: what is done for one minor version breaks another one.
func sameVersion(said, is string) error {
	upstream, _, _ := strings.Cut(is, "+")
	if said == is || said == upstream {
		return nil
	}
	return &ImageError{
		What: fmt.Sprintf("it is said to hold k0s %s, its bin/k0s is %s", said, is),
		Fix:  "correct the label of the version in the Kubefile and build again",
	}
}

// ImageError is a ClusterImage that cannot be installed.
type ImageError struct{ What, Fix string }

func (e *ImageError) Error() string { return "the image cannot be installed: " + e.What }

// Hint is what to do about the image.
func (e *ImageError) Hint() string { return e.Fix }

// others are the hosts besides h that hold a part of the cluster, by their facts.
func others(c *runtime.Cluster, h *runtime.Host) []*runtime.Host {
	return slices.DeleteFunc(slices.Clone(c.Hosts), func(o *runtime.Host) bool { return o == h || !o.Facts.Has(joinedMark, etcdMark) })
}

// succeeds asks a question whose answer is an exit status.
func succeeds(ctx context.Context, r host.Runner, argv ...string) (bool, error) {
	return ok(r.Run(ctx, host.Command{Argv: argv}))
}

func ok(err error) (bool, error) {
	if _, answered := errors.AsType[*host.ExitError](err); answered {
		return false, nil
	}
	return err == nil, err
}

func run(ctx context.Context, h *runtime.Host, log io.Writer, argv ...string) error {
	return h.Runner.Run(ctx, host.Command{Argv: argv, Stdout: log, Stderr: log, Mutates: true})
}
