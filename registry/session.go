// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/opencontainers/go-digest"
)

// hostState is what a registry's first answer told: its scheme, and how it
// wants to be authenticated to.
type hostState struct {
	name      string
	registry  name.Registry
	plain     bool // plain HTTP is allowed
	once      sync.Mutex
	challenge *transport.Challenge
}

func (h *hostState) scheme() string {
	if h.challenge.Insecure {
		return "http"
	}
	return "https"
}

// url makes a URL of an escaped path.
func (h *hostState) url(p string) string {
	return h.scheme() + "://" + h.registry.RegistryStr() + p
}

// explain names the flag where HTTPS was answered in plain HTTP.
func (h *hostState) explain(err error) error {
	if h.plain {
		return err
	}
	// For addresses that it takes for local, the library also tried HTTP, and
	// was refused; that says nothing unless HTTPS was answered in HTTP.
	var insecure *InsecureError
	refused := errors.As(err, &insecure)
	switch {
	case refused && insecure.Host != h.registry.RegistryStr():
		return insecure
	case errors.Is(err, http.ErrSchemeMismatch):
		return &InsecureError{Host: h.name}
	}
	return err
}

// host asks a registry how it wants to be talked to, once.
func (c *Client) host(ctx context.Context, host string) (*hostState, error) {
	c.mu.Lock()
	h, ok := c.hosts[host]
	if !ok {
		h = &hostState{name: host}
		c.hosts[host] = h
	}
	c.mu.Unlock()

	h.once.Lock()
	defer h.once.Unlock()
	if h.challenge != nil {
		return h, nil
	}
	var opts []name.Option
	if h.plain = c.plainAllowed(host); h.plain {
		opts = append(opts, name.Insecure)
	}
	reg, err := name.NewRegistry(host, opts...)
	if err != nil {
		return nil, fmt.Errorf("reading the registry host %q: %w", host, err)
	}
	h.registry = reg
	err = c.retry(ctx, "contacting "+host, func(ctx context.Context) error {
		ctx, dog := watch(ctx, c.o.StallTimeout)
		defer dog.end()
		ch, err := transport.Ping(ctx, reg, c.base)
		if err != nil {
			return withStatus(h.explain(refused(dog.cause(ctx, err))), host)
		}
		h.challenge = ch
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("contacting %s: %w", host, err)
	}
	return h, nil
}

// forget drops what is known of a host, after a login or logout.
func (c *Client) forget(host string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, s := range c.sessions {
		if s.host.name == host || canonicalDomain(s.host.name) == canonicalDomain(host) {
			delete(c.sessions, key)
		}
	}
}

// source is where an image is asked for: its name, and the host and repository
// that stand behind it.
type source struct {
	named reference.Named // with tag or digest
	host  string
	path  string
	via   string // the mirror's URL, "" where the registry itself is asked
}

// parse reads a reference as a user or a manifest writes it.
func (c *Client) parse(ref string) (source, error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return source{}, fmt.Errorf("reading the image name %q: %w", ref, err)
	}
	named = reference.TagNameOnly(named)
	s := source{named: named, host: reference.Domain(named), path: reference.Path(named)}
	if m, ok := c.mirrors[canonicalDomain(s.host)]; ok {
		s.host, s.path, s.via = m.host, path.Join(m.prefix, s.path), m.url
	}
	return s, nil
}

// direct is the registry of the name itself: a mirror is for reading.
func (s source) direct() source {
	s.host, s.path, s.via = reference.Domain(s.named), reference.Path(s.named), ""
	return s
}

// name is the image's full name.
func (s source) name() string { return s.named.String() }

// label is the name for messages, with the mirror where there is one.
func (s source) label() string { return label(s.name(), s.via) }

// fail names the image in an error; one that names it already is kept.
func (s source) fail(err error) error {
	if err == nil || namesImage(err) {
		return err
	}
	return &ImageError{Image: s.name(), Via: s.via, Err: err}
}

// identifier is the digest, where the name has one, else the tag.
func (s source) identifier() string {
	if d, ok := s.digest(); ok {
		return d.String()
	}
	if t, ok := s.named.(reference.Tagged); ok {
		return t.Tag()
	}
	return "latest"
}

func (s source) digest() (digest.Digest, bool) {
	if d, ok := s.named.(reference.Digested); ok {
		return d.Digest(), true
	}
	return "", false
}

// session is an authenticated connection to one repository.
type session struct {
	c      *Client
	src    source
	host   *hostState
	client *http.Client
	// offline takes what the store has and asks nobody; the rest is errOffline.
	offline bool
}

var errOffline = errors.New("it is not in the store")

// session opens, or finds again, the connection for a source. mount are other
// repositories of the same host to be read from.
func (c *Client) session(ctx context.Context, src source, action string, mount ...string) (*session, error) {
	key := strings.Join(append([]string{src.host, src.path, action}, mount...), "\x00")
	c.mu.Lock()
	s, ok := c.sessions[key]
	c.mu.Unlock()
	if ok {
		return &session{c: c, src: src, host: s.host, client: s.client}, nil
	}
	h, err := c.host(ctx, src.host)
	if err != nil {
		return nil, &openingError{err}
	}
	auth, err := c.credentials(src, h)
	if err != nil {
		return nil, err
	}
	repo := h.registry.Repo(src.path)
	scopes := []string{repo.Scope(action)}
	for _, m := range mount {
		scopes = append(scopes, h.registry.Repo(m).Scope(transport.PullScope))
	}
	rt, err := c.authorize(ctx, h, auth, slices.Compact(scopes))
	if err != nil {
		return nil, &openingError{err}
	}
	s = &session{c: c, src: src, host: h, client: &http.Client{Transport: rt}}
	c.mu.Lock()
	c.sessions[key] = s
	c.mu.Unlock()
	return s, nil
}

// url is the URL of something in the repository.
func (s *session) url(kind, id string) string {
	u := url.URL{Path: path.Join("/v2", s.src.path, kind, id)}
	out := s.host.url(u.EscapedPath())
	if id == "" {
		out += "/"
	}
	return out
}

// do sends a request once. The caller closes the body.
func (s *session) do(ctx context.Context, method, url string, header http.Header) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return nil, &permanentError{err}
	}
	maps.Copy(req.Header, header)
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, s.host.explain(withoutQuery(err))
	}
	return resp, nil
}

// withoutQuery keeps signed URLs, to which registries redirect, out of messages.
func withoutQuery(err error) error {
	if ue, ok := errors.AsType[*url.Error](err); ok {
		ue.URL, _, _ = strings.Cut(ue.URL, "?")
	}
	return err
}
