// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/internal/redact"
)

const (
	// maxEnds is how often a service may end while it is waited for: one that comes up by itself after a time, such as a server
	// that etcd does not let in yet, may end now and then.
	maxEnds = 4
	// logLines of a service that does not come up are shown.
	logLines = 30
)

// Patience is how a service that was started is waited for.
type Patience struct {
	// Timeout is how long it may take, Interval how often it is asked.
	Timeout, Interval time.Duration
	// Secrets are kept out of what is said of a service that does not come up.
	Secrets []host.Secret
}

var errPatience = errors.New("the time is up")

// Await asks until ready says yes. A program that ready ran and that failed may have come too early; every other error ends the
// wait. The error is a *StartError where the time is up, where the host has given the service up, or where it ends again and again.
func (s Service) Await(ctx context.Context, p Patience, ready func(context.Context) (bool, error)) error {
	waiting, cancel := context.WithTimeoutCause(ctx, p.Timeout, errPatience)
	defer cancel()
	tick := time.NewTicker(p.Interval)
	defer tick.Stop()
	first := -1
	for {
		done, err := ready(waiting)
		if err == nil && done {
			return nil
		}
		if _, early := errors.AsType[*host.ExitError](err); err != nil && !early && waiting.Err() == nil {
			return err
		}
		ends, failed, err := s.ends(waiting)
		if err != nil && waiting.Err() == nil {
			return err
		}
		if first < 0 || ends < first {
			first = ends
		}
		if err == nil && (failed || ends-first >= maxEnds) {
			return s.startError(ctx, p, &StartError{Ends: ends - first})
		}
		select {
		case <-tick.C:
		case <-waiting.Done():
			if cause := context.Cause(waiting); !errors.Is(cause, errPatience) {
				return cause
			}
			return s.startError(ctx, p, &StartError{After: p.Timeout})
		}
	}
}

// ends is how often systemd has started the service anew, and whether the host has given it up.
func (s Service) ends(ctx context.Context) (n int, failed bool, err error) {
	failed, err = s.Failed(ctx)
	if err != nil || failed || s.openRC() {
		return 0, failed, err
	}
	out, err := host.Output(ctx, s.Host.Runner, host.Command{Argv: []string{"systemctl", "show", "--property=NRestarts", "--value", s.Name}})
	if _, answered := errors.AsType[*host.ExitError](err); err != nil && !answered {
		return 0, false, err
	}
	n, err = strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		n = 0 // a systemd before 235 does not count
	}
	return n, false, nil
}

func (s Service) startError(ctx context.Context, p Patience, e *StartError) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	known := make([]string, len(p.Secrets))
	for i, secret := range p.Secrets {
		known[i] = secret.Reveal()
	}
	e.Host, e.Service = s.Host.String(), s.Name
	e.Log = redact.New(known...).Text(s.Log(ctx, logLines))
	e.hint = s.Hint()
	return e
}

// StartError is a service that does not come up.
type StartError struct {
	Host, Service string
	After         time.Duration // how long it was waited for; 0: the host has given it up, or it ends again and again
	Ends          int           // how often it has ended meanwhile, where that is known
	Log           string        // the end of what it wrote, without secrets
	hint          string
}

func (e *StartError) Error() string {
	msg := fmt.Sprintf("%s: %s does not come up: ", e.Host, e.Service)
	switch {
	case e.After > 0:
		msg += fmt.Sprintf("it is not part of the cluster after %s", e.After)
	case e.Ends > 0:
		msg += fmt.Sprintf("it has ended %d times", e.Ends)
	default:
		msg += "it has failed"
	}
	if e.Log != "" {
		msg += "; the last it wrote:\n" + e.Log
	}
	return msg
}

// Hint says where to read more.
func (e *StartError) Hint() string { return e.hint }

// Hint says to read what the service writes.
func (s Service) Hint() string { return "look at " + s.LogSource() + " on the host" }

// LogSource is where to read what the service writes: a command, or files.
func (s Service) LogSource() string {
	if s.openRC() {
		return s.logFile("log") + " and " + s.logFile("err")
	}
	return "journalctl -u " + s.Name
}
