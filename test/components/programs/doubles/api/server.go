// SPDX-License-Identifier: Apache-2.0

// Package api serves as much of the Kubernetes API as installers use: objects of any kind with labels, patches, watches
// and tables, kept in etcd. Nobody's rights are checked beyond who they are.
package api

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/version"
)

// User is who asks.
type User struct {
	Name   string
	Groups []string
}

// Config says how the server behaves.
type Config struct {
	Version string // as /version reports it
	// Who tells who asks; ok is false for nobody.
	Who func(*http.Request) (User, bool)
	// Definitions are the kinds that the distribution brings.
	Definitions []Definition
	// OnDelete is called before a Node is deleted.
	OnDelete func(context.Context, *object) error
	// Sign answers a certificate signing request of a user with a certificate.
	Sign func(request []byte, by User) ([]byte, error)
}

// Server is an http.Handler.
type Server struct {
	store  *clientv3.Client
	config Config
}

// New serves what is in the store.
func New(store *clientv3.Client, c Config) *Server { return &Server{store: store, config: c} }

// requestLimit is how long one request may take, watches excepted: without a quorum etcd does not answer at all.
const requestLimit = 8 * time.Second

// maxBody is the most that a request may hold, as etcd has it.
const maxBody = 3 << 20

type request struct {
	*http.Request
	user      User
	resource  resource
	namespace string
	name      string
	sub       string
}

func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	user, known := s.config.Who(r)
	if !known {
		answerError(w, apierrors.NewUnauthorized("Unauthorized"))
		return
	}
	ctx := r.Context()
	if r.URL.Query().Get("watch") == "" {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, requestLimit)
		defer cancel()
		r = r.WithContext(ctx)
	}
	switch path := strings.TrimSuffix(r.URL.Path, "/"); {
	case path == "/version":
		answer(w, http.StatusOK, s.version())
	case path == "/readyz" || path == "/readyz/etcd" || path == "/livez" || path == "/healthz":
		s.health(w, r, path)
	case path == "/api":
		answer(w, http.StatusOK, metav1.APIVersions{TypeMeta: metav1.TypeMeta{Kind: "APIVersions"}, Versions: []string{"v1"}})
	case path == "/apis":
		answer(w, http.StatusOK, groups(s.resources(ctx)))
	case path == "/openapi/v3":
		s.openAPIIndex(w, r)
	case strings.HasPrefix(path, "/openapi/v3/"):
		answer(w, http.StatusOK, openAPI(s.resources(ctx), groupVersion(strings.TrimPrefix(path, "/openapi/v3"))))
	case strings.HasPrefix(path, "/api/") || strings.HasPrefix(path, "/apis/"):
		s.object(w, r, user)
	default:
		answerError(w, apierrors.NewGenericServerResponse(http.StatusNotFound, r.Method, schema.GroupResource{}, "", "the server could not find the requested resource", 0, true))
	}
}

func groupVersion(path string) schema.GroupVersion {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	switch {
	case parts[0] == "api" && len(parts) > 1:
		return schema.GroupVersion{Version: parts[1]}
	case parts[0] == "apis" && len(parts) > 2:
		return schema.GroupVersion{Group: parts[1], Version: parts[2]}
	}
	return schema.GroupVersion{}
}

func (s *Server) version() version.Info {
	v := strings.Split(strings.TrimPrefix(s.config.Version, "v"), ".")
	return version.Info{Major: v[0], Minor: v[1], GitVersion: s.config.Version, GitCommit: "double", GitTreeState: "clean",
		BuildDate: "1970-01-01T00:00:00Z", GoVersion: "go1.26", Compiler: "gc", Platform: "linux/amd64"}
}

// health reports ok as long as etcd has a quorum.
func (s *Server) health(w http.ResponseWriter, r *http.Request, path string) {
	text, code := "ok", http.StatusOK
	etcd := "[+]etcd ok"
	if path != "/livez" {
		if _, err := s.store.Get(r.Context(), "/registry/health"); err != nil {
			text, code, etcd = "[-]etcd failed: reason withheld\n"+path[1:]+" check failed", http.StatusInternalServerError, "[-]etcd failed: reason withheld"
		}
	}
	if _, verbose := r.URL.Query()["verbose"]; verbose && code == http.StatusOK {
		text = "[+]ping ok\n" + etcd + "\n" + path[1:] + " check passed\n"
	}
	w.Header().Set("Content-Type", "text/plain")
	w.WriteHeader(code)
	_, _ = io.WriteString(w, text)
}

func (s *Server) openAPIIndex(w http.ResponseWriter, r *http.Request) {
	paths := map[string]any{}
	for _, one := range s.resources(r.Context()) {
		path := root(one.GroupVersion())
		paths[path[1:]] = map[string]string{"serverRelativeURL": "/openapi/v3" + path}
	}
	answer(w, http.StatusOK, map[string]any{"paths": paths})
}

// object handles everything below a group and version.
func (s *Server) object(w http.ResponseWriter, r *http.Request, user User) {
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	gv := groupVersion(r.URL.Path)
	rest := parts[2:]
	if parts[0] == "apis" {
		rest = parts[min(3, len(parts)):]
	}
	all := s.resources(r.Context())
	if len(rest) == 0 {
		s.discover(w, all, parts, gv)
		return
	}
	q := request{Request: r, user: user}
	if rest[0] == "namespaces" && len(rest) > 2 && rest[2] != "status" && rest[2] != "finalize" {
		q.namespace, rest = rest[1], rest[2:]
	}
	found := false
	for _, one := range all {
		if one.GroupVersion() == gv && one.Resource == rest[0] {
			q.resource, found = one, true
		}
	}
	if !found || len(rest) > 3 {
		answerError(w, apierrors.NewGenericServerResponse(http.StatusNotFound, r.Method, schema.GroupResource{}, "", "the server could not find the requested resource", 0, true))
		return
	}
	if len(rest) > 1 {
		q.name = rest[1]
	}
	if len(rest) > 2 {
		q.sub = rest[2]
	}
	if err := s.serve(w, q); err != nil {
		answerError(w, err)
	}
}

func (s *Server) discover(w http.ResponseWriter, all []resource, parts []string, gv schema.GroupVersion) {
	if list, ok := resourceList(all, gv); ok {
		answer(w, http.StatusOK, list)
		return
	}
	for _, g := range groups(all).Groups {
		if len(parts) == 2 && g.Name == parts[1] {
			g.TypeMeta = metav1.TypeMeta{Kind: "APIGroup", APIVersion: "v1"}
			answer(w, http.StatusOK, g)
			return
		}
	}
	answerError(w, apierrors.NewNotFound(schema.GroupResource{}, gv.String()))
}

func answer(w http.ResponseWriter, code int, v any) {
	text, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(text)
}

func answerError(w http.ResponseWriter, err error) {
	var known apierrors.APIStatus
	if !errors.As(err, &known) {
		known = apierrors.NewInternalError(err)
	}
	status := known.Status()
	status.Kind, status.APIVersion = "Status", "v1"
	answer(w, int(status.Code), status)
}

func readBody(r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	if len(body) > maxBody {
		return nil, apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("limit is %d", maxBody))
	}
	return body, nil
}

func encodeAll(plain map[string]string) map[string]string {
	out := make(map[string]string, len(plain))
	for k, v := range plain {
		out[k] = base64.StdEncoding.EncodeToString([]byte(v))
	}
	return out
}
