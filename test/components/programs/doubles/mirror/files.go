// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
	"sigs.k8s.io/yaml"
)

// Nowhere is the way of a node for which nothing is configured: images' own registries.
func Nowhere(string) (Way, error) { return Way{Upstream: true}, nil }

// registries is k3s' registries.yaml (docs.k3s.io, "Private Registry Configuration").
type registries struct {
	Mirrors map[string]struct {
		Endpoint []string          `json:"endpoint"`
		Rewrite  map[string]string `json:"rewrite"`
	} `json:"mirrors"`
	Configs map[string]struct {
		Auth *struct {
			Username      string `json:"username"`
			Password      string `json:"password"`
			Auth          string `json:"auth"`
			IdentityToken string `json:"identity_token"`
		} `json:"auth"`
		TLS *struct {
			CA       string `json:"ca_file"`
			Cert     string `json:"cert_file"`
			Key      string `json:"key_file"`
			Insecure bool   `json:"insecure_skip_verify"`
		} `json:"tls"`
	} `json:"configs"`
}

// Registries reads registries.yaml. A file that is not there configures nothing. noDefault is k3s'
// --disable-default-registry-endpoint, which counts for registries with a mirror.
func Registries(path string, noDefault bool) (Finder, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Nowhere, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	var r registries
	if err := yaml.UnmarshalStrict(text, &r); err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	return func(registry string) (Way, error) {
		m, ok := r.Mirrors[registry]
		if !ok {
			m, ok = r.Mirrors["*"]
		}
		if !ok {
			return Way{Upstream: true}, nil
		}
		way := Way{Upstream: !noDefault}
		for _, raw := range m.Endpoint {
			e := Endpoint{URL: raw, Header: http.Header{}, Rewrite: rewriter(m.Rewrite)}
			if !strings.Contains(raw, "://") {
				e.URL = "https://" + raw
			}
			u, err := url.Parse(e.URL)
			if err != nil {
				return way, fmt.Errorf("reading %s: %w", path, err)
			}
			e.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
			if c, ok := r.Configs[u.Host]; ok {
				if a := c.Auth; a != nil {
					basic := a.Auth
					if basic == "" && a.Username != "" {
						basic = base64.StdEncoding.EncodeToString([]byte(a.Username + ":" + a.Password))
					}
					e.Header.Set("Authorization", "Basic "+basic)
				}
				if t := c.TLS; t != nil {
					if err := fillTLS(e.TLS, "", []string{t.CA}, t.Cert, t.Key, t.Insecure); err != nil {
						return way, err
					}
				}
			}
			way.Endpoints = append(way.Endpoints, e)
		}
		return way, nil
	}, nil
}

func rewriter(rules map[string]string) func(string) string {
	if len(rules) == 0 {
		return nil
	}
	return func(repository string) string {
		for pattern, to := range rules {
			if re, err := regexp.Compile(pattern); err == nil && re.MatchString(repository) {
				return re.ReplaceAllString(repository, to)
			}
		}
		return repository
	}
}

func fillTLS(c *tls.Config, dir string, cas []string, cert, key string, insecure bool) error {
	at := func(p string) string {
		if filepath.IsAbs(p) {
			return p
		}
		return filepath.Join(dir, p)
	}
	c.InsecureSkipVerify = insecure
	for _, ca := range cas {
		if ca == "" {
			continue
		}
		text, err := os.ReadFile(at(ca))
		if err != nil {
			return fmt.Errorf("reading the registry's authority: %w", err)
		}
		if c.RootCAs == nil {
			if c.RootCAs, err = x509.SystemCertPool(); err != nil {
				c.RootCAs = x509.NewCertPool()
			}
		}
		if !c.RootCAs.AppendCertsFromPEM(text) {
			return fmt.Errorf("reading the registry's authority: %s holds no certificate", ca)
		}
	}
	if cert != "" {
		pair, err := tls.LoadX509KeyPair(at(cert), at(key))
		if err != nil {
			return fmt.Errorf("reading the client's certificate: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return nil
}

// hostsTOML is containerd's hosts.toml, for one host.
type hostsTOML struct {
	Capabilities []string       `toml:"capabilities"`
	CA           any            `toml:"ca"`
	Client       any            `toml:"client"`
	SkipVerify   bool           `toml:"skip_verify"`
	OverridePath bool           `toml:"override_path"`
	DialTimeout  string         `toml:"dial_timeout"`
	Header       map[string]any `toml:"header"`
}

type hostsFile struct {
	hostsTOML
	Server string               `toml:"server"`
	Host   map[string]hostsTOML `toml:"host"`
}

// HostsFolders reads containerd's configuration of registries (docs/hosts.md, and what the code does beyond it) below
// the folders. A file that does not parse is as good as none: the images' own registries are asked.
func HostsFolders(folders []string) Finder {
	return func(registry string) (Way, error) {
		for _, folder := range folders {
			host, port, ok := strings.Cut(registry, ":")
			names := []string{registry, "_default"}
			if ok {
				names = []string{host + "_" + port + "_", registry, "_default"}
			}
			for _, name := range names {
				dir := filepath.Join(folder, name)
				if info, err := os.Stat(dir); err == nil && info.IsDir() { // also without hosts.toml in it
					return readHosts(dir, registry)
				}
			}
		}
		return Way{Upstream: true}, nil
	}
}

func readHosts(dir, registry string) (Way, error) {
	text, err := os.ReadFile(filepath.Join(dir, "hosts.toml"))
	var f hostsFile
	if err != nil || toml.Unmarshal(text, &f) != nil {
		return Way{Upstream: true}, nil
	}
	var way Way
	for _, raw := range hostOrder(text) {
		e, ok, err := f.Host[raw].endpoint(dir, raw)
		if err != nil {
			return way, err
		}
		if ok {
			way.Endpoints = append(way.Endpoints, e)
		}
	}
	if f.Server == "" {
		way.Upstream = true
		return way, nil
	}
	e, ok, err := f.endpoint(dir, f.Server)
	if err != nil {
		return way, err
	}
	if u, parse := url.Parse(e.URL); parse == nil && u.Host != registry || registry != "docker.io" {
		if ok {
			way.Endpoints = append(way.Endpoints, e)
		}
		return way, nil
	}
	way.Upstream = true
	return way, nil
}

func (h hostsTOML) endpoint(dir, raw string) (e Endpoint, pulls bool, err error) {
	if !strings.Contains(raw, "://") {
		raw = "https://" + raw
	}
	e = Endpoint{URL: raw, TLS: &tls.Config{MinVersion: tls.VersionTLS12}, Header: http.Header{}}
	if u, err := url.Parse(raw); err == nil && u.Path != "" && !h.OverridePath {
		e.URL = strings.TrimSuffix(raw, "/") + "/v2"
		e.URL = strings.Replace(e.URL, "/v2/v2", "/v2", 1)
	}
	for k, v := range h.Header {
		e.Header[http.CanonicalHeaderKey(k)] = texts(v)
	}
	cert, key := "", ""
	if pairs, ok := h.Client.([]any); ok && len(pairs) > 0 {
		if p := texts(pairs[0]); len(p) == 2 {
			cert, key = p[0], p[1]
		}
	}
	pulls = len(h.Capabilities) == 0
	for _, c := range h.Capabilities {
		pulls = pulls || c == "pull"
	}
	return e, pulls, fillTLS(e.TLS, dir, texts(h.CA), cert, key, h.SkipVerify)
}

// texts is a string, or a list of them.
func texts(v any) []string {
	switch v := v.(type) {
	case string:
		return []string{v}
	case []any:
		var out []string
		for _, one := range v {
			if s, ok := one.(string); ok {
				out = append(out, s)
			}
		}
		return out
	}
	return nil
}

// hostOrder is the order of the [host."…"] tables in the file, which is the order of the tries.
func hostOrder(text []byte) []string {
	var out []string
	p := unstable.Parser{}
	p.Reset(text)
	for p.NextExpression() {
		e := p.Expression()
		if e.Kind != unstable.Table {
			continue
		}
		var key []string
		for it := e.Key(); it.Next(); {
			key = append(key, string(it.Node().Data))
		}
		if len(key) == 2 && key[0] == "host" {
			out = append(out, key[1])
		}
	}
	return out
}
