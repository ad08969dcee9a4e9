// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"path"
	"time"

	"github.com/sealerio/sealer/cluster/application"
	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/runtime"
)

// noteDir is where the script is, below the mounted rootfs, with which it goes.
const noteDir = ".sealer-launch"

// startNoted starts something and tells what it has made, also where it failed, or was cut the time before.
func (r *run) startNoted(ctx context.Context, h *runtime.Host, l launched, log io.Writer) (application.Notes, error) {
	dir := path.Join(h.Rootfs, noteDir)
	for _, name := range []string{"kubectl", "helm"} {
		if err := host.WriteFile(ctx, h.Runner, path.Join(dir, name), application.NoteScript(), 0o700); err != nil {
			return application.Notes{}, err
		}
	}
	file := path.Join(dir, "notes")
	err := r.start(ctx, h, l, log, "SEALER_NOTING="+dir, "SEALER_NOTES="+file)
	if ctx.Err() != nil {
		return application.Notes{}, err
	}
	text, readErr := host.ReadFile(ctx, h.Runner, file)
	if errors.Is(readErr, fs.ErrNotExist) {
		readErr = nil
	}
	return application.ParseNotes(string(text)), errors.Join(err, readErr)
}

// forgetNotes is called when what was noted is kept elsewhere.
func forgetNotes(ctx context.Context, h *runtime.Host) error {
	return h.Runner.Run(ctx, host.Command{Argv: []string{"rm", "-f", "--", path.Join(h.Rootfs, noteDir, "notes")}, Mutates: true})
}

// ofCluster keeps what an application of the cluster's own image has made. err is how its launch ended.
func (r *run) ofCluster(ctx context.Context, h *runtime.Host, name string, n application.Notes, err error) error {
	if ctx.Err() != nil {
		return err
	}
	records, readErr := r.inventory().Records(ctx)
	if readErr != nil {
		return errors.Join(err, readErr)
	}
	rec := &application.Record{Name: name}
	for _, have := range records {
		if have.Name == name && have.OfCluster {
			rec = have
		}
	}
	rec.Image, rec.Digest, rec.OfCluster = r.ImageName, r.cluster.Digest, true
	rec.Begun, rec.Ended, rec.Applications = time.Now().UTC(), time.Time{}, []string{name}
	rec.Add(n, r.cluster.Digest, application.Maker(name, ""))
	if err == nil {
		rec.Ended = time.Now().UTC()
	}
	if keepErr := r.inventory().Keep(ctx, rec); keepErr != nil {
		return errors.Join(err, keepErr)
	}
	return errors.Join(err, forgetNotes(ctx, h))
}
