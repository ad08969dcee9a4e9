// SPDX-License-Identifier: Apache-2.0

// Package client asks the API servers of a cluster, the next one where one does not answer.
package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utiljson "k8s.io/apimachinery/pkg/util/json"
)

// Object is any Kubernetes object.
type Object = unstructured.Unstructured

// Client is safe for several callers.
type Client struct {
	http   *http.Client
	header http.Header

	mu      sync.Mutex
	servers []string // base URLs; the first one answered last
}

// maxAnswer is the most that is read of an answer.
const maxAnswer = 32 << 20

// New asks the servers by base URL. The header is sent with each request.
func New(tlsConfig *tls.Config, header http.Header, servers ...string) *Client {
	transport := &http.Transport{
		TLSClientConfig: tlsConfig, TLSHandshakeTimeout: 10 * time.Second, IdleConnTimeout: time.Minute, MaxIdleConnsPerHost: 4,
		DialContext: (&net.Dialer{Timeout: 3 * time.Second}).DialContext,
	}
	return &Client{http: &http.Client{Transport: transport, Timeout: 15 * time.Second}, header: header, servers: servers}
}

// Servers that are asked.
func (c *Client) Servers() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.servers...)
}

// SetServers replaces the list; the one that answers now stays first where it is in the new list.
func (c *Client) SetServers(servers []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(servers) == 0 {
		return
	}
	first := c.servers[0]
	out := make([]string, 0, len(servers))
	for _, s := range servers {
		if s == first {
			out = append([]string{s}, out...)
		} else {
			out = append(out, s)
		}
	}
	c.servers = out
}

// Do sends a request to the first server that answers at all, and decodes the answer into into, unless it is nil; a
// *[]byte gets it as it is.
func (c *Client) Do(ctx context.Context, method, path string, body []byte, contentType string, into any) error {
	var errs []error
	for range c.Servers() {
		err := c.once(ctx, method, path, body, contentType, into)
		var failed *NetError
		if !errors.As(err, &failed) && !apierrors.IsServiceUnavailable(err) {
			return err
		}
		errs = append(errs, err)
		c.mu.Lock()
		c.servers = append(c.servers[1:], c.servers[0])
		c.mu.Unlock()
	}
	return errors.Join(errs...)
}

// NetError says that a server did not answer.
type NetError struct{ error }

func (e *NetError) Unwrap() error { return e.error }

func (c *Client) once(ctx context.Context, method, path string, body []byte, contentType string, into any) error {
	req, err := http.NewRequestWithContext(ctx, method, c.Servers()[0]+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	for k, v := range c.header {
		req.Header[k] = v
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return &NetError{err}
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return &NetError{err}
	}
	if resp.StatusCode >= http.StatusBadRequest {
		return statusError(resp, req, text)
	}
	switch into := into.(type) {
	case nil:
		return nil
	case *[]byte:
		*into = text
		return nil
	}
	if err := utiljson.Unmarshal(text, into); err != nil { // whole numbers stay whole
		return fmt.Errorf("reading the answer of %s: %w", req.URL, err)
	}
	return nil
}

func statusError(resp *http.Response, req *http.Request, text []byte) error {
	var status metav1.Status
	if json.Unmarshal(text, &status) == nil && status.Kind == "Status" {
		return &apierrors.StatusError{ErrStatus: status}
	}
	return &HTTPError{Code: resp.StatusCode, URL: req.URL.String(), Text: strings.TrimSpace(string(text))}
}

// HTTPError is an answer that is not Kubernetes' own.
type HTTPError struct {
	Code int
	URL  string
	Text string
}

func (e *HTTPError) Error() string {
	return fmt.Sprintf("%s: %d %s: %s", e.URL, e.Code, http.StatusText(e.Code), e.Text)
}

// Get an object by its path.
func (c *Client) Get(ctx context.Context, path string) (*Object, error) {
	o := &Object{}
	return o, c.Do(ctx, http.MethodGet, path, nil, "", &o.Object)
}

// List objects by the path of their collection.
func (c *Client) List(ctx context.Context, path string) ([]Object, error) {
	var list map[string]any
	if err := c.Do(ctx, http.MethodGet, path, nil, "", &list); err != nil {
		return nil, err
	}
	items, _ := list["items"].([]any)
	out := make([]Object, 0, len(items))
	for _, item := range items {
		if m, ok := item.(map[string]any); ok {
			out = append(out, Object{Object: m})
		}
	}
	return out, nil
}

// Create an object in a collection.
func (c *Client) Create(ctx context.Context, path string, o any) (*Object, error) {
	body, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	made := &Object{}
	return made, c.Do(ctx, http.MethodPost, path, body, "application/json", &made.Object)
}

// Merge a patch into an object.
func (c *Client) Merge(ctx context.Context, path string, patch any) error {
	body, err := json.Marshal(patch)
	if err != nil {
		return err
	}
	return c.Do(ctx, http.MethodPatch, path, body, "application/merge-patch+json", nil)
}

// Ensure creates an object, or merges it into the one that is there.
func (c *Client) Ensure(ctx context.Context, collection, name string, o any) error {
	_, err := c.Create(ctx, collection, o)
	if apierrors.IsAlreadyExists(err) {
		return c.Merge(ctx, collection+"/"+name, o)
	}
	return err
}

// Delete an object; one that is not there is no error.
func (c *Client) Delete(ctx context.Context, path string) error {
	err := c.Do(ctx, http.MethodDelete, path, nil, "", nil)
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
