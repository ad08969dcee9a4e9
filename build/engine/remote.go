// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/moby/buildkit/client"
	// The schemes docker-container:// and kube-pod:// of Dial register themselves.
	_ "github.com/moby/buildkit/client/connhelper/dockercontainer"
	_ "github.com/moby/buildkit/client/connhelper/kubepod"
)

// Dial connects to a BuildKit daemon: unix:///path, tcp://host:port, docker-container://name, kube-pod://name.
// For tcp, TLS is used when certs is not empty: a folder with ca.pem and, for client authentication, cert.pem and
// key.pem (the layout of buildctl --tlsdir). The caller closes the client.
func Dial(ctx context.Context, address, certs string) (*client.Client, error) {
	var opts []client.ClientOpt
	if certs != "" {
		opts = append(opts, client.WithServerConfig("", filepath.Join(certs, "ca.pem")))
		cert := filepath.Join(certs, "cert.pem")
		if _, err := os.Stat(cert); err == nil {
			opts = append(opts, client.WithCredentials(cert, filepath.Join(certs, "key.pem")))
		}
	}
	c, err := client.New(ctx, address, opts...)
	if err != nil {
		return nil, &BuilderError{Address: address, Err: err}
	}
	if _, err := c.Info(ctx); err != nil {
		_ = c.Close()
		return nil, &BuilderError{Address: address, Err: err}
	}
	return c, nil
}

// BuilderError is returned where the daemon that --builder names does not answer.
type BuilderError struct {
	Address string
	Err     error
}

func (e *BuilderError) Error() string {
	return fmt.Sprintf("reaching the builder %q: %v", e.Address, e.Err)
}
func (e *BuilderError) Unwrap() error { return e.Err }

// Hint says what the address may look like.
func (e *BuilderError) Hint() string {
	return "start buildkitd there, or leave --builder and BUILDKIT_HOST out to build in this process"
}
