// SPDX-License-Identifier: Apache-2.0

package k3s

import (
	"context"
	"fmt"
	"io"

	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/runtime"
)

// listCertificates prints the certificates of a host, each file below its name. The program's own list (k3s certificate
// check) has another form in each minor, and leaves the CAs out.
const listCertificates = `for f in "$1"/server/tls/*.crt "$1"/server/tls/etcd/*.crt "$1"/agent/*.crt; do
	[ -f "$f" ] || continue
	printf 'file: %s\n' "${f#"$1"/}"
	sed -n '/^-----BEGIN CERTIFICATE-----$/,/^-----END CERTIFICATE-----$/p' "$f"
done
`

// Certificates are those of servers and kubelets, named by their files below /var/lib/rancher/k3s.
func (Distribution) Certificates(ctx context.Context, _ *runtime.Cluster, h *runtime.Host) ([]runtime.Certificate, error) {
	out, err := host.Output(ctx, h.Runner, host.Command{Argv: []string{"sh", "-c", listCertificates, "sh", dataDir}})
	if err != nil {
		return nil, err
	}
	return runtime.ParseCertificates(h.String(), out)
}

// Renew makes all certificates but the CAs' anew, on agents too. k3s does so by itself when it starts with little time left.
func (d Distribution) Renew(c *runtime.Cluster, h *runtime.Host) []runtime.Step {
	steps := []runtime.Step{{
		Name: "renewing the certificates (k3s certificate rotate)",
		Do: func(ctx context.Context, log io.Writer) error {
			have, err := present(ctx, h)
			if err != nil {
				return err
			}
			if err := halt(ctx, h, log); err != nil {
				return err
			}
			rotated := run(ctx, h, log, binary, "certificate", "rotate")
			// A k3s that was running runs again, whatever came of it.
			if err := d.restart(context.WithoutCancel(ctx), h, log, known(c, have), func(ctx context.Context) (bool, error) { return d.member(ctx, c, h) }); err != nil {
				return err
			}
			return rotated
		},
	}}
	if isServer(h) {
		steps = append(steps, runtime.FreshRootKubeconfig(h, keptDir, kubeconfig))
	}
	return steps
}

// ServerNames has a server's certificate say c's names: k3s adds those of tls-san when it starts.
func (d Distribution) ServerNames(c *runtime.Cluster, h *runtime.Host) []runtime.Step {
	if !isServer(h) {
		return nil
	}
	named := func(ctx context.Context) (settings, error) {
		have, err := present(ctx, h)
		if err != nil {
			return nil, err
		}
		if have == nil {
			return nil, fmt.Errorf("%s: it has no %s: run the cluster's image again first", h, configFile)
		}
		have["tls-san"] = serverNames(c, h)
		return have, nil
	}
	return []runtime.Step{{
		Name: "restarting k3s with the new names",
		Done: func(ctx context.Context) (bool, error) {
			want, err := named(ctx)
			if err != nil {
				return false, err
			}
			if same, err := written(ctx, h, want); err != nil || !same {
				return false, err
			}
			return runs(ctx, h)
		},
		Do: func(ctx context.Context, log io.Writer) error {
			want, err := named(ctx)
			if err != nil {
				return err
			}
			if err := write(ctx, h, want); err != nil {
				return err
			}
			return d.restart(ctx, h, log, known(c, want), func(ctx context.Context) (bool, error) { return d.member(ctx, c, h) })
		},
	}}
}
