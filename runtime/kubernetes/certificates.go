// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/runtime"
)

// listCertificates prints the certificates of a host, each file below its name, and nothing of the keys that some files hold too.
const listCertificates = `for f in /etc/kubernetes/pki/*.crt /etc/kubernetes/pki/etcd/*.crt /var/lib/kubelet/pki/kubelet-client-current.pem /var/lib/kubelet/pki/kubelet.crt; do
	[ -f "$f" ] || continue
	printf 'file: %s\n' "$f"
	sed -n '/^-----BEGIN CERTIFICATE-----$/,/^-----END CERTIFICATE-----$/p' "$f"
done
for f in /etc/kubernetes/*.conf; do
	data=$(sed -n 's/^ *client-certificate-data: *//p' "$f" 2>/dev/null)
	[ -n "$data" ] || continue
	printf 'file: %s\n' "$f"
	printf '%s\n' "$data" | base64 -d
done
`

// Certificates are those of the control plane, of kubeconfigs, and the kubelet's, which renews its own. They are named by their files.
func (Distribution) Certificates(ctx context.Context, _ *runtime.Cluster, h *runtime.Host) ([]runtime.Certificate, error) {
	out, err := host.Output(ctx, h.Runner, host.Command{Argv: []string{"sh", "-c", listCertificates}})
	if err != nil {
		return nil, err
	}
	return runtime.ParseCertificates(h.String(), out)
}

// Renew makes the control plane's certificates anew, and its pods with them, which read theirs when they start. Kubelets
// renew their own: on workers there is nothing to do.
func (d Distribution) Renew(c *runtime.Cluster, h *runtime.Host) []runtime.Step {
	if h.Spec.Role != clusterfile.ControlPlane {
		return nil
	}
	return []runtime.Step{
		{
			Name: "renewing the certificates (kubeadm certs renew)",
			Do: func(ctx context.Context, log io.Writer) error {
				return run(ctx, h, log, oneAtATime("certs", "renew", "all")...)
			},
		},
		{
			Name: "starting the control plane's pods anew",
			Do:   func(ctx context.Context, log io.Writer) error { return restartPods(ctx, h, log, components(c)) },
		},
		runtime.FreshRootKubeconfig(h, keptDir, adminConf),
	}
}

const namesFile = "/etc/kubernetes/kubeadm-names.yaml"

// ServerNames has the API server's certificate say c's names, and the cluster's configuration with it, for the control
// planes that join later.
func (d Distribution) ServerNames(c *runtime.Cluster, h *runtime.Host) []runtime.Step {
	if h.Spec.Role != clusterfile.ControlPlane {
		return nil
	}
	return []runtime.Step{
		{
			Name: "making the API server's certificate with the new names",
			Done: func(ctx context.Context) (bool, error) {
				missing, err := missingNames(ctx, c, h)
				return err == nil && len(missing) == 0, err
			},
			Do: func(ctx context.Context, log io.Writer) error { return newNames(ctx, c, h, log) },
		},
		{
			Name: "starting the API server anew",
			Key:  strings.Join(wantedNames(c), ","),
			Do: func(ctx context.Context, log io.Writer) error {
				return restartPods(ctx, h, log, []string{"kube-apiserver"})
			},
		},
	}
}

// wantedNames are all names that the API server's certificate is to have.
func wantedNames(c *runtime.Cluster) []string {
	list, _ := child(clusterConfig(c), "apiServer")["certSANs"].([]any)
	names := make([]string, 0, len(list))
	for _, n := range list {
		names = append(names, fmt.Sprint(n))
	}
	return names
}

// missingNames are those that the certificate on the host does not have.
func missingNames(ctx context.Context, c *runtime.Cluster, h *runtime.Host) ([]string, error) {
	data, err := host.ReadFile(ctx, h.Runner, "/etc/kubernetes/pki/apiserver.crt")
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, fmt.Errorf("%s: reading the API server's certificate: it is not PEM", h)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: reading the API server's certificate: %w", h, err)
	}
	return slices.DeleteFunc(wantedNames(c), func(name string) bool { return cert.VerifyHostname(name) == nil }), nil
}

// moveCertificate keeps the certificate until the new one is made: kubeadm makes none where there is one.
const (
	moveCertificate = `set -eu; cd /etc/kubernetes/pki; for e in crt key; do [ ! -e apiserver.$e ] || mv -f apiserver.$e apiserver.$e.before; done`
	dropCertificate = `rm -f /etc/kubernetes/pki/apiserver.crt.before /etc/kubernetes/pki/apiserver.key.before`
	backCertificate = `cd /etc/kubernetes/pki; for e in crt key; do [ -e apiserver.$e ] || [ ! -e apiserver.$e.before ] || mv -f apiserver.$e.before apiserver.$e; done`
)

func newNames(ctx context.Context, c *runtime.Cluster, h *runtime.Host, log io.Writer) error {
	config, err := namesConfig(ctx, c, h)
	if err != nil {
		return err
	}
	if err := host.WriteFile(ctx, h.Runner, namesFile, config, 0o600); err != nil {
		return err
	}
	made := run(ctx, h, log, "sh", "-c", moveCertificate)
	if made == nil {
		made = run(ctx, h, log, oneAtATime("init", "phase", "certs", "apiserver", "--config", namesFile)...)
	}
	if made == nil {
		made = run(ctx, h, log, oneAtATime("init", "phase", "upload-config", "kubeadm", "--config", namesFile)...)
	}
	after := dropCertificate
	if made != nil {
		after = backCertificate
	}
	kept, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	return errors.Join(made, run(kept, h, log, "sh", "-c", after), remove(ctx, h, namesFile))
}

// namesConfig is the cluster's own configuration, as kubeadm has it, with c's names added to those that it has.
func namesConfig(ctx context.Context, c *runtime.Cluster, h *runtime.Host) ([]byte, error) {
	out, err := host.Output(ctx, c.Server().Runner, Distribution{}.Kubectl().Command(
		"--namespace", "kube-system", "get", "configmap", "kubeadm-config", "--output", "jsonpath={.data.ClusterConfiguration}", "--request-timeout", "30s"))
	if err != nil {
		return nil, err
	}
	var config object
	if err := yaml.Unmarshal(out, &config); err != nil {
		return nil, fmt.Errorf("%s: reading the ClusterConfiguration in kube-system/kubeadm-config: %w", c.Server(), err)
	}
	api := child(config, "apiServer")
	names, _ := api["certSANs"].([]any)
	for _, name := range wantedNames(c) {
		if !slices.Contains(names, any(name)) {
			names = append(names, name)
		}
	}
	api["certSANs"] = names
	init := object{
		"apiVersion": kubeadmAPI, "kind": "InitConfiguration",
		"localAPIEndpoint": object{"advertiseAddress": h.IP(), "bindPort": port(c)},
		"nodeRegistration": object{"name": h.Facts.NodeName(), "criSocket": criSocket},
	}
	return marshal([]object{init, config})
}
