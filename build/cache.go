// SPDX-License-Identifier: Apache-2.0

package build

import (
	"errors"
	"fmt"
	"strings"

	"github.com/moby/buildkit/client"
	"github.com/tonistiigi/go-csvvalue"
)

// Cache is a place outside of the builder that layers are read from or written to, in BuildKit's words:
// https://github.com/moby/buildkit#export-cache
type Cache struct {
	Type  string // registry, local, inline
	Attrs map[string]string
}

// ParseCache reads the value of --cache-from and --cache-to: type=registry,ref=NAME; type=local,src=DIR (or dest=DIR);
// type=inline. A value without type= is the name of an image.
func ParseCache(s string) (Cache, error) {
	if s != "" && !strings.Contains(s, "=") {
		return Cache{Type: "registry", Attrs: map[string]string{"ref": s}}, nil
	}
	attrs, err := parseFields(s)
	if err != nil {
		return Cache{}, fmt.Errorf("cache %q: %w", s, err)
	}
	c := Cache{Type: attrs["type"], Attrs: attrs}
	delete(attrs, "type")
	return c, nil
}

// parseFields reads KEY=VALUE,…; values with commas stand in quotes.
func parseFields(s string) (map[string]string, error) {
	if s == "" {
		return nil, nil
	}
	fields, err := csvvalue.Fields(s, nil)
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, f := range fields {
		key, value, ok := strings.Cut(f, "=")
		key = strings.ToLower(strings.TrimSpace(key))
		if !ok || key == "" {
			return nil, fmt.Errorf("%q is not KEY=VALUE", f)
		}
		if _, twice := out[key]; twice {
			return nil, fmt.Errorf("%s is given twice", key)
		}
		out[key] = value
	}
	return out, nil
}

func (c Cache) check(export bool) error {
	need := ""
	switch {
	case c.Type == "registry":
		need = "ref"
	case c.Type == "local" && export:
		need = "dest"
	case c.Type == "local":
		need = "src"
	case c.Type == "inline" && export:
	case c.Type == "inline":
		return errors.New("cache: type=inline is written only; it is read with type=registry,ref=NAME of the image")
	case c.Type == "":
		return errors.New("cache: type= is missing: registry, local and inline are known")
	default:
		return fmt.Errorf("cache: unknown type %q: registry, local and inline are known", c.Type)
	}
	if need != "" && c.Attrs[need] == "" {
		return fmt.Errorf("cache: type=%s needs %s=", c.Type, need)
	}
	return nil
}

func cacheEntries(list []Cache) []client.CacheOptionsEntry {
	out := make([]client.CacheOptionsEntry, len(list))
	for i, c := range list {
		out[i] = client.CacheOptionsEntry{Type: c.Type, Attrs: c.Attrs}
	}
	return out
}
