// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"

	"github.com/sealerio/sealer/internal/process"
)

const lockPoll = 100 * time.Millisecond

// lockState takes the state folder for this process, or waits for it and says for whom. The kernel drops the lock with
// the process, however that ends.
func lockState(ctx context.Context, o Options) (*flock.Flock, error) {
	path := filepath.Join(o.Root, "lock")
	l := flock.New(path, flock.SetFlag(os.O_CREATE|os.O_RDWR), flock.SetPermissions(0o600))
	ok, err := l.TryLock()
	if err != nil {
		return nil, fmt.Errorf("locking %q: %w", path, err)
	}
	if !ok && o.NoWait {
		return nil, &BusyError{Root: o.Root, Holder: readHolder(path)}
	}
	if !ok {
		o.notice("waiting for another build in %s: %s", o.Root, readHolder(path))
		if _, err := l.TryLockContext(ctx, lockPoll); err != nil {
			return nil, fmt.Errorf("waiting for another build in %q (%s): %w", o.Root, readHolder(path), err)
		}
	}
	me, err := json.Marshal(Holder{PID: process.ID(), Command: o.Command, Since: time.Now()})
	if err == nil {
		err = os.WriteFile(path, me, 0o600) // in place: a rename would give others another lock
	}
	if err != nil {
		_ = l.Unlock()
		return nil, fmt.Errorf("locking %q: %w", path, err)
	}
	return l, nil
}

func readHolder(path string) Holder {
	var h Holder
	if b, err := os.ReadFile(path); err == nil {
		_ = json.Unmarshal(b, &h) // a torn file only makes the message poorer
	}
	return h
}
