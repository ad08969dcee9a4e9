// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"net"
	"time"

	"github.com/sealerio/sealer/internal/secret"
	"github.com/sealerio/sealer/registry"
)

// AskRegistry asks a registry over HTTPS whether it is there and takes the credentials, as this host's container runtime will. server is
// host:port; the certificate has to be signed by a.CA, where that is given, or by one that the host trusts.
func (n *Node) AskRegistry(ctx context.Context, server string, a RegistryAccess) error {
	o := registry.Options{
		Retries: -1, AuthDir: n.root, CertsDir: n.root, // logins and certificates of the host's docker are not the container runtime's
		Dial: (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
	}
	if a.CA != "" {
		o.Authorities = map[string][]byte{server: []byte(a.CA)}
	}
	if a.Username != "" {
		o.Logins = []registry.Login{{Host: server, Username: a.Username, Password: secret.Text(a.Password)}}
	}
	client, err := registry.NewClient(o)
	if err != nil {
		return err
	}
	defer client.Close()
	return client.Check(ctx, server)
}
