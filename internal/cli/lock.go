// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sealerio/sealer/build"
	"github.com/sealerio/sealer/imagelist"
	"github.com/sealerio/sealer/store"
)

func newLock(a *app) *cobra.Command {
	var o buildFlags
	var check bool
	var output string
	cmd := &cobra.Command{
		Use:   "lock CONTEXT",
		Short: "Write down what the names of a Kubefile's images stand for",
		Long: `lock writes imageList.lock beside the Kubefile: the digest, the size and the origin of every
container image that a build would pack, and of every image that it starts from.
'sealer build --locked' obeys it. The rootfs is made, for it may bring lists and manifests; no
layer of an image is fetched from a registry, and nothing is tagged.

With --check, nothing is written: what changed since the lock was written is listed, in the
files that name images and in the registries; the exit status is 1 if anything did.`,
		Example: `  sealer lock .
  sealer lock --check .
  sealer lock -f deploy/Kubefile --platform linux/amd64,linux/arm64 .
  sealer lock --check -o json . | jq '.[].name'`,
		Args: exactArgs("CONTEXT"),
	}
	o.addInputs(cmd)
	f := cmd.Flags()
	f.BoolVar(&check, "check", false, "write nothing; list what changed since the lock was written")
	addOutput(cmd, &output)
	a.addRegistryFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		o.tags, o.provenance = []string{"sealer.invalid/lock:v1"}, "false" // a build has a name; this one never gets it
		quick := func(options build.Options, _ *store.Store) (bool, error) {
			if check {
				changes, done, err := build.CheckLockUnchanged(cmd.Context(), options)
				if err != nil || !done {
					return done, err
				}
				return true, a.printChanges(cmd, changes, output)
			}
			lock, done, err := build.ResolveLockUnchanged(cmd.Context(), options)
			if err != nil || !done {
				return done, err
			}
			return true, a.writeLock(cmd, options, lock, output)
		}
		return a.withBuilder(cmd, o, args[0], quick, func(options build.Options, _ *store.Store) error {
			if check {
				changes, err := build.CheckLock(cmd.Context(), options)
				if err != nil {
					return err
				}
				return a.printChanges(cmd, changes, output)
			}
			lock, err := build.ResolveLock(cmd.Context(), options)
			if err != nil {
				return err
			}
			return a.writeLock(cmd, options, lock, output)
		})
	}
	return cmd
}

// driftError says that a lock is not what is true now. What changed is on stdout.
type driftError struct{ changes int }

func (e *driftError) Error() string {
	if e.changes == 1 {
		return imagelist.LockName + ": one thing changed since it was written"
	}
	return fmt.Sprintf("%s: %d things changed since it was written", imagelist.LockName, e.changes)
}

// Hint tells the user what to do.
func (e *driftError) Hint() string { return "sealer lock writes it again" }

func (a *app) writeLock(cmd *cobra.Command, options build.Options, lock imagelist.Lock, output string) error {
	file, err := build.WriteLock(options, lock)
	if err != nil {
		return err
	}
	return a.print(cmd, output, lock, func(t *table) { t.line(file) })
}

func (a *app) printChanges(cmd *cobra.Command, changes []imagelist.LockChange, output string) error {
	err := a.print(cmd, output, changes, func(t *table) {
		if len(changes) == 0 {
			t.line("nothing changed")
			return
		}
		t.line("CHANGE", "IMAGE", "PLATFORM", "LOCKED", "NOW", "FROM")
		for _, c := range changes {
			from := strings.Join(c.Origins, ", ")
			if c.Base {
				from = "FROM"
			}
			t.line(c.Kind, c.Name, c.Platform, short(c.Locked), short(c.Now), from)
		}
	})
	if err == nil && len(changes) > 0 {
		err = &driftError{changes: len(changes)}
	}
	return err
}
