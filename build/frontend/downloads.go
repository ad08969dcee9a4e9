// SPDX-License-Identifier: Apache-2.0

package frontend

import (
	"errors"
	"fmt"
	"strings"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/urlutil"
	"github.com/opencontainers/go-digest"
)

// DownloadError says which URL of ADD or APP could not be had; the solver names it only now and then.
type DownloadError struct {
	URL string // without a password
	// Want is what --checksum says and Got what came, where those differ.
	Want, Got digest.Digest
	Err       error // the solver's
}

func (e *DownloadError) Error() string {
	if e.Got != "" {
		return fmt.Sprintf("%s came with the digest %s, and --checksum expects %s", e.URL, e.Got, e.Want)
	}
	return fmt.Sprintf("downloading %s: %s", e.URL, strings.TrimPrefix(e.Err.Error(), "failed to load cache key: "))
}

func (e *DownloadError) Unwrap() error { return e.Err }

// Hint tells the user what to do.
func (e *DownloadError) Hint() string {
	if e.Got != "" {
		return "compare both with what its publisher names, and correct --checksum only if that is the digest that came"
	}
	return "check the URL, and that it can be reached from where the build runs"
}

// download is an HTTP source of a definition.
type download struct {
	url      string
	checksum digest.Digest
}

// downloadsOf finds what a definition downloads, by the digests under which the solver speaks of it.
func downloadsOf(def *llb.Definition) map[string]download {
	out := map[string]download{}
	for _, data := range def.Def {
		var op pb.Op
		if op.UnmarshalVT(data) != nil {
			continue // what the solver cannot read it reports
		}
		source := op.GetSource()
		if source == nil || !strings.HasPrefix(source.Identifier, "http://") && !strings.HasPrefix(source.Identifier, "https://") {
			continue
		}
		out[digest.FromBytes(data).String()] = download{
			url: urlutil.RedactCredentials(source.Identifier), checksum: digest.Digest(source.Attrs[pb.AttrHTTPChecksum]),
		}
	}
	return out
}

// noteDownloads remembers what a definition downloads.
func (b *builder) noteDownloads(def *llb.Definition) {
	for id, one := range downloadsOf(def) {
		b.downloads.Store(id, one)
	}
}

// nameDownload says in an error of the solver which URL it is about, where it is about one.
func (b *builder) nameDownload(err error) error {
	failed, ok := errors.AsType[*errdefs.VertexError](err)
	if !ok {
		return err
	}
	known, ok := b.downloads.Load(failed.Digest)
	if !ok {
		return err
	}
	one := known.(download)
	return &DownloadError{URL: one.url, Want: one.checksum, Got: otherDigest(err.Error(), one.checksum), Err: err}
}

// otherDigest is the digest that came, in the solver's report of one that is not want; "" where it is none. The solver
// writes the two in either order.
func otherDigest(report string, want digest.Digest) digest.Digest {
	_, report, found := strings.Cut(report, "digest mismatch")
	if !found || want == "" {
		return ""
	}
	for _, word := range strings.FieldsFunc(report, func(r rune) bool { return strings.ContainsRune(" ,;()\n", r) }) {
		if d, err := digest.Parse(strings.TrimSuffix(word, ":")); err == nil && d != want {
			return d
		}
	}
	return ""
}
