// SPDX-License-Identifier: Apache-2.0

package k0s

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/runtime"
)

// tokenLife is how long a token can be used; by default k0s makes them for ever.
const tokenLife = "30m"

// maxToken bounds a token that is unpacked, in bytes.
const maxToken = 1 << 20

// token lets one host join, for minutes: a kubeconfig, packed by gzip and base64, whose user has a bootstrap token.
type token struct {
	text host.Secret
	id   string // what stands before the point of the bootstrap token; it is not secret
}

func newToken(ctx context.Context, c *runtime.Cluster, h *runtime.Host) (token, error) {
	role := "worker"
	if isController(h) {
		role = "controller"
	}
	out, err := host.Output(ctx, c.Server().Runner, host.Command{
		Argv: call(time.Minute, "token", "create", "--role="+role, "--expiry="+tokenLife), Secret: true, Mutates: true,
	})
	if err != nil {
		return token{}, fmt.Errorf("making a token: %w", err)
	}
	t := token{text: host.Secret(strings.TrimSpace(string(out)))}
	if t.id, err = tokenID(t.text); err != nil {
		return token{}, fmt.Errorf("%s: reading the token that k0s made: %w", c.Server(), err)
	}
	return t, nil
}

// tokenID unpacks a token. Its errors hold nothing of it.
func tokenID(text host.Secret) (string, error) {
	packed, err := base64.StdEncoding.DecodeString(text.Reveal())
	if err != nil {
		return "", errors.New("it is not base64")
	}
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return "", errors.New("it is not packed by gzip")
	}
	data, err := io.ReadAll(io.LimitReader(r, maxToken+1))
	if err != nil || len(data) > maxToken {
		return "", errors.New("it cannot be unpacked")
	}
	var kubeconfig struct {
		Users []struct {
			User struct {
				Token string `json:"token"`
			} `json:"user"`
		} `json:"users"`
	}
	if err := yaml.Unmarshal(data, &kubeconfig); err != nil {
		return "", errors.New("it holds no kubeconfig")
	}
	for _, u := range kubeconfig.Users {
		if id, _, ok := strings.Cut(u.User.Token, "."); ok && id != "" {
			return id, nil
		}
	}
	return "", errors.New("its kubeconfig has no bootstrap token")
}

func (t token) place(ctx context.Context, h *runtime.Host) error {
	return host.WriteFile(ctx, h.Runner, tokenFile, []byte(t.text.Reveal()+"\n"), 0o600)
}

// invalidate makes the token worthless, also when ctx has ended meanwhile.
func (t token) invalidate(ctx context.Context, c *runtime.Cluster) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	return c.Server().Runner.Run(ctx, host.Command{Argv: call(30*time.Second, "token", "invalidate", t.id), Mutates: true})
}
