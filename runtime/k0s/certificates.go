// SPDX-License-Identifier: Apache-2.0

package k0s

import (
	"context"
	"io"

	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/runtime"
)

// listCertificates prints the certificates of a host, each file below its name, and nothing of the keys that some files hold too.
const listCertificates = `for f in "$1"/pki/*.crt "$1"/pki/etcd/*.crt "$1"/kubelet/pki/kubelet-client-current.pem "$1"/kubelet/pki/kubelet-server-current.pem; do
	[ -f "$f" ] || continue
	printf 'file: %s\n' "${f#"$1"/}"
	sed -n '/^-----BEGIN CERTIFICATE-----$/,/^-----END CERTIFICATE-----$/p' "$f"
done
`

// Certificates are those of the control plane, and the kubelet's, which renews them by itself. They are named by their files
// below /var/lib/k0s.
func (Distribution) Certificates(ctx context.Context, _ *runtime.Cluster, h *runtime.Host) ([]runtime.Certificate, error) {
	out, err := host.Output(ctx, h.Runner, host.Command{Argv: []string{"sh", "-c", listCertificates, "sh", dataDir}})
	if err != nil {
		return nil, err
	}
	return runtime.ParseCertificates(h.String(), out)
}

// Renew restarts the control plane: k0s makes all certificates but the CAs' anew whenever it starts. On workers there is nothing to do.
func (d Distribution) Renew(c *runtime.Cluster, h *runtime.Host) []runtime.Step {
	if !isController(h) {
		return nil
	}
	return []runtime.Step{{
		Name: "renewing the certificates (a restart of k0s)",
		Do: func(ctx context.Context, log io.Writer) error {
			if err := markRestart(ctx, h, log); err != nil {
				return err
			}
			return d.start(ctx, c, h, "", func(ctx context.Context) (bool, error) { return d.isNode(ctx, c, h) }, log)
		},
	}, runtime.FreshRootKubeconfig(h, keptDir, adminConf)}
}

// ServerNames has the API server's certificate say c's names, and k0s.yaml with it.
func (d Distribution) ServerNames(c *runtime.Cluster, h *runtime.Host) []runtime.Step {
	if !isController(h) {
		return nil
	}
	balance := func(ctx context.Context) (bool, error) { return balancesOn(ctx, c, h) }
	return []runtime.Step{
		d.configure(c, h, false, balance), // a unit that names a token keeps it
		{
			Name: "restarting k0s with the new names",
			Done: func(ctx context.Context) (bool, error) { return d.settled(ctx, c, h) },
			Do: func(ctx context.Context, log io.Writer) error {
				return d.start(ctx, c, h, "", func(ctx context.Context) (bool, error) { return d.isNode(ctx, c, h) }, log)
			},
		},
		runtime.FreshRootKubeconfig(h, keptDir, adminConf),
	}
}
