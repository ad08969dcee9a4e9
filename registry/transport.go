// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"net/http"
)

// guard stands below everything that sends a request: token servers, redirects
// and upload locations pass it too. It refuses plain HTTP to hosts that are
// not allowed it, whoever asks.
type guard struct {
	next      http.RoundTripper
	allowed   func(host string) bool
	userAgent string
}

func (g *guard) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" && !g.allowed(r.URL.Host) {
		return nil, &InsecureError{Host: r.URL.Host}
	}
	if r.Header.Get("User-Agent") == "" {
		r = r.Clone(r.Context())
		r.Header.Set("User-Agent", g.userAgent)
	}
	return g.next.RoundTrip(r)
}
