// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/configfile"
	"github.com/docker/cli/cli/config/types"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// keychain reads docker's config.json and its credential helpers.
type keychain struct {
	dir string // "" is docker's default
}

// load reads the config; forLogin makes it the one that Login writes to.
func (k keychain) load(forLogin bool) (*configfile.ConfigFile, error) {
	dir := k.dir
	if dir == "" {
		dir = config.Dir()
	}
	if k.dir == "" && !forLogin {
		if _, err := os.Stat(filepath.Join(dir, config.ConfigFileName)); os.IsNotExist(err) {
			if cf, err := loadPodman(); cf != nil || err != nil {
				return cf, err
			}
		}
	}
	cf, err := config.Load(dir)
	if err != nil {
		return nil, fmt.Errorf("reading registry credentials: %w", err)
	}
	return cf, nil
}

// loadPodman reads the file that podman, skopeo and buildah keep logins in;
// nil where there is none.
// See https://github.com/containers/image/blob/v5.36.0/docs/containers-auth.json.5.md
func loadPodman() (*configfile.ConfigFile, error) {
	paths := []string{os.Getenv("REGISTRY_AUTH_FILE")}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		paths = append(paths, filepath.Join(dir, "containers", "auth.json"))
	}
	if dir, err := os.UserConfigDir(); err == nil {
		paths = append(paths, filepath.Join(dir, "containers", "auth.json"))
	}
	for _, path := range paths {
		if path == "" {
			continue
		}
		f, err := os.Open(path)
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reading registry credentials: %w", err)
		}
		cf, err := config.LoadFromReader(f)
		if err := errors.Join(err, f.Close()); err != nil {
			return nil, fmt.Errorf("reading registry credentials %q: %w", path, err)
		}
		return cf, nil
	}
	return nil, nil
}

// credentialKey is the name that docker keeps a registry's login under.
func credentialKey(host string) string {
	if canonicalDomain(host) == "docker.io" {
		return authn.DefaultAuthKey
	}
	return host
}

// Resolve implements authn.Keychain.
func (k keychain) Resolve(target authn.Resource) (authn.Authenticator, error) {
	cf, err := k.load(false)
	if err != nil {
		return nil, err
	}
	ac, err := cf.GetAuthConfig(credentialKey(target.RegistryStr()))
	if err != nil {
		return nil, fmt.Errorf("reading the credentials for %s: %w", target.RegistryStr(), err)
	}
	ac.ServerAddress = ""
	if ac == (types.AuthConfig{}) {
		return authn.Anonymous, nil
	}
	return authn.FromConfig(authn.AuthConfig{
		Username:      ac.Username,
		Password:      ac.Password,
		Auth:          ac.Auth,
		IdentityToken: ac.IdentityToken,
		RegistryToken: ac.RegistryToken,
	}), nil
}

// credentials are those of Options.Logins for a repository, else docker's for its host.
func (c *Client) credentials(src source, h *hostState) (authn.Authenticator, error) {
	for _, l := range c.o.Logins {
		if src.via == "" && canonicalDomain(l.Host) == canonicalDomain(src.host) &&
			(len(l.Repositories) == 0 || slices.Contains(l.Repositories, src.path)) {
			return &authn.Basic{Username: l.Username, Password: l.Password.Reveal()}, nil
		}
	}
	return c.keys.Resolve(h.registry)
}

// Login checks the credentials with the registry and, where it takes them,
// keeps them as docker login does: with the credential helper of docker's
// config, or, where it names none, encoded but not encrypted in its config.json.
func (c *Client) Login(ctx context.Context, host, user, password string) error {
	host, err := loginHost(host)
	if err != nil {
		return err
	}
	if user == "" || password == "" {
		return fmt.Errorf("logging in to %s: the user or the password is empty", host)
	}
	if err := c.verifyLogin(ctx, host, &authn.Basic{Username: user, Password: password}); err != nil {
		return &LoginError{Host: host, Err: err}
	}
	cf, err := c.keys.load(true)
	if err != nil {
		return err
	}
	key := credentialKey(host)
	login := types.AuthConfig{Username: user, Password: password, ServerAddress: key}
	if cf.CredentialsStore == "" && cf.CredentialHelpers[key] == "" {
		// Not through docker's file store, which writes to standard error.
		cf.AuthConfigs[key] = login
		err = cf.Save()
	} else {
		err = cf.GetCredentialsStore(key).Store(login)
	}
	if err != nil {
		return fmt.Errorf("keeping the login for %s: %w", host, err)
	}
	c.forget(host)
	return nil
}

// Logout forgets the credentials for a host. It is no error if there are none.
func (c *Client) Logout(host string) error {
	host, err := loginHost(host)
	if err != nil {
		return err
	}
	cf, err := c.keys.load(true)
	if err != nil {
		return err
	}
	key := credentialKey(host)
	if err := cf.GetCredentialsStore(key).Erase(key); err != nil {
		return fmt.Errorf("forgetting the login for %s: %w", host, err)
	}
	c.forget(host)
	return nil
}

// loginHost takes what users type: a host, or the URL of a registry.
func loginHost(host string) (string, error) {
	host = strings.TrimPrefix(strings.TrimPrefix(host, "https://"), "http://")
	host, _, _ = strings.Cut(host, "/")
	if host == "" {
		host = "docker.io"
	}
	if _, err := name.NewRegistry(host); err != nil {
		return "", fmt.Errorf("reading the registry host %q: %w", host, err)
	}
	return host, nil
}

func (c *Client) verifyLogin(ctx context.Context, host string, auth authn.Authenticator) error {
	h, err := c.host(ctx, host)
	if err != nil {
		return err
	}
	rt, err := c.authorize(ctx, h, auth, nil)
	if err != nil {
		return err
	}
	return c.retry(ctx, "logging in to "+host, func(ctx context.Context) error {
		ctx, dog := watch(ctx, c.o.StallTimeout)
		defer dog.end()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, h.url("/v2/"), nil)
		if err != nil {
			return err
		}
		resp, err := (&http.Client{Transport: rt}).Do(req)
		if err != nil {
			return dog.cause(ctx, err)
		}
		defer drain(resp)
		return checkStatus(resp, http.StatusOK)
	})
}

// authorize makes the transport that answers a host's challenge with the
// credentials, for the scopes.
func (c *Client) authorize(ctx context.Context, h *hostState, auth authn.Authenticator, scopes []string) (http.RoundTripper, error) {
	var token *transport.Token
	if strings.EqualFold(h.challenge.Scheme, "bearer") {
		cfg, err := authn.Authorization(ctx, auth)
		if err != nil {
			return nil, fmt.Errorf("reading the credentials for %s: %w", h.name, err)
		}
		token = &transport.Token{Token: cfg.RegistryToken}
		if token.Token == "" {
			err := c.retry(ctx, "asking for a token for "+h.name, func(ctx context.Context) error {
				ctx, dog := watch(ctx, c.o.StallTimeout)
				defer dog.end()
				token, err = transport.Exchange(ctx, h.registry, auth, c.base, scopes, h.challenge)
				return withStatus(h.explain(dog.cause(ctx, err)), h.name)
			})
			if err != nil {
				return nil, fmt.Errorf("asking for a token for %s: %w", h.name, err)
			}
			if token.Token == "" {
				token.Token = token.AccessToken
			}
		}
	}
	return transport.FromToken(h.registry, auth, c.base, h.challenge, token)
}

// drain reads a little of what is left of a body, so that the connection can
// be used again, and closes it.
func drain(resp *http.Response) {
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10)
	_ = resp.Body.Close()
}
