// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"

	"github.com/distribution/reference"
)

// Limits on lists: of one page, in bytes, and of what is asked for in one.
const (
	maxPage  = 16 << 20
	pageSize = 1000
	// maxPages bounds a registry that never comes to an end.
	maxPages = 10_000
)

// scopeCatalog is what a token for the list of repositories is asked for with.
// See https://distribution.github.io/distribution/spec/auth/scope/
const scopeCatalog = "registry:catalog:*"

// Tags lists the tags of a repository, at most limit; more says that there are
// others. A repository that is not there is an errdefs.ErrNotFound.
func (c *Client) Tags(ctx context.Context, repository string, limit int) (tags []string, more bool, err error) {
	repo, err := c.Repository(ctx, repository)
	if err != nil {
		return nil, false, err
	}
	s := repo.s
	first := s.url("tags", "list") + "?n=" + strconv.Itoa(min(limit+1, pageSize))
	tags, more, err = c.pages(ctx, s, first, limit, func(data []byte) ([]string, error) {
		var page struct {
			Tags []string `json:"tags"`
		}
		err := json.Unmarshal(data, &page)
		return page.Tags, err
	})
	if err != nil {
		return nil, false, repo.fail(fmt.Errorf("listing tags: %w", err))
	}
	return tags, more, nil
}

// Catalog lists the repositories of a registry that match accepts, at most
// limit; more says that there are others. Many registries give no such list,
// Docker Hub among them: that is a *StatusError.
func (c *Client) Catalog(ctx context.Context, host string, match func(string) bool, limit int) (repositories []string, more bool, err error) {
	named, err := reference.ParseNormalizedNamed(host + "/x")
	if err != nil {
		return nil, false, fmt.Errorf("reading the registry host %q: %w", host, err)
	}
	src, err := c.parse(named.String())
	if err != nil {
		return nil, false, err
	}
	h, err := c.host(ctx, src.host)
	if err != nil {
		return nil, false, err
	}
	auth, err := c.keys.Resolve(h.registry)
	if err != nil {
		return nil, false, err
	}
	rt, err := c.authorize(ctx, h, auth, []string{scopeCatalog})
	if err != nil {
		return nil, false, err
	}
	s := &session{c: c, src: src, host: h, client: &http.Client{Transport: rt}}
	prefix := strings.TrimSuffix(src.path, "x") // a mirror's
	repositories, more, err = c.pages(ctx, s, h.url("/v2/_catalog?n="+strconv.Itoa(pageSize)), limit, func(data []byte) ([]string, error) {
		var page struct {
			Repositories []string `json:"repositories"`
		}
		if err := json.Unmarshal(data, &page); err != nil {
			return nil, err
		}
		var out []string
		for _, r := range page.Repositories {
			if rest, ok := strings.CutPrefix(r, prefix); ok && match(rest) {
				out = append(out, rest)
			}
		}
		return out, nil
	})
	if err != nil {
		return nil, false, fmt.Errorf("listing the repositories of %s: %w", host, err)
	}
	return repositories, more, nil
}

// pages follows a list from page to page.
func (c *Client) pages(ctx context.Context, s *session, next string, limit int, read func([]byte) ([]string, error)) (all []string, more bool, err error) {
	for range maxPages {
		var data []byte
		var link string
		err := c.retry(ctx, s.src.label(), func(ctx context.Context) error {
			var err error
			data, link, err = s.page(ctx, next)
			return err
		})
		if err != nil {
			return nil, false, err
		}
		list, err := read(data)
		if err != nil {
			return nil, false, err
		}
		all = append(all, list...)
		if len(all) > limit {
			return all[:limit], true, nil
		}
		if link == "" {
			return all, false, nil
		}
		next = link
	}
	return nil, false, errors.New("the list has no end")
}

// page gets one page, and the address of the next.
func (s *session) page(ctx context.Context, address string) (data []byte, next string, err error) {
	ctx, dog := watch(ctx, s.c.o.StallTimeout)
	defer dog.end()
	resp, err := s.do(ctx, http.MethodGet, address, http.Header{})
	if err != nil {
		return nil, "", dog.cause(ctx, err)
	}
	defer drain(resp)
	if err := checkStatus(resp, http.StatusOK); err != nil {
		return nil, "", err
	}
	if data, err = io.ReadAll(io.LimitReader(resp.Body, maxPage+1)); err != nil {
		return nil, "", dog.cause(ctx, err)
	}
	if len(data) > maxPage {
		return nil, "", &permanentError{fmt.Errorf("a page is larger than %d bytes", maxPage)}
	}
	next, err = nextPage(resp)
	return data, next, err
}

// nextPage reads the Link header, which stays at the same registry.
// See https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#listing-tags
func nextPage(resp *http.Response) (string, error) {
	header := resp.Header.Get("Link")
	target, params, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(header), "<"), ">")
	if header == "" || !ok || !strings.Contains(strings.ReplaceAll(params, "'", `"`), `rel="next"`) {
		return "", nil
	}
	u, err := url.Parse(target)
	if err != nil {
		return "", &permanentError{fmt.Errorf("the address of the next page is no URL: %w", err)}
	}
	// Only the query counts: behind a proxy, hosts and schemes are often wrong.
	next := *resp.Request.URL
	if path.Clean(u.Path) != path.Clean(next.Path) && !strings.HasSuffix(next.Path, path.Base(u.Path)) {
		return "", &permanentError{fmt.Errorf("the next page is at %q, another list", u.Path)}
	}
	next.RawQuery = u.RawQuery
	return next.String(), nil
}
