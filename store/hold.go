// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sealerio/sealer/internal/process"
)

// Holder is a process that keeps Prune away.
type Holder struct {
	PID int `json:"pid"`
	// Command is the program with its first argument: "sealer build". More
	// could hold a secret.
	Command string    `json:"command"`
	Since   time.Time `json:"since"`
}

func (h Holder) String() string { return fmt.Sprintf("%s (process %d)", h.Command, h.PID) }

// BusyError says that a store was still in use when the wait ended.
type BusyError struct {
	Dir     string
	Holders []Holder
	Err     error // why the wait ended
}

func (e *BusyError) Error() string {
	return fmt.Sprintf("waiting for store %q, in use by %s: %v", e.Dir, joinHolders(e.Holders), e.Err)
}

func (e *BusyError) Unwrap() error { return e.Err }

// Hint tells the user what to do.
func (e *BusyError) Hint() string { return "try again when the other command is done" }

func joinHolders(hs []Holder) string {
	if len(hs) == 0 {
		return "another process"
	}
	words := make([]string, len(hs))
	for i, h := range hs {
		words[i] = h.String()
	}
	return strings.Join(words, ", ")
}

// Hold keeps Prune from running until release is called: take it before the
// first blob is written and release it when the tag is set. Many may hold a
// store at once; it waits only while Prune runs. release is safe to call
// twice. A process that dies holds nothing.
func (s *Store) Hold(ctx context.Context) (release func() error, err error) {
	f, err := waitLock(ctx, filepath.Join(s.dir, holdLock), unix.LOCK_SH, nil)
	if err != nil {
		return nil, fmt.Errorf("holding store %q: %w", s.dir, err)
	}
	sign, err := s.sign()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("holding store %q: %w", s.dir, err), f.Close())
	}
	var once sync.Once
	return func() error {
		var err error
		once.Do(func() {
			sign.remove()
			err = f.Close()
		})
		return err
	}, nil
}

// sign leaves a file that says who holds the store, locked for as long as that is true.
func (s *Store) sign() (*fileLock, error) {
	f, err := os.CreateTemp(filepath.Join(s.dir, holdersDir), fmt.Sprintf("%d-*.json", os.Getpid()))
	if err != nil {
		return nil, err
	}
	l := &fileLock{f: f, path: f.Name()}
	if _, err := flock(f, unix.LOCK_EX); err != nil {
		l.remove()
		return nil, err
	}
	data, err := json.Marshal(Holder{PID: process.ID(), Command: process.Command(), Since: time.Now().UTC().Truncate(time.Second)})
	if err == nil {
		_, err = f.Write(data)
	}
	if err != nil {
		l.remove()
		return nil, err
	}
	return l, nil
}

// holders lists who holds the store now, and removes what dead processes left.
func (s *Store) holders() []Holder {
	names, err := filepath.Glob(filepath.Join(s.dir, holdersDir, "*.json"))
	if err != nil {
		return nil
	}
	var out []Holder
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			continue
		}
		l := &fileLock{f: f, path: name}
		if free, err := flock(f, unix.LOCK_EX); err == nil && free {
			l.remove()
			continue
		}
		var h Holder
		if err := json.NewDecoder(f).Decode(&h); err == nil {
			out = append(out, h)
		}
		_ = f.Close()
	}
	return out
}
