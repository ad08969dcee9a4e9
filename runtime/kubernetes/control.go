// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/runtime"
)

// How long a control plane that was there before may take to answer, and how often it is asked.
const (
	apiTimeout  = 90 * time.Second
	apiInterval = 2 * time.Second
)

const lockFile = "/run/lock/sealer-kubeadm"

// oneAtATime keeps a kubeadm that lost its operator from meeting the next one (flock(1), util-linux).
func oneAtATime(argv ...string) []string {
	return append([]string{"flock", "--timeout", "900", lockFile, kubeadmBin}, argv...)
}

// Init starts the control plane.
func (d Distribution) Init(c *runtime.Cluster, h *runtime.Host) []runtime.Step {
	steps := []runtime.Step{{
		Name: "starting the control plane (kubeadm init)",
		Key:  c.KubeVersion(),
		Done: func(ctx context.Context) (bool, error) { return initialised(ctx, h) },
		Do:   func(ctx context.Context, log io.Writer) error { return initialise(ctx, c, h, log) },
	}}
	steps = append(steps, ownServerStep(c, h)...)
	return append(steps, runtime.RootKubeconfig(h, keptDir, adminConf))
}

// initialised: the API server is ready and kubeadm has uploaded its configuration.
func initialised(ctx context.Context, h *runtime.Host) (bool, error) {
	ready, err := apiReady(ctx, h)
	if err != nil || !ready {
		return false, err
	}
	return ok(h.Runner.Run(ctx, Distribution{}.Kubectl().Command(
		"--namespace", "kube-system", "get", "configmap", "kubeadm-config", "--output", "name", "--request-timeout", "10s")))
}

func apiReady(ctx context.Context, h *runtime.Host) (bool, error) {
	return ok(h.Runner.Run(ctx, Distribution{}.Kubectl().Command("get", "--raw", "/readyz", "--request-timeout", "10s")))
}

func initialise(ctx context.Context, c *runtime.Cluster, h *runtime.Host, log io.Writer) error {
	config, err := initConfig(c, h, "")
	if err != nil {
		return err
	}
	begun, err := succeeds(ctx, h.Runner, "sh", "-c",
		`[ -e /etc/kubernetes/admin.conf ] || [ -e /etc/kubernetes/pki/ca.crt ] || [ -e "$1/member" ]`, "sh", etcdDir(c))
	if err != nil {
		return err
	}
	if begun {
		for _, s := range ownServerStep(c, h) { // whether the endpoint leads here already is another question
			if err := s.Do(ctx, log); err != nil {
				return err
			}
		}
		if done, err := waitInitialised(ctx, h); err != nil {
			return err
		} else if done {
			return finishInit(ctx, h, log)
		}
		if err := resetHalf(ctx, c, h, log); err != nil {
			return err
		}
	}
	if err := host.WriteFile(ctx, h.Runner, configFile, config, 0o600); err != nil {
		return err
	}
	// No --upload-certs: each joining control plane uploads them with a key of its own, so that none lies about.
	return run(ctx, h, log, oneAtATime("init", "--config", configFile, "--skip-token-print", "--skip-certificate-key-print")...)
}

// finishInit runs the phases that come after the upload of the
// configuration, where a kubeadm init was cut between. They may be run twice.
func finishInit(ctx context.Context, h *runtime.Host, log io.Writer) error {
	if there, err := succeeds(ctx, h.Runner, "test", "-e", configFile); err != nil || !there {
		return err
	}
	for _, phase := range [][]string{
		{"upload-config", "all"}, {"mark-control-plane"}, {"bootstrap-token", "--skip-token-print"}, {"kubelet-finalize", "all"}, {"addon", "all"},
	} {
		argv := append([]string{"init", "phase"}, phase...)
		if err := run(ctx, h, log, oneAtATime(append(argv, "--config", configFile)...)...); err != nil {
			return err
		}
	}
	return nil
}

// waitInitialised waits for a control plane that may be on its way: after a
// reboot, or because a kubeadm goes on whose operator is gone. false: it will not come.
func waitInitialised(ctx context.Context, h *runtime.Host) (bool, error) {
	tick := time.NewTicker(apiInterval)
	defer tick.Stop()
	for deadline := time.Now().Add(apiTimeout); ; {
		done, err := initialised(ctx, h)
		if err != nil || done {
			return done, err
		}
		idle, err := succeeds(ctx, h.Runner, "flock", "--nonblock", lockFile, "true")
		if err != nil {
			return false, err
		}
		if !idle {
			deadline = time.Now().Add(apiTimeout)
		} else if dead, err := hopeless(ctx, h); err != nil || dead || time.Now().After(deadline) {
			return false, err
		}
		select {
		case <-ctx.Done():
			return false, context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// hopeless, while no kubeadm runs: the kubelet does not run either, or the API server does, and kubeadm never came to
// upload its configuration.
func hopeless(ctx context.Context, h *runtime.Host) (bool, error) {
	running, err := succeeds(ctx, h.Runner, "systemctl", "is-active", "--quiet", "kubelet")
	if err != nil || !running {
		return !running, err
	}
	ready, err := apiReady(ctx, h)
	if err != nil || !ready {
		return false, err
	}
	done, err := initialised(ctx, h) // it may have come up between the two questions
	return !done, err
}

// resetHalf clears a control plane whose start was cut, as long as nothing depends on it. One that was part of a cluster once is
// never cleared: it is down, and has all the cluster's data.
func resetHalf(ctx context.Context, c *runtime.Cluster, h *runtime.Host, log io.Writer) error {
	if h.Facts.State.WasComplete() {
		return &StuckError{Host: h.String()}
	}
	for _, other := range c.Hosts {
		if other != h && other.Facts.Has("/etc/kubernetes/kubelet.conf") {
			return &StuckError{Host: h.String(), Joined: other.String()}
		}
	}
	_, _ = fmt.Fprintln(log, "an earlier start was cut: resetting")
	return resetAll(ctx, c, h, log)
}

// resetAll is reset with etcd's data.
func resetAll(ctx context.Context, c *runtime.Cluster, h *runtime.Host, log io.Writer) error {
	if err := reset(ctx, h, log); err != nil {
		return err
	}
	// kubeadm empties etcd's folder in the phase that takes the member out, which a cluster of one cannot do.
	return run(ctx, h, log, "sh", "-c", `[ ! -d "$1" ] || find "$1" -mindepth 1 -delete`, "sh", etcdDir(c))
}

// etcdDir is where the cluster's own etcd keeps its data.
func etcdDir(c *runtime.Cluster) string {
	if dir, ok := child(child(clusterConfig(c), "etcd"), "local")["dataDir"].(string); ok && dir != "" {
		return dir
	}
	return "/var/lib/etcd"
}

// StuckError is a control plane that does not answer and on which other hosts depend, or which has a cluster's data.
type StuckError struct {
	Host   string
	Joined string // empty: none
}

func (e *StuckError) Error() string {
	if e.Joined == "" {
		return e.Host + ": the control plane does not answer, and is not started anew: it has the cluster's data"
	}
	return fmt.Sprintf("%s: the control plane does not answer, and cannot be started anew: %s has joined it", e.Host, e.Joined)
}

// Hint says where to look.
func (e *StuckError) Hint() string {
	return "look at journalctl -u kubelet and crictl ps -a on the control plane, or delete the cluster: sealer delete --all"
}

func reset(ctx context.Context, h *runtime.Host, log io.Writer) error {
	return run(ctx, h, log, oneAtATime("reset", "--force", "--cri-socket", criSocket, "--cleanup-tmp-dir", "--skip-phases", "remove-etcd-member")...)
}

func run(ctx context.Context, h *runtime.Host, log io.Writer, argv ...string) error {
	return h.Runner.Run(ctx, host.Command{Argv: argv, Stdout: log, Stderr: log, Mutates: true})
}

// newSecrets makes what one host needs to join: a token of its own, and for a
// control plane the certificates, uploaded with a key of their own.
func newSecrets(ctx context.Context, c *runtime.Cluster, h *runtime.Host, controlPlane bool, log io.Writer) (secrets, error) {
	server := c.Server()
	var s secrets
	token, err := host.Output(ctx, server.Runner, host.Command{
		Argv: []string{kubeadmBin, "token", "create", "--ttl", "30m", "--description", "sealer: " + h.String(), "--kubeconfig", adminConf}, Secret: true, Mutates: true,
	})
	if err != nil {
		return s, fmt.Errorf("making a token: %w", err)
	}
	s.token = host.Secret(strings.TrimSpace(string(token)))
	ca, err := host.ReadFile(ctx, server.Runner, "/etc/kubernetes/pki/ca.crt")
	if err != nil {
		return s, err
	}
	if s.caHash, err = publicKeyHash(ca); err != nil {
		return s, fmt.Errorf("%s: reading the cluster's CA: %w", server, err)
	}
	if !controlPlane {
		return s, nil
	}
	key := make([]byte, 32)
	if _, err := rand.Read(key); err != nil {
		return s, fmt.Errorf("making a certificate key: %w", err)
	}
	s.certificateKey = host.Secret(hex.EncodeToString(key))
	config, err := initConfig(c, server, s.certificateKey)
	if err != nil {
		return s, err
	}
	const file = "/etc/kubernetes/kubeadm-certs.yaml"
	if err := host.WriteFile(ctx, server.Runner, file, config, 0o600); err != nil {
		return s, err
	}
	err = run(ctx, server, log, oneAtATime("init", "phase", "upload-certs", "--upload-certs", "--skip-certificate-key-print", "--config", file)...)
	return s, errors.Join(err, remove(ctx, server, file))
}

// publicKeyHash is what caCertHashes wants: the SHA-256 of the certificate's SubjectPublicKeyInfo.
func publicKeyHash(certificate []byte) (string, error) {
	block, _ := pem.Decode(certificate)
	if block == nil {
		return "", errors.New("it is not PEM")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return "sha256:" + hex.EncodeToString(sum[:]), nil
}

// remove deletes a file with secrets, also when ctx has ended meanwhile.
func remove(ctx context.Context, h *runtime.Host, file string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	return h.Runner.Run(ctx, host.Command{Argv: []string{"rm", "-f", "--", file}, Mutates: true})
}
