// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// pollLock is how often a lock that another process has is asked for. flock
// has no form that waits and can be cancelled.
const pollLock = 50 * time.Millisecond

// tryLock takes an exclusive flock on the file at path, creating it. It
// returns nil where another has the lock. With fleeting set, the holder
// removes the file when it lets go.
func tryLock(path string, fleeting bool) (*fileLock, error) {
	for {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o644)
		if err != nil {
			return nil, err
		}
		ok, err := flock(f, unix.LOCK_EX)
		if err != nil || !ok {
			return nil, errors.Join(err, f.Close())
		}
		if !fleeting {
			return &fileLock{f: f, path: path}, nil
		}
		same, err := sameFile(f, path)
		if err == nil && same {
			return &fileLock{f: f, path: path}, nil
		}
		if err := errors.Join(err, f.Close()); err != nil {
			return nil, err
		}
	}
}

// flock asks for a lock and says whether it got it.
func flock(f *os.File, how int) (bool, error) {
	for {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, unix.EWOULDBLOCK):
			return false, nil
		case errors.Is(err, unix.EINTR):
			continue
		}
		return false, fmt.Errorf("locking %q: %w", f.Name(), err)
	}
}

// sameFile tells whether path still names the open file.
func sameFile(f *os.File, path string) (bool, error) {
	ours, err := f.Stat()
	if err != nil {
		return false, err
	}
	there, err := os.Stat(path)
	if os.IsNotExist(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return os.SameFile(ours, there), nil
}

// waitLock takes a lock, shared or exclusive, on a file that stays. waiting is
// called once, before the first wait; it may be nil.
func waitLock(ctx context.Context, path string, how int, waiting func()) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return nil, err
	}
	var tick *time.Ticker
	for {
		ok, err := flock(f, how)
		if ok {
			return f, nil
		}
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		if tick == nil {
			tick = time.NewTicker(pollLock)
			defer tick.Stop()
			if waiting != nil {
				waiting()
			}
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(context.Cause(ctx), f.Close())
		case <-tick.C:
		}
	}
}
