// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/moby/buildkit/cache/metadata"
	"go.etcd.io/bbolt"

	"github.com/sealerio/sealer/internal/atomicfile"
)

// A build makes some two hundred transactions. While an engine runs, its databases do not wait for the disk; they are
// synced once, when it ends. A note, which is on the disk before anything is written and goes when all is synced, says
// at which start of the machine that was: one of an earlier start means that the machine stopped in between, and what is
// in the folder cannot be trusted. It is a cache, and begins anew. A process that is killed loses nothing.

// runningName is the note.
const runningName = "running"

// databases are the files that are not synced as they are written, as patterns below the state folder.
func databases() []string {
	return []string{"*.db", "worker-*/*.db", "worker-*/snapshots/*.db"}
}

// begin writes the note, after it looked at that of an earlier start. It says whether the databases need not wait for
// the disk: not where nothing tells one start of the machine from another.
func (e *Engine) begin() (unsynced bool, err error) {
	boot := bootID()
	if boot == "" {
		return false, nil
	}
	path := filepath.Join(e.opt.Root, runningName)
	switch was, err := os.ReadFile(path); {
	case err == nil && string(was) == boot:
		return true, nil // of a process that was killed
	case err == nil:
		e.opt.notice("this machine stopped in the middle of a build: the build cache in %s begins anew", e.opt.Root)
		if err := e.discard(); err != nil {
			return false, err
		}
	case !errors.Is(err, fs.ErrNotExist):
		return false, err
	}
	return true, atomicfile.Write(path, []byte(boot), 0o600)
}

// discard removes what engines made.
func (e *Engine) discard() error {
	for _, pattern := range []string{"*.db", "worker-*"} {
		found, err := filepath.Glob(filepath.Join(e.opt.Root, pattern))
		if err != nil {
			return err
		}
		for _, path := range found {
			if err := os.RemoveAll(path); err != nil {
				return fmt.Errorf("removing what is left of an earlier build: %w", err)
			}
		}
	}
	return nil
}

// end syncs the databases, which are closed, and takes the note away.
func (e *Engine) end() error {
	for _, pattern := range databases() {
		found, err := filepath.Glob(filepath.Join(e.opt.Root, pattern))
		if err != nil {
			return err
		}
		for _, path := range found {
			if err := syncFile(path); err != nil {
				return fmt.Errorf("syncing the build state: %w", err)
			}
		}
	}
	return removeIfThere(filepath.Join(e.opt.Root, runningName))
}

func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// dontWait makes BuildKit's own database one that does not wait for the disk.
func dontWait(s *metadata.Store) {
	if db, ok := s.DB().(*bbolt.DB); ok {
		db.NoSync = true
	}
}
