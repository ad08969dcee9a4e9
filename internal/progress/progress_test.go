// SPDX-License-Identifier: Apache-2.0

package progress_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/moby/buildkit/client"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/internal/progress"
)

func TestDisplay_PlainShowsTasksOutputAndErrors(t *testing.T) {
	var screen bytes.Buffer
	d, err := progress.Open(&screen, progress.Plain, nil)
	require.NoError(t, err)

	ok := d.Task("[10.0.0.1] starting containerd")
	ok.Logf("socket is there")
	ok.Done(nil)
	bad := d.Task("[10.0.0.2] joining")
	bad.Done(errors.New("no route to host"))
	require.NoError(t, d.Close())

	got := screen.String()
	require.Contains(t, got, "[10.0.0.1] starting containerd")
	require.Contains(t, got, "socket is there")
	require.Contains(t, got, "ERROR: no route to host")
}

func TestDisplay_JSONCountsBytes(t *testing.T) {
	var screen bytes.Buffer
	d, err := progress.Open(&screen, progress.JSON, nil)
	require.NoError(t, err)
	task := d.Task("pull")
	c := task.Track("sha256:abc", 10)
	c.Advance(4)
	c.Advance(6)
	c.Done(nil)
	task.Done(nil)
	require.NoError(t, d.Close())

	var last int64
	dec := json.NewDecoder(&screen)
	for dec.More() {
		var st client.SolveStatus
		require.NoError(t, dec.Decode(&st))
		for _, s := range st.Statuses {
			last = s.Current
		}
	}
	require.EqualValues(t, 10, last)
}

func TestDisplay_PlainSumsCountersUp(t *testing.T) {
	var screen bytes.Buffer
	d, err := progress.Open(&screen, progress.Plain, nil)
	require.NoError(t, err)
	task := d.Task("pull")
	for range 50 {
		c := task.Track("sha256:abc", 1000)
		c.Advance(1000)
		c.Done(nil)
	}
	task.Done(nil)
	require.NoError(t, d.Close())
	require.Equal(t, 1, strings.Count(screen.String(), "transferred"))
	require.Contains(t, screen.String(), "50.00kB / 50.00kB")
}

func TestDisplay_ManyAtOnceAndLateEvents(t *testing.T) {
	var screen bytes.Buffer
	d, err := progress.Open(&screen, progress.Plain, nil)
	require.NoError(t, err)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			task := d.Task("work")
			task.Track("blob", 1).Advance(1)
			task.Done(nil)
		})
	}
	ch := d.Solve()
	ch <- &client.SolveStatus{}
	close(ch)
	wg.Wait()
	late := d.Task("late")
	require.NoError(t, d.Close())
	late.Done(nil) // must neither block nor panic
	require.NoError(t, d.Close())
}

func TestDisplay_NilShowsNothing(t *testing.T) {
	var d *progress.Display
	task := d.Task("x")
	task.Logf("y")
	task.Track("z", 1).Advance(1)
	task.Cached()
	task.Done(nil)
	ch := d.Solve()
	ch <- &client.SolveStatus{}
	close(ch)
	require.NoError(t, d.Close())
}

func TestDisplay_KeepsEverythingInTheLog(t *testing.T) {
	var log bytes.Buffer
	d, err := progress.Open(&bytes.Buffer{}, progress.None, slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	require.NoError(t, err)
	task := d.Task("kubeadm init")
	task.Logf("[certs] generating")
	task.Done(errors.New("exit status 1"))
	require.NoError(t, d.Close())
	require.Contains(t, log.String(), "[certs] generating")
	require.Contains(t, log.String(), "exit status 1")
}

func TestOpen_UnknownMode(t *testing.T) {
	_, err := progress.Open(&bytes.Buffer{}, "fancy", nil)
	require.EqualError(t, err, `progress mode "fancy" is not one of auto, tty, plain, json, none`)
}
