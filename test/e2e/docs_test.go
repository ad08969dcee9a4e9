//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/test/lab"
	"github.com/sealerio/sealer/test/testregistry"
)

// docsRoot is where the sealer of the documents' commands keeps what it has.
const docsRoot = "docs"

// What the documents tell their readers to type works, in the order in which it
// stands there; what they show as files is what sealer reads.
func TestDocs(t *testing.T) {
	dropAfter(t, docsRoot)
	_, err := shared.BuildBase(t.Context(), docsRoot)
	require.NoError(t, err)
	sealer(t, docsRoot, "tag", shared.BaseImage(), shared.Registry+"/kubernetes:"+lab.KubernetesVersion)
	require.NoError(t, shared.TrustHosts(docsRoot))
	bin := writeWrapper(t)

	pages := []string{"README.md", "CONTRIBUTING.md", "rootfs-templates/kubernetes/README.md"}
	more, err := filepath.Glob(filepath.Join(shared.Source, "docs", "*.md"))
	require.NoError(t, err)
	require.NotEmpty(t, more)
	for _, path := range more {
		pages = append(pages, filepath.Join("docs", filepath.Base(path)))
	}
	for _, name := range pages {
		t.Run(name, func(t *testing.T) {
			p := page{name: name, dir: contextFor(t, name), bin: bin}
			for _, b := range blocks(t, name) {
				p.check(t, b)
			}
		})
	}
}

// contextFor is the folder that a reader of the page is in.
func contextFor(t *testing.T, name string) string {
	t.Helper()
	root := "docs-" + strings.ReplaceAll(name, "/", "-")
	dropAfter(t, root)
	dir := filepath.Join(shared.Dir, root)
	switch name {
	case "rootfs-templates/kubernetes/README.md":
		require.NoError(t, shared.WriteBase(dir))
		require.NoError(t, os.Remove(filepath.Join(dir, "imageList"))) // the reader makes it
		require.NoError(t, os.WriteFile(filepath.Join(dir, "flannel.yaml"), nil, 0o600))
	case "docs/configuration.md": // its images are there
		_, err := shared.BuildShop(t.Context(), docsRoot)
		require.NoError(t, err)
		fallthrough
	default:
		require.NoError(t, shared.WriteShop(dir))
	}
	return dir
}

// wrapper is the sealer of the documents: with the lab's folder and mirrors,
// and with what the lab's hosts need in a run.
const wrapper = `#!/bin/sh
export SEALER_ROOT='%s' SEALER_CONFIG='%s'
case $1 in
run|gen) set -- "$@" -f '%s' --progress plain ;;
esac
exec '%s' "$@"
`

// writeWrapper returns the folder that goes in front of PATH.
func writeWrapper(t *testing.T) string {
	t.Helper()
	file, err := shared.WriteClusterfile("my-cluster") // sealer's default, since the pages name none
	require.NoError(t, err)
	bin := t.TempDir()
	text := fmt.Appendf(nil, wrapper, filepath.Join(shared.Dir, docsRoot), shared.ConfigFile(), file, shared.Sealer())
	require.NoError(t, os.WriteFile(filepath.Join(bin, "sealer"), text, 0o700))
	return bin
}

// block is what stands between two fences.
type block struct {
	line           int // of the opening fence
	language, text string
}

// blocks are the fenced blocks of a page of the checkout.
func blocks(t *testing.T, name string) []block {
	t.Helper()
	src, err := os.ReadFile(filepath.Join(shared.Source, name))
	require.NoError(t, err)
	var found []block
	open, number := false, 0
	for line := range strings.Lines(string(src)) {
		number++
		language, fence := strings.CutPrefix(strings.TrimSpace(line), "```")
		switch {
		case fence && !open:
			found = append(found, block{line: number, language: language})
			open = true
		case fence:
			open = false
		case open:
			found[len(found)-1].text += line
		}
	}
	require.False(t, open, "%s: a fence is not closed", name)
	return found
}

// page is a document that is followed.
type page struct{ name, dir, bin string }

func (p page) check(t *testing.T, b block) {
	t.Helper()
	t.Logf("%s:%d", p.name, b.line)
	switch b.language {
	case "":
	case "sh":
		if onlyMake(b.text) {
			checkTargets(t, b.text)
			return
		}
		p.execute(t, b.text)
	case "yaml", "json": // JSON is YAML
		p.parse(t, b.text)
	case "dockerfile":
		p.build(t, b.text)
	default:
		t.Errorf("%s:%d: nobody checks %q", p.name, b.line, b.language)
	}
}

func onlyMake(text string) bool {
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "make ") {
			return false
		}
	}
	return true
}

// checkTargets looks that the Makefile has the targets, with a help text; CI runs them.
func checkTargets(t *testing.T, text string) {
	t.Helper()
	makefile, err := os.ReadFile(filepath.Join(shared.Source, "Makefile"))
	require.NoError(t, err)
	for line := range strings.Lines(text) {
		target := strings.TrimSpace(strings.TrimPrefix(line, "make "))
		require.Regexp(t, `(?m)^`+regexp.QuoteMeta(target)+`:.*## \S`, string(makefile))
		cmd := exec.CommandContext(t.Context(), "make", "-n", target)
		cmd.Dir = shared.Source
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, string(out))
	}
}

// execute runs the lines as a reader does, and looks at the cluster that they made or deleted.
func (p page) execute(t *testing.T, text string) {
	t.Helper()
	require.NotContains(t, text, "example.com", "a reader's registry is $REGISTRY")
	hosts := shared.Hosts.Hosts
	var output bytes.Buffer
	cmd := exec.CommandContext(t.Context(), "sh", "-eux")
	cmd.Stdin, cmd.Dir = strings.NewReader(text), p.dir
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.Env = append(os.Environ(),
		"PATH="+strings.Join([]string{p.bin, filepath.Join(shared.Components, "bin"), os.Getenv("PATH")}, ":"),
		"REGISTRY="+shared.Registry, "PROGRAMS="+shared.Components, "KEY="+shared.Hosts.KeyFile,
		"CONTROL_PLANE="+hosts[0].Address.String(), "WORKER="+hosts[1].Address.String())
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = time.Minute
	if strings.Contains(text, "sealer run ") {
		t.Cleanup(func() { deleteIfFailed(t) })
	}
	require.NoError(t, cmd.Run(), "%s", &output)

	switch {
	case strings.Contains(text, "sealer run "):
		require.NoError(t, shared.WaitForNodes(t.Context(), len(hosts), 2*time.Minute))
	case strings.Contains(text, "sealer delete "):
		_, err := hosts[0].Exec(t.Context(), "test", "!", "-e", "/etc/kubernetes")
		require.NoError(t, err, "the cluster is still there")
	}
}

// deleteIfFailed takes the cluster away where the page did not come to its end: other tests want the hosts.
func deleteIfFailed(t *testing.T) {
	t.Helper()
	if !t.Failed() {
		return
	}
	_, err := shared.Run(context.WithoutCancel(t.Context()), docsRoot, "delete", "--all", "--yes", "--pk", shared.Hosts.KeyFile)
	t.Log("deleting the cluster of a page that failed:", err)
}

// parse reads a sample: of any YAML, and as the program does that it is for.
func (p page) parse(t *testing.T, text string) {
	t.Helper()
	for decoder := yaml.NewDecoder(strings.NewReader(text)); ; {
		var document map[string]any
		err := decoder.Decode(&document)
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		require.NotEmpty(t, document)
	}
	switch {
	case strings.Contains(text, "registryMirrors:"):
		file := filepath.Join(t.TempDir(), "config.yaml")
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
		sealer(t, docsRoot, "images", "--config", file)
	case strings.Contains(text, "apiVersion: sealer.io/"):
		if !strings.Contains(text, "kind: Cluster\n") { // a document to add to a Clusterfile
			text = "apiVersion: sealer.io/v2\nkind: Cluster\nmetadata: {name: x}\n" +
				"spec: {hosts: [{ips: [10.0.0.1], roles: [master]}, {ips: [10.0.0.7], roles: [node]}]}\n---\n" + text
		}
		file := filepath.Join(t.TempDir(), "Clusterfile")
		require.NoError(t, os.WriteFile(file, []byte(secrets(t, text)), 0o600))
		// The file is read, and found to be right, before the image is looked for.
		none := shared.Registry + "/sealer/none:1"
		_, stderr, code := runAny(t, docsRoot, "run", none, "-f", file)
		require.Equal(t, 1, code)
		require.Contains(t, stderr, none)
		require.NotContains(t, stderr, file)
	}
}

// secrets gives a sample what it takes from the environment and from files: passwords, and a CA with its key.
func secrets(t *testing.T, text string) string {
	t.Helper()
	for _, found := range regexp.MustCompile(`env:([A-Z_]+)`).FindAllStringSubmatch(text, -1) {
		t.Setenv(found[1], "of the samples")
	}
	dir := t.TempDir()
	authority, key, err := testregistry.SelfSigned("127.0.0.1:0", "")
	require.NoError(t, err)
	return regexp.MustCompile(`file:/[^\s,}]+`).ReplaceAllStringFunc(text, func(found string) string {
		file := filepath.Join(dir, filepath.Base(found))
		content := []byte("of the samples")
		switch filepath.Ext(file) {
		case ".crt":
			content = authority
		case ".key":
			content = key
		}
		require.NoError(t, os.WriteFile(file, content, 0o600))
		return "file:" + file
	})
}

// build builds a Kubefile, with the lab's registry for the one in the sample.
func (p page) build(t *testing.T, text string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "Kubefile")
	text = strings.ReplaceAll(text, "registry.example.com", shared.Registry)
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	sealer(t, docsRoot, "build", "-t", "docs.example/sample:v1", "-f", file, p.dir)
}
