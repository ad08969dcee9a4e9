// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/runtime"
)

// While hosts are worked on they say by whom, for operators on other machines. It is renewed every holdRenew, and void
// after holdFor without: the operator's machine may be gone.
const (
	holdFile  = "/run/lock/sealer-operator"
	holdFor   = time.Minute
	holdRenew = 15 * time.Second
	exitHeld  = 75
)

// takeHold writes $2, who takes it, and below it $3 to the file $1, unless someone else has done so in the last $4
// seconds: what that one wrote is printed then. The file stays, empty after letGo: two may have it open at once.
const takeHold = `set -eu; exec 9>>"$1"
flock 9
if [ -s "$1" ]; then
	IFS= read -r who <"$1"
	age=$(($(date +%s) - $(stat -c %Y "$1")))
	if [ "$who" != "$2" ] && [ "$age" -ge 0 ] && [ "$age" -lt "$4" ]; then
		sed 1d "$1"
		exit 75
	fi
fi
printf '%s\n%s\n' "$2" "$3" >"$1"
`

const letGo = `set -eu; exec 9>>"$1"
flock 9
IFS= read -r who <"$1" || :
[ "$who" != "$2" ] || : >"$1"
`

// HeldError is a host that an operator on another machine, or with another folder, is working on.
type HeldError struct {
	Host   string
	Holder Holder
}

func (e *HeldError) Error() string {
	return fmt.Sprintf("%s: it is being worked on by %s", e.Host, e.Holder)
}

// Hint is to wait.
func (e *HeldError) Hint() string {
	return "wait until it is done, then run the same command again; a run that was killed holds its hosts for another " + holdFor.String()
}

// hold keeps other operators off the hosts until release is called. What was found on the hosts before may have been
// changed by the last one: it is gathered anew. The context that is returned ends where the hold is lost.
func (f *folder) hold(ctx context.Context, c *runtime.Cluster, marks []runtime.Marks) (_ context.Context, release func(), err error) {
	id, err := f.operator()
	if err != nil {
		return nil, nil, err
	}
	who, err := json.Marshal(f.self)
	if err != nil {
		return nil, nil, fmt.Errorf("signing the hosts: %w", err)
	}
	take := func(ctx context.Context, h *runtime.Host) error {
		var said bytes.Buffer
		err := h.Runner.Run(ctx, host.Command{
			Argv:   []string{"sh", "-c", takeHold, "sh", holdFile, id, string(who), strconv.Itoa(int(holdFor.Seconds()))},
			Stdout: &said, Mutates: true,
		})
		if exit, ok := errors.AsType[*host.ExitError](err); ok && exit.Code == exitHeld {
			return &HeldError{h.String(), readHolder(said.Bytes())}
		}
		return err
	}
	var free []*runtime.Host // those that are not held for something greater, of which this is a part
	for _, h := range c.Hosts {
		if !f.held[h.Spec.Address] {
			free = append(free, h)
		}
	}
	letAllGo := func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
		defer cancel()
		_ = onAll(free, func(h *runtime.Host) error { // what is not let go is void soon
			return h.Runner.Run(ctx, host.Command{Argv: []string{"sh", "-c", letGo, "sh", holdFile, id}, Mutates: true})
		})
	}
	// The first host alone decides between two who begin at the same moment.
	err = onAll(free[:min(1, len(free))], func(h *runtime.Host) error { return take(ctx, h) })
	if err == nil {
		err = onAll(free[min(1, len(free)):], func(h *runtime.Host) error { return take(ctx, h) })
	}
	if err == nil {
		err = onAll(c.Hosts, func(h *runtime.Host) (err error) {
			h.Facts, err = runtime.Gather(ctx, h.Runner, runtime.OwnRuntime(marks, c.File, h.Spec.Role))
			expectName(h)
			return err
		})
	}
	if err != nil {
		letAllGo()
		return nil, nil, err
	}
	for _, h := range free {
		f.held[h.Spec.Address] = true
	}
	held, cancel := context.WithCancelCause(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(holdRenew)
		defer tick.Stop()
		for {
			select {
			case <-held.Done():
				return
			case <-tick.C:
			}
			err := onAll(free, func(h *runtime.Host) error { return take(held, h) })
			if lost, ok := errors.AsType[*HeldError](err); ok { // any other error may pass
				cancel(lost)
			}
		}
	}()
	return held, func() {
		cancel(nil)
		<-ended
		for _, h := range free {
			delete(f.held, h.Spec.Address)
		}
		letAllGo()
	}, nil
}

// onAll does something on all hosts at once; the error is that of the first host that has one.
func onAll(hosts []*runtime.Host, do func(*runtime.Host) error) error {
	errs := make([]error, len(hosts))
	var g errgroup.Group
	g.SetLimit(maxParallel)
	for i, h := range hosts {
		g.Go(func() error {
			errs[i] = do(h)
			return nil
		})
	}
	_ = g.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
