// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/spf13/cobra"

	"github.com/sealerio/sealer/registry"
	"github.com/sealerio/sealer/store"
)

// familiar is an image's full name, with domain and tag.
func familiar(name string) (string, error) {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return "", fmt.Errorf("reading the image name %q: %w", name, err)
	}
	return reference.TagNameOnly(named).String(), nil
}

// maxSearch bounds --limit.
const maxSearch = 100_000

func newSearch(a *app) *cobra.Command {
	var output string
	var limit int
	cmd := &cobra.Command{
		Use:   "search REGISTRY[/PREFIX]",
		Short: "List the tags of a repository, or the repositories of a registry",
		Long: `search lists the tags of the repository REGISTRY/PREFIX. Where there is no such repository, it lists the
repositories that begin so, if the registry gives such a list: docker-registry, Harbor and others do, Docker Hub does not.
Signatures are left out.`,
		Example: `  sealer search registry.example.com/team/shop
  sealer search registry.example.com/team
  sealer search registry.example.com -o json`,
		Args: exactArgs("REGISTRY"),
	}
	numberVar(cmd.Flags(), &limit, "limit", "", 1000, 1, maxSearch, "list at most so many")
	a.addRegistryFlags(cmd)
	addOutput(cmd, &output)
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		defer a.close(&err)
		client, err := a.openRegistry(cmd, nil)
		if err != nil {
			return err
		}
		defer client.Close()
		found, more, err := search(cmd, client, args[0], limit)
		if err != nil {
			return err
		}
		if more {
			_, _ = fmt.Fprintf(a.streams.Err, "there are more than %d: --limit\n", limit)
		}
		return a.print(cmd, output, found, func(t *table) {
			for _, name := range found {
				t.line(name)
			}
		})
	}
	return cmd
}

// search looks for tags, then for repositories.
func search(cmd *cobra.Command, c *registry.Client, what string, limit int) (found []string, more bool, err error) {
	ctx := cmd.Context()
	host, prefix, _ := strings.Cut(strings.TrimSuffix(what, "/"), "/")
	found = []string{}
	if prefix != "" && !strings.HasSuffix(what, "/") {
		named, err := reference.ParseNormalizedNamed(what)
		if err != nil {
			return nil, false, usagef(cmd, "%q is no repository: %w", what, err)
		}
		if !reference.IsNameOnly(named) {
			return nil, false, usagef(cmd, "%q has a tag: search lists tags", what)
		}
		tags, more, err := c.Tags(ctx, named.Name(), limit)
		for _, tag := range tags {
			if _, ok := store.Signed(named.Name() + ":" + tag); !ok {
				found = append(found, named.Name()+":"+tag)
			}
		}
		if err == nil && len(found) > 0 || err != nil && !errdefs.IsNotFound(err) {
			return found, more, err
		}
		if !strings.HasPrefix(named.Name(), host+"/") { // team/shop is of Docker Hub
			return nil, false, err
		}
	}
	repositories, more, err := c.Catalog(ctx, host, func(r string) bool { return strings.HasPrefix(r, prefix) }, limit)
	if refused, ok := errors.AsType[*registry.StatusError](err); ok && refused.Status != http.StatusTooManyRequests {
		return nil, false, &noCatalogError{host: host, err: err}
	}
	for _, r := range repositories {
		found = append(found, host+"/"+r)
	}
	return found, more, err
}

// noCatalogError is a registry that does not list its repositories.
type noCatalogError struct {
	host string
	err  error
}

func (e *noCatalogError) Error() string { return e.err.Error() }
func (e *noCatalogError) Unwrap() error { return e.err }
func (e *noCatalogError) Hint() string {
	return e.host + " gives no list of its repositories, at least not to you: name a whole repository, or log in"
}
