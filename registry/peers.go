// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/sealerio/sealer/internal/secret"
)

// Peers are registries that hold the same content. What is pushed to one of them is fetched by the others before the
// push is answered, as far as they can be reached; and each asks the others, when it starts and from time to time,
// for what it lacks. Of two images that were pushed under one tag the later one stays: by the hosts' clocks, and one that was pushed over another
// is later than that, whatever the clocks say. What Unpublish has taken away on one goes on all, unless it was pushed again since.
type Peers struct {
	// Self is this registry's URL, as its peers have it among theirs: https://10.0.0.1:5000.
	Self string
	// URLs are those of the others. Nothing is fetched from anywhere else.
	URLs []string
	// Client checks their certificates.
	Client *http.Client
	// Login is what all of them ask for, at the time of a question; nil: nothing.
	Login func() (username string, password secret.Text, err error)
	// Interval is how often they are asked for what is missing here. Default 5 minutes.
	Interval time.Duration
}

const (
	peersInterval = 5 * time.Minute
	peerPatience  = time.Minute      // with a question
	fetchPatience = 30 * time.Minute // with an image
	peerRest      = time.Minute      // of a peer that could not be reached, from pushes
	tagsPath      = "/sealer/tags"
	fetchPath     = "/sealer/fetch"
	maxTags       = 64 << 20 // bytes of a peer's list
)

// peerTag is a tag as one registry has it, or a manifest that it serves by its digest, whether a tag leads to it or not.
type peerTag struct {
	Repository string        `json:"repository"`
	Tag        string        `json:"tag"` // empty: by its digest
	Digest     digest.Digest `json:"digest"`
	Time       time.Time     `json:"time"` // of the push
}

// peerFetch asks a peer to fetch a manifest, with all that it leads to, from the one who asks.
type peerFetch struct {
	From       string        `json:"from"`
	Repository string        `json:"repository"`
	Digest     digest.Digest `json:"digest"`
	Tag        string        `json:"tag,omitempty"`
	Time       time.Time     `json:"time"`
}

// replicator keeps this registry's folder equal to its peers'.
type replicator struct {
	next  http.Handler
	peers Peers
	root  string // of distribution's tree
	log   *log.Logger

	blobs keyLocks // each is fetched once, whatever images want it
	tags  keyLocks // each is looked at and set by one at a time

	fetching sync.RWMutex // by many, and being pushed; nothing is taken away meanwhile

	mu      sync.Mutex
	resting map[string]time.Time // peers that could not be reached, and until when pushes do not wait for them
}

func newReplicator(next http.Handler, p Peers, dir string, errorLog io.Writer) *replicator {
	if p.Interval == 0 {
		p.Interval = peersInterval
	}
	return &replicator{
		next: next, peers: p, root: filepath.Join(dir, filepath.FromSlash(treeRoot)),
		log: log.New(errorLog, "", log.LstdFlags), resting: map[string]time.Time{},
	}
}

func (r *replicator) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	switch {
	case req.URL.Path == tagsPath && req.Method == http.MethodGet:
		r.serveTags(w, req)
	case req.URL.Path == removedPath && req.Method == http.MethodGet:
		r.serveRemoved(w, req)
	case req.URL.Path == fetchPath && req.Method == http.MethodPost:
		r.serveFetch(w, req)
	case req.Method == http.MethodPut:
		if q, ok := parseQuestion(req); ok && q.kind == "manifests" {
			r.servePush(w, req, q)
			return
		}
		r.next.ServeHTTP(w, req)
	default:
		r.next.ServeHTTP(w, req)
	}
}

// servePush answers a push when the peers have it, too.
func (r *replicator) servePush(w http.ResponseWriter, req *http.Request, q question) {
	answer := heldAnswer{header: http.Header{}, status: http.StatusOK}
	if t, pushed := r.push(&answer, req, q); pushed {
		r.tell(context.WithoutCancel(req.Context()), peerFetch{From: r.peers.Self, Repository: t.Repository, Digest: t.Digest, Tag: t.Tag, Time: t.Time})
	}
	answer.send(w)
}

// push has a manifest pushed here, and gives it its time. Nothing is taken away meanwhile: without that time it may look older than it is.
func (r *replicator) push(answer *heldAnswer, req *http.Request, q question) (t peerTag, pushed bool) {
	r.fetching.RLock()
	defer r.fetching.RUnlock()
	var before time.Time
	_, byTag := digest.Parse(q.id)
	if byTag != nil {
		_, before, _ = readTag(r.tagFile(q.name, q.id)) // what cannot be read is not there
	}
	r.next.ServeHTTP(answer, req)
	d, err := digest.Parse(answer.header.Get("Docker-Content-Digest"))
	if err != nil || answer.status != http.StatusCreated {
		return t, false
	}
	t = peerTag{Repository: q.name, Digest: d}
	t.Time = r.later(r.revisionFile(q.name, d), afterRemoval(r.root, t))
	if byTag != nil {
		t.Tag, t.Time = q.id, before
		t.Time = r.later(r.tagFile(q.name, q.id), afterRemoval(r.root, t))
	}
	return t, true
}

// heldAnswer keeps an answer until it may be sent. That to a push is short.
type heldAnswer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (h *heldAnswer) Header() http.Header         { return h.header }
func (h *heldAnswer) WriteHeader(status int)      { h.status = status }
func (h *heldAnswer) Write(p []byte) (int, error) { return h.body.Write(p) }

func (h *heldAnswer) send(w http.ResponseWriter) {
	maps.Copy(w.Header(), h.header)
	w.WriteHeader(h.status)
	_, _ = w.Write(h.body.Bytes()) // the client is gone if this fails
}

// tell has all peers fetch a manifest, at once. One that cannot be reached will ask for it when it is back.
func (r *replicator) tell(ctx context.Context, f peerFetch) {
	ctx, cancel := context.WithTimeout(ctx, fetchPatience)
	defer cancel()
	var wg sync.WaitGroup
	for _, peer := range r.peers.URLs {
		if r.rests(peer) {
			continue
		}
		wg.Go(func() {
			if err := r.ask(ctx, http.MethodPost, peer+fetchPath, f, nil); err != nil {
				r.log.Printf("%s does not have %s@%s yet: %v", peer, f.Repository, f.Digest, err)
				if _, answered := errors.AsType[*peerError](err); !answered {
					r.rest(peer)
				}
			}
		})
	}
	wg.Wait()
}

func (r *replicator) rests(peer string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return time.Now().Before(r.resting[peer])
}

func (r *replicator) rest(peer string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.resting[peer] = time.Now().Add(peerRest)
}

// peerError is a peer that answered, and said no.
type peerError struct {
	url, status, text string
	code              int
}

func (e *peerError) Error() string { return e.url + " answers " + e.status + ": " + e.text }

// request sends a request to a peer and returns its answer, which the caller closes.
func (r *replicator) request(ctx context.Context, method, url string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return nil, err
	}
	if r.peers.Login != nil {
		username, password, err := r.peers.Login()
		if err != nil {
			return nil, err
		}
		req.SetBasicAuth(username, password.Reveal())
	}
	if strings.Contains(url, "/manifests/") {
		req.Header["Accept"] = acceptManifests()["Accept"]
	}
	res, err := r.peers.Client.Do(req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode/100 != 2 {
		text, _ := io.ReadAll(io.LimitReader(res.Body, 4<<10)) // the status says enough
		_ = res.Body.Close()
		return nil, &peerError{url, res.Status, strings.TrimSpace(string(text)), res.StatusCode}
	}
	return res, nil
}

func (r *replicator) ask(ctx context.Context, method, url string, in, out any) (err error) {
	var body bytes.Buffer
	if in != nil {
		if err := json.NewEncoder(&body).Encode(in); err != nil {
			return err
		}
	}
	res, err := r.request(ctx, method, url, &body)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, res.Body.Close()) }()
	if out == nil {
		return nil
	}
	return json.NewDecoder(io.LimitReader(res.Body, maxTags)).Decode(out)
}

func (r *replicator) serveTags(w http.ResponseWriter, req *http.Request) {
	tags, err := r.list(req.Context())
	if err != nil {
		writeError(w, req, http.StatusInternalServerError, "UNKNOWN", err.Error())
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(tags) // the client is gone if this fails
}

func (r *replicator) serveFetch(w http.ResponseWriter, req *http.Request) {
	var f peerFetch
	err := json.NewDecoder(io.LimitReader(req.Body, 64<<10)).Decode(&f)
	if err != nil || f.Digest.Validate() != nil || !slices.Contains(r.peers.URLs, f.From) {
		writeError(w, req, http.StatusBadRequest, "UNSUPPORTED", "this is no peer's question")
		return
	}
	ctx, cancel := context.WithTimeout(req.Context(), fetchPatience)
	defer cancel()
	t := peerTag{Repository: f.Repository, Tag: f.Tag, Digest: f.Digest, Time: f.Time}
	t.Time = afterRemoval(r.root, t) // it has just been pushed
	if err := r.fetch(ctx, f.From, t); err != nil {
		writeError(w, req, http.StatusBadGateway, "UNKNOWN", err.Error())
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// run asks the peers for what is missing here until ctx ends.
func (r *replicator) run(ctx context.Context) {
	tick := time.NewTicker(r.peers.Interval)
	defer tick.Stop()
	for {
		for _, peer := range r.peers.URLs {
			if err := r.hear(ctx, peer); err != nil && ctx.Err() == nil {
				r.log.Printf("asking %s for what was taken away: %v", peer, err)
			}
		}
		if err := r.takeAway(ctx); err != nil && ctx.Err() == nil {
			r.log.Printf("taking away what was taken away elsewhere: %v", err)
		}
		for _, peer := range r.peers.URLs {
			if err := r.catchUp(ctx, peer); err != nil && ctx.Err() == nil {
				r.log.Printf("asking %s for what is missing here: %v", peer, err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// catchUp fetches the tags that a peer has and this registry has not, or has of an earlier push, and what it serves by digest.
func (r *replicator) catchUp(ctx context.Context, peer string) error {
	asking, cancel := context.WithTimeout(ctx, peerPatience)
	defer cancel()
	var theirs []peerTag
	if err := r.ask(asking, http.MethodGet, peer+tagsPath, nil, &theirs); err != nil {
		return err
	}
	ours := map[string]peerTag{}
	list, err := r.list(ctx)
	if err != nil {
		return err
	}
	for _, t := range list {
		ours[t.key()] = t
	}
	var errs []error
	for _, t := range theirs {
		have, ok := ours[t.key()]
		if ok && have.Digest == t.Digest && t.Time.After(have.Time) { // it was pushed there again
			errs = append(errs, r.pushedAgain(ctx, t))
		}
		if ok && (have.Digest == t.Digest || !t.newer(have)) {
			continue
		}
		if t.check() != nil || removed(r.root, t) {
			continue
		}
		if _, here := r.pushed(t); t.Tag == "" && here { // it came with another meanwhile
			continue
		}
		fetching, cancel := context.WithTimeout(ctx, fetchPatience)
		err := r.fetch(fetching, peer, t)
		cancel()
		errs = append(errs, err)
		if _, silent := errors.AsType[*url.Error](err); silent {
			break // the rest when it is back
		}
	}
	return errors.Join(errs...)
}

// list is all tags and manifests of this registry's folder, a repository's manifests before its tags.
func (r *replicator) list(ctx context.Context) ([]peerTag, error) {
	list := []peerTag{} // [] in JSON, not null
	top := filepath.Join(r.root, "repositories")
	err := filepath.WalkDir(top, func(name string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) { // an upload that has ended meanwhile
			return nil
		}
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		if e.IsDir() && (e.Name() == "_layers" || e.Name() == "_uploads" || e.Name() == "index" && filepath.Base(filepath.Dir(filepath.Dir(name))) == "tags") {
			return fs.SkipDir
		}
		if repo, revision, ok := strings.Cut(filepath.ToSlash(strings.TrimPrefix(name, top+string(filepath.Separator))), "/_manifests/revisions/"); ok {
			algorithm, hex, _ := strings.Cut(strings.TrimSuffix(revision, "/link"), "/")
			d := digest.NewDigestFromEncoded(digest.Algorithm(algorithm), hex)
			if e.IsDir() || filepath.Base(name) != "link" || d.Validate() != nil {
				return nil
			}
			info, err := e.Info()
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err == nil {
				list = append(list, peerTag{Repository: repo, Digest: d, Time: info.ModTime().UTC()})
			}
			return err
		}
		rel, ok := strings.CutSuffix(filepath.ToSlash(strings.TrimPrefix(name, top+string(filepath.Separator))), "/current/link")
		if !ok {
			return nil
		}
		repo, tag, ok := strings.Cut(rel, "/_manifests/tags/")
		if !ok {
			return nil
		}
		d, at, err := readTag(name)
		if err == nil && d != "" {
			list = append(list, peerTag{Repository: repo, Tag: tag, Digest: d, Time: at})
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listing the registry's tags: %w", err)
	}
	return list, nil
}

// readTag reads a tag's link; "" where it holds no digest.
func readTag(file string) (digest.Digest, time.Time, error) {
	info, err := os.Stat(file)
	if errors.Is(err, fs.ErrNotExist) {
		return "", time.Time{}, nil
	}
	if err != nil || info.Size() > maxLink {
		return "", time.Time{}, err
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return "", time.Time{}, err
	}
	d := digest.Digest(strings.TrimSpace(string(text)))
	if d.Validate() != nil {
		return "", time.Time{}, nil
	}
	return d, info.ModTime().UTC(), nil
}

// pushedAgain keeps the time of the later push of what is here.
func (r *replicator) pushedAgain(ctx context.Context, t peerTag) error {
	if t.Tag == "" {
		return raise(r.revisionFile(t.Repository, t.Digest), t.Time)
	}
	release, err := r.tags.lock(ctx, t.key())
	if err != nil {
		return err
	}
	defer release()
	if _, here := r.pushed(t); !here {
		return nil // another was pushed over it
	}
	return raise(r.tagFile(t.Repository, t.Tag), t.Time)
}

func (r *replicator) tagFile(repo, tag string) string {
	return filepath.Join(r.root, "repositories", filepath.FromSlash(repo), "_manifests", "tags", tag, "current", "link")
}

func (r *replicator) revisionFile(repo string, d digest.Digest) string {
	return revisionFile(r.root, repo, d)
}

// later is the time of a link that was pushed just now over one of the time before: a peer's clock, from which that may be, may be ahead of
// ours, and yet the push is the later one.
func (r *replicator) later(file string, before time.Time) time.Time {
	info, err := os.Stat(file)
	at := time.Now().UTC()
	if err == nil {
		at = info.ModTime().UTC()
	}
	if at.After(before) {
		return at
	}
	at = before.Add(time.Millisecond)
	if err := os.Chtimes(file, at, at); err != nil {
		r.log.Printf("keeping when %s was pushed: %v", file, err)
	}
	return at
}

// newer tells which of two tags of one name stays: the later one, or where clocks cannot tell, the same one everywhere.
func (t peerTag) newer(than peerTag) bool {
	if t.Time.Equal(than.Time) {
		return t.Digest > than.Digest
	}
	return t.Time.After(than.Time)
}

// key is the name that there is once in a registry.
func (t peerTag) key() string {
	if t.Tag == "" {
		return t.Repository + "@" + t.Digest.String()
	}
	return t.Repository + ":" + t.Tag
}
