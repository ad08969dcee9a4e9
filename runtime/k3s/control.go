// SPDX-License-Identifier: Apache-2.0

package k3s

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"regexp"
	"strings"

	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/runtime"
)

// Init starts the cluster on its first server.
func (d Distribution) Init(c *runtime.Cluster, h *runtime.Host) []runtime.Step {
	return []runtime.Step{
		{
			Name: "starting the cluster (k3s server)",
			Done: func(ctx context.Context) (bool, error) { return d.initialised(ctx, c, h) },
			Do:   func(ctx context.Context, log io.Writer) error { return d.initialise(ctx, c, h, log) },
		},
		runtime.RootKubeconfig(h, keptDir, kubeconfig),
	}
}

// initialised: the server runs with the settings that it should have, answers, and is a node.
func (d Distribution) initialised(ctx context.Context, c *runtime.Cluster, h *runtime.Host) (bool, error) {
	have, err := present(ctx, h)
	if err != nil || have == nil {
		return false, err
	}
	want, _, err := d.firstSettings(ctx, c, h, have)
	if err != nil {
		return false, err
	}
	if same, err := written(ctx, h, want); err != nil || !same {
		return false, err
	}
	if fresh, err := runs(ctx, h); err != nil || !fresh {
		return false, err
	}
	return d.serves(ctx, h)
}

// serves: the host's own API server is ready, and knows the host.
func (d Distribution) serves(ctx context.Context, h *runtime.Host) (bool, error) {
	ready, err := d.apiReady(ctx, h)
	if err != nil || !ready {
		return false, err
	}
	return d.hasNode(ctx, h, h)
}

func (d Distribution) initialise(ctx context.Context, c *runtime.Cluster, h *runtime.Host, log io.Writer) error {
	have, err := present(ctx, h)
	if err != nil {
		return err
	}
	want, t, err := d.firstSettings(ctx, c, h, have)
	if err != nil {
		return err
	}
	if err := write(ctx, h, want); err != nil {
		return err
	}
	return d.restart(ctx, h, log, secrets(c, t), func(ctx context.Context) (bool, error) { return d.serves(ctx, h) })
}

// firstSettings are those of the first server. have is what is there.
func (d Distribution) firstSettings(ctx context.Context, c *runtime.Cluster, h *runtime.Host, have settings) (settings, tokens, error) {
	t, err := d.ownTokens(ctx, h, have)
	if err != nil {
		return nil, t, err
	}
	want := serverSettings(c, h, t, "")
	up, err := wasUp(ctx, h)
	if err != nil || !up || have == nil {
		return want, t, err
	}
	return want, t, want.settle(c, h, have)
}

// ownTokens are the cluster's, as the first server has them, or new ones.
func (d Distribution) ownTokens(ctx context.Context, h *runtime.Host, have settings) (t tokens, err error) {
	server, _ := have["token"].(string)
	agent, _ := have["agent-token"].(string)
	t = tokens{host.Secret(server), host.Secret(agent)}
	if t.server == "" { // the configuration is lost, and the cluster may be there
		kept, err := readToken(ctx, h)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return t, err
		}
		t.server = kept.whole
	}
	for _, s := range []*host.Secret{&t.server, &t.agent} {
		if *s == "" {
			if *s, err = newSecret(); err != nil {
				return t, err
			}
		}
	}
	return t, nil
}

func newSecret() (host.Secret, error) {
	secret := make([]byte, 32)
	if _, err := rand.Read(secret); err != nil {
		return "", fmt.Errorf("making a token: %w", err)
	}
	return host.Secret(hex.EncodeToString(secret)), nil
}

// secrets are what k3s may write into its log by mistake.
func secrets(c *runtime.Cluster, t tokens) []host.Secret {
	return append(c.File.Secrets(), t.server, t.agent, c.Registry.Password)
}

// token is k3s' secure form, K10HASH::USER:SECRET: it names the cluster's CA, so that nobody else is joined
// (docs.k3s.io/cli/token).
type token struct {
	whole host.Secret
	hash  string // SHA-256 of the CA
}

// readToken reads the one that a started server keeps. Where there is none the error is fs.ErrNotExist.
func readToken(ctx context.Context, h *runtime.Host) (token, error) {
	data, err := host.ReadFile(ctx, h.Runner, serverToken)
	if err != nil {
		return token{}, err
	}
	text := strings.TrimSpace(string(data))
	m := regexp.MustCompile(`^K10([0-9a-f]{64})::[^:]*:.+$`).FindStringSubmatch(text)
	if m == nil {
		return token{}, fmt.Errorf("%s: reading %q: it is not a token of the form K10HASH::USER:SECRET", h, serverToken)
	}
	return token{host.Secret(text), m[1]}, nil
}
