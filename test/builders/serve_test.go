//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package builders

import (
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// lines keeps what a program writes, while it writes.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// process is a sealer that runs.
type process struct {
	*exec.Cmd
	stdout, stderr lines
	ended          chan error
}

func start(t *testing.T, args ...string) *process {
	t.Helper()
	p := &process{Cmd: exec.Command(programs["sealer"], args...), ended: make(chan error, 1)}
	p.Stdout, p.Stderr = &p.stdout, &p.stderr
	p.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(t, p.Start())
	go func() { p.ended <- p.Wait() }()
	t.Cleanup(func() { _ = p.Process.Kill() })
	return p
}

// says waits until the program has written text on stderr.
func (p *process) says(t *testing.T, text string) {
	t.Helper()
	require.Eventually(t, func() bool { return strings.Contains(p.stderr.String(), text) }, time.Minute, 20*time.Millisecond, "%q is not in: %s", text, &p.stderr)
}

func (p *process) end(t *testing.T) error {
	t.Helper()
	select {
	case err := <-p.ended:
		p.ended <- err
		return err
	case <-time.After(time.Minute):
		require.Fail(t, "it does not end", p.stderr.String())
		return nil
	}
}

// waiting is a Kubefile whose RUN ends when the file `go` is where it looks: two builds can then be seen to run at once.
func waiting(gate string) map[string]string {
	return map[string]string{"Kubefile": "FROM scratch\nRUN echo begun; until wget -q -O x " + gate + "; do sleep 0.1; done\n"}
}

// A second build waits for the first, says for whom, and then builds.
func TestBuild_TwoAtOnce(t *testing.T) {
	root, gate := t.TempDir(), newGate(t)
	one := start(t, "--root", root, "build", "--progress=plain", "-t", "one:v1", write(t, waiting(gate.url)))
	one.says(t, "begun")
	two := start(t, "--root", root, "build", "--progress=plain", "-t", "two:v1", write(t, map[string]string{"Kubefile": "FROM scratch\nCOPY a .\n", "a": "a"}))
	two.says(t, "waiting for another build")
	two.says(t, "sealer build -t docker.io/library/one:v1")
	gate.open()
	require.NoError(t, one.end(t), one.stderr.String())
	require.NoError(t, two.end(t), two.stderr.String())
	require.Contains(t, run(t, "sealer", "--root", root, "images"), "two:v1")
}

type status []struct {
	PID    int   `json:"pid"`
	Builds int   `json:"builds"`
	Cache  int64 `json:"cacheBytes"`
}

func builders(t *testing.T, root string) status {
	t.Helper()
	var s status
	require.NoError(t, json.Unmarshal([]byte(run(t, "sealer", "--root", root, "builder", "status", "-o", "json")), &s))
	return s
}

// One builder serves builds at once, gives what a build of its own gives, and ends when it is told to, or left alone.
func TestBuilder_Serve(t *testing.T) {
	root, gate := t.TempDir(), newGate(t)
	require.Empty(t, builders(t, root))
	run(t, "sealer", "--root", root, "builder", "stop") // there is none
	serving := start(t, "--root", root, "builder", "serve")
	serving.says(t, "serving builds")
	require.Len(t, builders(t, root), 1)
	info, err := os.Stat(filepath.Join(root, "build", "builder.sock"))
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o600), info.Mode().Perm())

	_, stderr, err := try(t, "sealer", "--root", root, "builder", "serve")
	require.Error(t, err)
	require.Contains(t, stderr, "is in use")
	require.Contains(t, stderr, "sealer builder serve")

	one := start(t, "--root", root, "build", "--progress=plain", "-t", "one:v1", write(t, waiting(gate.url)))
	two := start(t, "--root", root, "build", "--progress=plain", "-t", "two:v1", write(t, waiting(gate.url+"?two")))
	one.says(t, "begun")
	two.says(t, "begun")
	require.Equal(t, 2, builders(t, root)[0].Builds)
	require.Positive(t, builders(t, root)[0].PID)

	// It is told to end, and the builds do end.
	stopping := start(t, "--root", root, "builder", "stop")
	require.Eventually(t, func() bool { return len(builders(t, root)) == 0 }, time.Minute, 100*time.Millisecond, "it takes builds")
	gate.open()
	require.NoError(t, one.end(t), one.stderr.String())
	require.NoError(t, two.end(t), two.stderr.String())
	require.NoError(t, stopping.end(t), stopping.stderr.String())
	require.NoError(t, serving.end(t), serving.stderr.String())

	dir := write(t, map[string]string{"Kubefile": "FROM scratch\nCOPY . .\nRUN mkdir -p etc && date >etc/x && rm etc/x\n", "a": "a", "b/c": strings.Repeat("c", 1<<20)})
	here := run(t, "sealer", "--root", root, "build", "-t", "same:v1", dir)
	other := t.TempDir()
	again := start(t, "--root", other, "builder", "serve", "--idle", "1s")
	again.says(t, "serving builds")
	require.Equal(t, here, run(t, "sealer", "--root", other, "build", "-t", "same:v1", dir), "the same digest as in a process of its own")
	require.NoError(t, again.end(t), again.stderr.String())
	require.Empty(t, builders(t, other))
}

// A builder that is told to end now ends the builds, and leaves nothing.
func TestBuilder_StopNow(t *testing.T) {
	root, gate := t.TempDir(), newGate(t)
	serving := start(t, "--root", root, "builder", "serve")
	serving.says(t, "serving builds")
	one := start(t, "--root", root, "build", "--progress=plain", "-t", "one:v1", write(t, waiting(gate.url)))
	one.says(t, "begun")
	run(t, "sealer", "--root", root, "builder", "stop", "--now")
	require.Error(t, one.end(t))
	require.NoError(t, serving.end(t), serving.stderr.String())
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	require.NoError(t, err)
	require.NotContains(t, string(mounts), root)
	run(t, "sealer", "--root", root, "builder", "prune", "--all")
}
