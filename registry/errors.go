// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/opencontainers/go-digest"

	"github.com/sealerio/sealer/clusterimage"
)

// InsecureError says that a host would have to be asked in plain HTTP, which
// nobody allowed.
type InsecureError struct {
	Host string
}

func (e *InsecureError) Error() string {
	return fmt.Sprintf("%s would have to be asked in plain HTTP, which is refused without --insecure-registry %s", e.Host, e.Host)
}

// Hint says when the flag is right.
func (e *InsecureError) Hint() string {
	return "pass --insecure-registry " + e.Host + " only if the whole network up to that host can be trusted; better, give the registry a certificate"
}

// LoginError says that a registry did not take a login, or could not be asked.
type LoginError struct {
	Host string
	Err  error
}

func (e *LoginError) Error() string { return fmt.Sprintf("logging in to %s: %v", e.Host, e.Err) }

func (e *LoginError) Unwrap() error { return e.Err }

// Hint tells the user what to do.
func (e *LoginError) Hint() string {
	var se *StatusError
	if errors.As(e.Err, &se) && (se.Status == http.StatusUnauthorized || se.Status == http.StatusForbidden) {
		return "check the user and the password; some registries want an access token in its place"
	}
	var h interface{ Hint() string }
	if errors.As(e.Err, &h) {
		return h.Hint()
	}
	return "check the name of the registry, and that it can be reached"
}

// DigestError says that a registry sent other bytes than were asked for.
// Nothing of them was stored.
type DigestError struct {
	// Image is the name under which the content was asked for, with the mirror where there is one.
	Image     string
	Want, Got digest.Digest
	// Size is set where already the number of bytes was wrong.
	Size, WantSize int64
}

func (e *DigestError) Error() string {
	if e.Size != e.WantSize {
		return fmt.Sprintf("%s: %s came with %d bytes, not %d", e.Image, e.Want, e.Size, e.WantSize)
	}
	return fmt.Sprintf("%s: %s came with other content, of digest %s", e.Image, e.Want, e.Got)
}

// Hint tells the user what to do.
func (e *DigestError) Hint() string {
	return "the registry, or a proxy or mirror on the way, holds or sends damaged content; nothing of it was kept"
}

// SchemaOneError says that an image is in Docker's old format, which is no longer read.
type SchemaOneError struct {
	Image string
}

func (e *SchemaOneError) Error() string {
	return fmt.Sprintf("%s is in Docker's image format of 2014 (schema 1), which sealer and containerd do not read", e.Image)
}

// Hint tells the user what to do.
func (e *SchemaOneError) Hint() string {
	return "have it pushed again with a current tool, e.g. docker pull and docker push, or skopeo copy --format v2s2"
}

// ImageError is the failure of one image; it names the image, the mirror that
// was asked where there is one, and the files that ask for the image.
type ImageError struct {
	Image string
	Via   string
	// Origins are those of the ImageRequest: FILE:LINE, the first one first.
	Origins []string
	Err     error
}

func (e *ImageError) Error() string {
	text := e.Err.Error()
	if !namesImage(e.Err) {
		text = label(e.Image, e.Via) + ": " + text
	}
	switch more := len(e.Origins) - 1; {
	case more > 0:
		return fmt.Sprintf("%s and %d more: %s", e.Origins[0], more, text)
	case more == 0:
		return e.Origins[0] + ": " + text
	}
	return text
}

func (e *ImageError) Unwrap() error { return e.Err }

// Hint tells the user what to do, where that is known. The platforms of what a file asks for can be chosen there.
func (e *ImageError) Hint() string {
	if missing, ok := errors.AsType[*clusterimage.PlatformError](e.Err); ok && len(e.Origins) > 0 {
		have := "OS/ARCH"
		if len(missing.Have) > 0 {
			have = missing.Have[0]
		}
		return fmt.Sprintf("in a list of images, platform=%s behind the name packs it for that platform alone; or build for fewer platforms (--platform), or leave the image out (--ignored-image-list)", have)
	}
	var h interface{ Hint() string }
	if errors.As(e.Err, &h) {
		return h.Hint()
	}
	var connection *net.OpError
	var lookup *net.DNSError
	if errors.As(e.Err, &connection) || errors.As(e.Err, &lookup) {
		return "check the name of the registry, and that it can be reached"
	}
	return ""
}

// namesImage tells whether an error says itself which image it is about.
func namesImage(err error) bool {
	var (
		named    *ImageError
		wrong    *DigestError
		old      *SchemaOneError
		platform *clusterimage.PlatformError
	)
	return errors.As(err, &named) || errors.As(err, &wrong) || errors.As(err, &old) || errors.As(err, &platform)
}

// label is an image's name for messages, with the mirror where there is one.
func label(image, via string) string {
	if via != "" {
		return fmt.Sprintf("%s (asked of mirror %s)", image, via)
	}
	return image
}

// IncompleteError says that an image cannot be pushed because the store has
// only part of it.
type IncompleteError struct {
	Image   string
	Missing digest.Digest
}

func (e *IncompleteError) Error() string {
	return fmt.Sprintf("%s is not complete in the store: %s is missing", e.Image, e.Missing)
}

// Hint tells the user what to do.
func (e *IncompleteError) Hint() string { return "pull it again for all its platforms" }

// StatusError is a refusal by a registry.
type StatusError struct {
	Status int
	// Host was asked.
	Host string
	Err  error
	// wait is the Retry-After of the response.
	wait time.Duration
}

func (e *StatusError) Error() string { return e.Err.Error() }

func (e *StatusError) Unwrap() error { return e.Err }

// Hint tells the user what to do, where that is known.
func (e *StatusError) Hint() string {
	switch e.Status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return fmt.Sprintf("sealer login %s, with an account that may do this; some registries answer so for names that do not exist", e.Host)
	case http.StatusTooManyRequests:
		return "the registry limits how much one account or address may ask: log in, wait, or use a mirror"
	case http.StatusNotFound:
		return "check the name and the tag"
	}
	return "check the registry and its log"
}

// openingError is a failure before anything was asked about an image: whatever its status, it says nothing of the image.
type openingError struct{ err error }

func (e *openingError) Error() string { return e.err.Error() }

func (e *openingError) Unwrap() error { return e.err }

// stallError says that no byte came for so long.
type stallError struct {
	after time.Duration
}

func (e *stallError) Error() string { return fmt.Sprintf("no byte moved for %s", e.after) }

// checkStatus makes an error of a response that has none of the wanted codes.
// It reads a bounded part of the body, and leaves the body open.
func checkStatus(resp *http.Response, codes ...int) error {
	err := transport.CheckError(resp, codes...)
	if err == nil {
		return nil
	}
	se := &StatusError{Status: resp.StatusCode, Err: err, wait: retryAfter(resp.Header)}
	if resp.Request != nil {
		se.Host = resp.Request.URL.Host
	}
	return se
}

// withStatus gives the library's own errors, from its handshakes, our type.
func withStatus(err error, host string) error {
	var (
		ours *StatusError
		te   *transport.Error
	)
	if err == nil || errors.As(err, &ours) || !errors.As(err, &te) {
		return err
	}
	return &StatusError{Status: te.StatusCode, Host: host, Err: err}
}

// missingPlatform makes the error for an image that lacks a platform.
func missingPlatform(image, want string, have []string) error {
	return &clusterimage.PlatformError{Image: image, Want: want, Have: have}
}

// shortDigest is how a digest is shown beside a name.
func shortDigest(d digest.Digest) string {
	_, hex, _ := strings.Cut(d.String(), ":")
	return hex[:min(12, len(hex))]
}
