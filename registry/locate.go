// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"

	"github.com/sealerio/sealer/clusterimage"
)

// locator maps what clients ask for to the repositories of the tree: a mirror
// is asked for the path only, with the domain in ?ns=.
// See https://github.com/containerd/containerd/blob/v2.3.3/docs/hosts.md
type locator struct {
	next         http.Handler
	repositories string
}

func (l *locator) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q, ok := parseQuestion(r)
	if !ok || r.Method != http.MethodGet && r.Method != http.MethodHead {
		l.next.ServeHTTP(w, r)
		return
	}
	repo, found := l.find(q)
	if !found {
		q.notFound(w, r)
		return
	}
	r2 := r.Clone(r.Context())
	r2.URL.Path = path.Join("/v2", repo, q.kind, q.id)
	r2.URL.RawPath = ""
	query := r2.URL.Query()
	query.Del("ns")
	r2.URL.RawQuery = query.Encode()
	if a := r2.Header.Get("Accept"); q.kind == "manifests" && (a == "" || a == "*/*") {
		r2.Header["Accept"] = acceptManifests()["Accept"]
	}
	l.next.ServeHTTP(w, r2)
}

// question is a request for a part of a repository.
type question struct {
	ns, name string
	kind     string // manifests, blobs, tags
	id       string // tag or digest; list
}

func parseQuestion(r *http.Request) (question, bool) {
	rest, ok := strings.CutPrefix(r.URL.Path, "/v2/")
	if !ok {
		return question{}, false
	}
	name, id := path.Split(rest)
	name, kind := path.Split(strings.TrimSuffix(name, "/"))
	name = strings.TrimSuffix(name, "/")
	switch kind {
	case "manifests", "blobs", "tags":
	default:
		return question{}, false
	}
	if name == "" || id == "" {
		return question{}, false
	}
	return question{ns: r.URL.Query().Get("ns"), name: name, kind: kind, id: id}, true
}

// find returns the first repository that has what is asked for.
func (l *locator) find(q question) (string, bool) {
	what, ok := q.file()
	if !ok {
		return "", false
	}
	for _, repo := range q.candidates() {
		if _, err := os.Stat(filepath.Join(l.repositories, filepath.FromSlash(repo), what)); err == nil {
			return repo, true
		}
	}
	return "", false
}

// candidates are the repositories that a name may stand for, best first.
func (q question) candidates() []string {
	var names []string
	if q.ns != "" {
		names = append(names, canonicalDomain(q.ns)+"/"+q.name)
	}
	names = append(names, q.name, "docker.io/"+q.name)
	var out []string
	for _, n := range names {
		domain, rest, ok := strings.Cut(n, "/")
		repo := clusterimage.DomainFolder(domain)
		if ok {
			repo += "/" + rest
		}
		// What matches has neither ".." nor empty parts.
		if named, err := reference.WithName(repo); err == nil && named.Name() == repo {
			out = append(out, repo)
		}
	}
	return out
}

// file is what is there, below a repository, if it has the thing asked for.
func (q question) file() (string, bool) {
	if q.kind == "tags" {
		return filepath.Join("_manifests", "tags"), q.id == "list"
	}
	if d, err := digest.Parse(q.id); err == nil {
		dir := filepath.Join("_manifests", "revisions")
		if q.kind == "blobs" {
			dir = "_layers"
		}
		return filepath.Join(dir, d.Algorithm().String(), d.Encoded(), "link"), true
	}
	if q.kind == "blobs" || !tagPattern.MatchString(q.id) {
		return "", false
	}
	return filepath.Join("_manifests", "tags", q.id, "current", "link"), true
}

// image is the name of what is asked for, for messages.
func (q question) image() string {
	name := q.name
	if q.ns != "" {
		name = q.ns + "/" + name
	}
	switch {
	case q.kind == "tags":
		return name
	case strings.Contains(q.id, ":"):
		return name + "@" + q.id
	}
	return name + ":" + q.id
}

func (q question) notFound(w http.ResponseWriter, r *http.Request) {
	code := map[string]string{"manifests": "MANIFEST_UNKNOWN", "blobs": "BLOB_UNKNOWN", "tags": "NAME_UNKNOWN"}[q.kind]
	writeError(w, r, http.StatusNotFound, code, fmt.Sprintf("%s is not in this registry", q.image()))
}

// writeError answers in the form that registries' clients read.
// See https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#error-codes
func writeError(w http.ResponseWriter, r *http.Request, status int, code, message string) {
	type entry struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	body, err := json.Marshal(map[string][]entry{"errors": {{Code: code, Message: message}}})
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", fmt.Sprint(len(body)))
	w.Header().Set("Docker-Distribution-API-Version", "registry/2.0")
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // the client is gone if this fails
	}
}
