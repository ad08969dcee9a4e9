// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/internal/atomicfile"
	"github.com/sealerio/sealer/internal/progress"
	"github.com/sealerio/sealer/internal/redact"
	"github.com/sealerio/sealer/internal/version"
	"github.com/sealerio/sealer/runtime"
)

// Bounds of a bundle. Of what is longer the end is taken.
const (
	maxBundled     = 2 << 20 // bytes of one answer
	maxOperatorLog = 8       // files of the operator's, the latest
	bundlePatience = time.Minute
)

// BundleOptions say what goes into a bundle for support, and where it is written.
type BundleOptions struct {
	// View is the cluster; nil where none of its hosts can be reached, for the reason Unreachable: the bundle then has what
	// this machine knows.
	View        *View
	Unreachable error
	Cluster     string // its name
	StateDir    string
	LogDir      string        // of the logs of sealer's runs
	Since       time.Duration // how far back the hosts' journals go. Default 24 hours
	Secrets     []host.Secret // to be taken out beside those that are found
	Display     *progress.Display
	File        string // of mode 0600; it appears whole or not at all
}

// BundleReport is what could not be had.
type BundleReport struct {
	Entries int
	// Lost are hosts that could not be reached, each with the reason.
	Lost []string
}

// Bundle writes what support needs to know of a cluster to one tar.gz: versions, journals of sealer and of the hosts'
// units, facts, certificates' ends, disks and memory, and what Kubernetes tells of itself, without its Secrets. What is a
// secret, or looks like one, is taken out of all of it. What cannot be asked is noted in its place.
func Bundle(ctx context.Context, o BundleOptions) (_ *BundleReport, err error) {
	if o.File == "" || o.StateDir == "" || o.Cluster == "" {
		return nil, errors.New("bundling logs: the cluster's name, state folder and file are needed")
	}
	if o.Since == 0 {
		o.Since = 24 * time.Hour
	}
	file, err := atomicfile.Output(o.File, 0o600)
	if err != nil {
		return nil, fmt.Errorf("bundling logs: %w", err)
	}
	defer func() { err = errors.Join(err, file.Abort()) }()
	name, _, _ := strings.Cut(filepath.Base(o.File), ".")
	z := gzip.NewWriter(file)
	b := &bundle{BundleOptions: o, folder: name, tar: tar.NewWriter(z), redactor: redact.New(o.revealed()...), at: time.Now()}
	report := &BundleReport{}
	if o.View != nil {
		b.redactor = redact.New(append(o.revealed(), b.knownSecrets(ctx)...)...)
	}
	b.operator(ctx)
	if v := o.View; v == nil {
		b.addText("hosts/unreachable.txt", fmt.Sprint(o.Unreachable))
	} else {
		report.Lost = b.hosts(ctx)
		b.kubernetes(ctx)
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err := errors.Join(b.err, b.tar.Close(), z.Close()); err != nil {
		return nil, fmt.Errorf("bundling logs: %w", err)
	}
	if err := file.Commit(); err != nil {
		return nil, fmt.Errorf("bundling logs: %w", err)
	}
	report.Entries = b.entries
	return report, nil
}

func (o BundleOptions) revealed() []string {
	var all []string
	for _, s := range o.Secrets {
		all = append(all, s.Reveal())
	}
	return all
}

// bundle is one on its way.
type bundle struct {
	BundleOptions
	folder   string
	redactor *redact.Redactor
	at       time.Time

	mu      sync.Mutex // guards what follows
	tar     *tar.Writer
	entries int
	err     error
}

// add puts a file into the bundle, without secrets. Only text goes in.
func (b *bundle) add(name string, data []byte) {
	if len(data) > maxBundled {
		data = append([]byte("… the beginning is left out\n"), data[len(data)-maxBundled:]...)
	}
	text := []byte(b.redactor.Text(string(data)))
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil {
		return
	}
	b.err = b.tar.WriteHeader(&tar.Header{
		Typeflag: tar.TypeReg, Name: path.Join(b.folder, name), Mode: 0o600, Size: int64(len(text)), ModTime: b.at, Format: tar.FormatPAX,
	})
	if b.err == nil {
		_, b.err = b.tar.Write(text)
	}
	b.entries++
}

func (b *bundle) addText(name, text string) { b.add(name, []byte(text+"\n")) }

func (b *bundle) addJSON(name string, v any, err error) {
	data, jsonErr := json.MarshalIndent(v, "", "  ")
	if err = errors.Join(err, jsonErr); err != nil {
		data = append(data, "\n"+err.Error()...)
	}
	b.add(name, append(data, '\n'))
}

// operator is what this machine knows.
func (b *bundle) operator(ctx context.Context) {
	task := b.Display.Task("collecting what this machine knows")
	defer task.Done(nil)
	about := map[string]string{"sealer": version.Version(), "cluster": b.Cluster, "at": b.at.UTC().Format(time.RFC3339)}
	if v := b.View; v != nil {
		about["runtime"], about["imageDigest"] = v.distribution.Name(), v.cluster.Digest
		for _, h := range v.cluster.Hosts {
			if s := h.Facts.State; s != nil {
				about["image"], about["kubernetes"] = s.Image, s.KubeVersion
			}
		}
	}
	b.addJSON("versions.json", about, nil)
	for _, name := range []string{"Clusterfile", journalName} {
		data, err := os.ReadFile(filepath.Join(filepath.Dir(ClusterfilePath(b.StateDir, b.Cluster)), name))
		if err == nil {
			b.add("operator/"+name, data)
		}
	}
	entries, err := os.ReadDir(b.LogDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		b.addText("operator/logs/unreadable.txt", err.Error())
	}
	slices.SortFunc(entries, func(x, y fs.DirEntry) int { return strings.Compare(logTime(y.Name()), logTime(x.Name())) })
	for _, e := range entries[:min(len(entries), maxOperatorLog)] {
		if ctx.Err() != nil {
			return
		}
		if data, err := tail(filepath.Join(b.LogDir, e.Name())); err == nil {
			b.add("operator/logs/"+e.Name(), data)
		}
	}
}

// logTime is the time in the name of a run's log, "run-20260102T030405Z.log".
func logTime(name string) string { return name[strings.LastIndexByte(name, '-')+1:] }

// tail is the end of a file.
func tail(file string) (_ []byte, err error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.NewSectionReader(f, max(0, info.Size()-maxBundled-1), maxBundled+1))
}

// tailWriter keeps the end of what is written to it.
type tailWriter struct {
	data []byte
	cut  bool
}

func (t *tailWriter) Write(p []byte) (int, error) {
	t.data = append(t.data, p...)
	if over := len(t.data) - 2*maxBundled; over > 0 {
		t.data, t.cut = append([]byte(nil), t.data[len(t.data)-maxBundled:]...), true
	}
	return len(p), nil
}

// ask runs a command on a host and bundles what it says, and how it failed.
func (b *bundle) ask(ctx context.Context, h *runtime.Host, name string, c host.Command) {
	limited, cancel := context.WithTimeout(ctx, bundlePatience)
	defer cancel()
	var out tailWriter
	c.Stdout, c.Stderr = &out, &out
	err := h.Runner.Run(limited, c)
	if ctx.Err() != nil {
		return
	}
	text := out.data
	if err != nil {
		if exit, ok := errors.AsType[*host.ExitError](err); ok {
			text = append(text, fmt.Sprintf("\n(exit status %d)\n", exit.Code)...)
		} else {
			text = append(text, "\n("+err.Error()+")\n"...)
		}
	}
	if out.cut {
		text = bytes.TrimLeft(text, "\n")
	}
	b.add(name, text)
}
