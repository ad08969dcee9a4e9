// SPDX-License-Identifier: Apache-2.0

package node

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/sealerio/sealer/test/components/programs/doubles/journal"
	"github.com/sealerio/sealer/test/components/programs/doubles/mirror"
	"github.com/sealerio/sealer/test/components/programs/doubles/pki"
)

// keeper is a container runtime that is no part of k3s.
type keeper interface {
	has(ctx context.Context, image string) (bool, error)
	ensure(ctx context.Context, image string, always bool, j *journal.Journal) error
}

// Images is what the node's container runtime has. Contents are not kept: that they came whole is noted.
type Images struct {
	file    string
	folder  string // archives that are taken in; empty for none
	find    mirror.Finder
	journal *journal.Journal
	other   keeper // that has the images in the place of all else; nil: there is none

	mu  sync.Mutex
	has map[string]string // name to digest
}

// OpenImages reads the list in file.
func OpenImages(file, folder string, find mirror.Finder, j *journal.Journal) *Images {
	i := &Images{file: file, folder: folder, find: find, journal: j, has: map[string]string{}}
	if text, err := os.ReadFile(file); err == nil {
		_ = json.Unmarshal(text, &i.has)
	}
	return i
}

// KeptBy are the images of a container runtime that the host has.
func KeptBy(k keeper, j *journal.Journal) *Images {
	return &Images{other: k, journal: j}
}

// there tells whether an image is there, without asking for it anywhere.
func (i *Images) there(ctx context.Context, image string) (bool, error) {
	if i.other != nil {
		return i.other.has(ctx, image)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	_, ok := i.has[mirror.Parse(image).String()]
	return ok, nil
}

// List is what is there, by name.
func List(file string) (map[string]string, error) {
	out := map[string]string{}
	text, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return out, nil
	}
	if err != nil {
		return nil, err
	}
	return out, json.Unmarshal(text, &out)
}

// Ensure fetches an image that is not there, or whose name has to be looked up again.
func (i *Images) Ensure(ctx context.Context, image string, always bool) error {
	if i.other != nil {
		return i.other.ensure(ctx, image, always, i.journal)
	}
	name := mirror.Parse(image).String()
	i.mu.Lock()
	_, ok := i.has[name]
	i.mu.Unlock()
	if ok && !always {
		return nil
	}
	began := time.Now()
	digest, err := mirror.Pull(ctx, i.find, image)
	var upstream *mirror.UpstreamError
	if errors.As(err, &upstream) {
		i.journal.Add(journal.Entry{Event: "upstream", Text: name})
	}
	if err != nil {
		return err
	}
	i.journal.Add(journal.Entry{Event: "pulled", Text: fmt.Sprintf("%s@%s in %s", name, digest, time.Since(began).Round(time.Millisecond))})
	return i.add(map[string]string{name: digest})
}

func (i *Images) add(more map[string]string) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	for k, v := range more {
		i.has[k] = v
	}
	text, err := json.MarshalIndent(i.has, "", " ")
	if err != nil {
		return err
	}
	return pki.WriteFile(i.file, text, 0o600)
}

// Import takes in the archives of the folder.
func (i *Images) Import() error {
	if i.other != nil { // k3s gives them to its own containerd only
		return nil
	}
	entries, err := os.ReadDir(i.folder)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") || !strings.Contains(e.Name(), ".tar") {
			continue
		}
		names, err := archived(filepath.Join(i.folder, e.Name()))
		if err != nil {
			return fmt.Errorf("importing %s: %w", e.Name(), err)
		}
		if err := i.add(names); err != nil {
			return err
		}
	}
	return nil
}

// archived are the names in an archive, as docker save and OCI layouts hold them.
func archived(path string) (map[string]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var r io.Reader = f
	switch {
	case strings.HasSuffix(path, ".zst"):
		z, err := zstd.NewReader(f)
		if err != nil {
			return nil, err
		}
		defer z.Close()
		r = z
	case strings.HasSuffix(path, ".gz"):
		if r, err = gzip.NewReader(f); err != nil {
			return nil, err
		}
	}
	out := map[string]string{}
	for t := tar.NewReader(r); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		switch filepath.Clean(h.Name) {
		case "manifest.json":
			var list []struct{ RepoTags []string }
			if err := json.NewDecoder(io.LimitReader(t, 8<<20)).Decode(&list); err != nil {
				return nil, err
			}
			for _, m := range list {
				for _, tag := range m.RepoTags {
					out[mirror.Parse(tag).String()] = "imported"
				}
			}
		case "index.json":
			var index struct {
				Manifests []struct {
					Digest      string
					Annotations map[string]string
				}
			}
			if err := json.NewDecoder(io.LimitReader(t, 8<<20)).Decode(&index); err != nil {
				return nil, err
			}
			for _, m := range index.Manifests {
				for _, k := range []string{"io.containerd.image.name", "org.opencontainers.image.ref.name"} {
					if name := m.Annotations[k]; strings.Contains(name, "/") {
						out[mirror.Parse(name).String()] = m.Digest
					}
				}
			}
		}
	}
}
