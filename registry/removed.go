// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"

	"github.com/sealerio/sealer/internal/atomicfile"
)

// How long it is kept that something was taken away, and of how many things at most: of those that were taken away last.
const (
	keepRemoved = 180 * 24 * time.Hour
	maxRemoved  = 10_000
)

// removedPath is where peers ask what was taken away.
const removedPath = "/sealer/removed"

func removedFile(root string, t peerTag) string {
	sum := sha256.Sum256([]byte(t.key() + " " + t.Digest.String()))
	return filepath.Join(root, "removed", hex.EncodeToString(sum[:]))
}

// markRemoved keeps that a tag or a manifest was taken away at its time.
func markRemoved(root string, t peerTag) error {
	if at, ok := removedAt(root, t); ok && !t.Time.After(at) {
		return nil
	}
	if err := os.MkdirAll(filepath.Join(root, "removed"), 0o755); err != nil {
		return err
	}
	data, err := json.Marshal(t)
	if err != nil {
		return err
	}
	return atomicfile.Write(removedFile(root, t), data, 0o600)
}

// removedAt is when this very tag, with its digest, or manifest was taken away.
func removedAt(root string, t peerTag) (time.Time, bool) {
	mark, err := readMark(removedFile(root, t))
	return mark.Time, err == nil
}

func readMark(file string) (mark peerTag, err error) {
	data, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(data, &mark)
	}
	return mark, err
}

// removed tells whether a tag or a manifest was taken away since it was pushed.
func removed(root string, t peerTag) bool {
	at, ok := removedAt(root, t)
	return ok && !t.Time.After(at)
}

// afterRemoval is the time of a push that is under way: one over what was taken away is later than that, whatever the clocks say.
func afterRemoval(root string, t peerTag) time.Time {
	byDigest := t
	byDigest.Tag = ""
	for _, x := range []peerTag{t, byDigest} {
		if at, ok := removedAt(root, x); ok && !t.Time.After(at) {
			t.Time = at.Add(time.Millisecond)
		}
	}
	return t.Time
}

// removals are what was taken away, the last first. Those that are kept no longer go.
func removals(root string) ([]peerTag, error) {
	marks := []peerTag{} // [] in JSON, not null
	entries, err := os.ReadDir(filepath.Join(root, "removed"))
	if errors.Is(err, fs.ErrNotExist) {
		return marks, nil
	}
	if err != nil {
		return nil, err
	}
	var over []string
	for _, e := range entries {
		file := filepath.Join(root, "removed", e.Name())
		if strings.HasPrefix(e.Name(), ".") { // one that is being written
			continue
		}
		mark, err := readMark(file)
		if err == nil && file == removedFile(root, mark) && time.Since(mark.Time) < keepRemoved {
			marks = append(marks, mark)
		} else if !errors.Is(err, fs.ErrNotExist) {
			over = append(over, file)
		}
	}
	slices.SortFunc(marks, func(a, b peerTag) int { return b.Time.Compare(a.Time) })
	for len(marks) > maxRemoved {
		over = append(over, removedFile(root, marks[len(marks)-1]))
		marks = marks[:len(marks)-1]
	}
	for _, file := range over {
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return marks, nil
}

// serveRemoved tells a peer what was taken away, but for what was pushed again since.
func (r *replicator) serveRemoved(w http.ResponseWriter, req *http.Request) {
	marks, err := removals(r.root)
	if err != nil {
		writeError(w, req, http.StatusInternalServerError, "UNKNOWN", err.Error())
		return
	}
	marks = slices.DeleteFunc(marks, func(m peerTag) bool { at, here := r.pushed(m); return here && at.After(m.Time) })
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(marks) // the client is gone if this fails
}

// pushed is when a tag, with its digest, or a manifest that is here was pushed.
func (r *replicator) pushed(t peerTag) (at time.Time, here bool) {
	if t.Tag != "" {
		d, at, err := readTag(r.tagFile(t.Repository, t.Tag))
		return at, err == nil && d == t.Digest
	}
	info, err := os.Stat(r.revisionFile(t.Repository, t.Digest))
	if err != nil {
		return time.Time{}, false
	}
	return info.ModTime().UTC(), true
}

// hear takes over what a peer knows to have been taken away.
func (r *replicator) hear(ctx context.Context, peer string) error {
	ctx, cancel := context.WithTimeout(ctx, peerPatience)
	defer cancel()
	var theirs []peerTag
	err := r.ask(ctx, http.MethodGet, peer+removedPath, nil, &theirs)
	if answer, ok := errors.AsType[*peerError](err); ok && answer.code == http.StatusNotFound {
		return nil // an older one, which says nothing of it
	}
	if err != nil {
		return err
	}
	for _, m := range theirs[:min(len(theirs), maxRemoved)] {
		if m.check() != nil || time.Since(m.Time) > keepRemoved {
			continue
		}
		if at, here := r.pushed(m); here && at.After(m.Time) {
			continue
		}
		if err := markRemoved(r.root, m); err != nil {
			return err
		}
	}
	return nil
}

// check makes sure that a peer's words are names, before they become those of files.
func (t peerTag) check() error {
	named, err := reference.WithName(t.Repository)
	if err != nil || named.Name() != t.Repository || t.Digest.Validate() != nil || t.Tag != "" && !tagPattern.MatchString(t.Tag) {
		return errors.New("it is no name")
	}
	return nil
}

// takeAway takes what was taken away anywhere away here, too, where it was not pushed since. While an image is being fetched nothing is:
// the image may be about to link to the same blobs.
func (r *replicator) takeAway(ctx context.Context) error {
	if !r.fetching.TryLock() {
		return nil // the next time
	}
	defer r.fetching.Unlock()
	marks, err := removals(r.root)
	if err != nil {
		return err
	}
	u := unpublisher{root: r.root, gone: map[digest.Digest]bool{}}
	for again := true; again; { // what an index leads to goes after it
		again = false
		for _, m := range marks {
			if err := ctx.Err(); err != nil {
				return context.Cause(ctx)
			}
			at, here := r.pushed(m)
			if !here || at.After(m.Time) {
				continue
			}
			if m.Tag != "" {
				r.log.Printf("%s was taken away elsewhere", m.key())
				if err := os.RemoveAll(u.tagDir(m.Repository, m.Tag)); err != nil {
					return err
				}
				continue
			}
			gone, err := u.manifest(m.Repository, m.Digest)
			if err != nil {
				return err
			}
			again = again || gone
		}
	}
	return u.sweep(ctx)
}

// manifest takes away a manifest that no tag and no index leads to, and the links to its blobs that no other one of the repository needs.
func (u *unpublisher) manifest(repo string, d digest.Digest) (gone bool, err error) {
	tags, err := u.tagged(repo)
	if err != nil || tags[d] {
		return false, err
	}
	used, err := u.used(repo)
	if err != nil || used[d] {
		return false, err
	}
	doc, err := u.document(d)
	if err != nil {
		return false, err
	}
	if err := u.unlink(repo, "_manifests/revisions", d); err != nil {
		return false, err
	}
	if used, err = u.used(repo); err != nil {
		return true, err
	}
	for _, b := range doc.blobs() {
		if !used[b.Digest] && b.Digest.Validate() == nil {
			if err := u.unlink(repo, "_layers", b.Digest); err != nil {
				return true, err
			}
		}
	}
	return true, nil
}
