// SPDX-License-Identifier: Apache-2.0

// Package journal writes down what a double was asked and what it did, a JSON object a line, for tests to read. No
// value of a secret gets into it.
package journal

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/sealerio/sealer/test/components/programs/doubles/stamp"
)

// Entry is one line. Event says which of the others are set.
type Entry struct {
	Time    time.Time `json:"time"`
	PID     int       `json:"pid"`
	Program string    `json:"program"`
	Version string    `json:"version"`
	// Event is run (an invocation), config (what a configuration file held), refused (what was not taken), upstream
	// (an image's own registry was to be asked), pulled, fatal, ready, removed (from the cluster), reset.
	Event string   `json:"event"`
	Args  []string `json:"args,omitempty"`
	// Environment are the names of the variables that the program knows, without their values.
	Environment []string `json:"environment,omitempty"`
	// SecretFlags are those of Args that held a secret: there should be none.
	SecretFlags []string `json:"secretFlags,omitempty"`
	File        string   `json:"file,omitempty"`
	Keys        []string `json:"keys,omitempty"`
	Unknown     []string `json:"unknown,omitempty"`
	Text        string   `json:"text,omitempty"`
}

// Journal appends entries to a file.
type Journal struct {
	path  string
	stamp stamp.Stamp
}

// New returns the journal of a program. Tests give it another folder than /var/log by DOUBLE_LOG.
func New(s stamp.Stamp) *Journal {
	dir := os.Getenv("DOUBLE_LOG")
	if dir == "" {
		dir = "/var/log"
	}
	return &Journal{path: dir + "/" + s.Program + "-double.jsonl", stamp: s}
}

// Add appends an entry. A journal that cannot be written does not stop the double: tests that read it will tell.
func (j *Journal) Add(e Entry) {
	e.Time, e.PID, e.Program, e.Version = time.Now().UTC(), os.Getpid(), j.stamp.Program, j.stamp.Version
	line, err := json.Marshal(e)
	if err != nil {
		return
	}
	f, err := os.OpenFile(j.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return
	}
	defer f.Close()
	_, _ = f.Write(append(line, '\n'))
}

// secretFlags are those whose values are never written.
func secretFlags() []string {
	return []string{"token", "t", "agent-token", "etcd-token", "new-token", "vpn-auth", "datastore-endpoint",
		"etcd-s3-secret-key", "etcd-s3-session-token", "s3-secret-key", "s3-session-token"}
}

// Run notes an invocation. Environment variables count whose names have one of the prefixes.
func (j *Journal) Run(args []string, prefixes ...string) {
	e := Entry{Event: "run"}
	e.Args, e.SecretFlags = redact(args)
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		if slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(name, p) }) {
			e.Environment = append(e.Environment, name)
		}
	}
	slices.Sort(e.Environment)
	j.Add(e)
}

func redact(args []string) (out, secrets []string) {
	out = slices.Clone(args)
	for i, a := range out {
		name, value, joined := strings.Cut(a, "=")
		flag := strings.TrimLeft(name, "-")
		if flag == name || !slices.Contains(secretFlags(), flag) {
			continue
		}
		switch {
		case joined && value != "":
			out[i] = name + "=…"
		case !joined && i+1 < len(out):
			out[i+1] = "…"
		}
		secrets = append(secrets, flag)
	}
	return out, secrets
}
