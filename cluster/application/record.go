// SPDX-License-Identifier: Apache-2.0

// Package application is what a cluster keeps of its applications: which there are, what they have made, how their
// workloads are, and what goes with them. It asks the Kubernetes API; what is done to hosts is package cluster's.
package application

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/sealerio/sealer/cluster/kube"
	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/host"
)

// What runs on a cluster is kept in the cluster: a Secret for each application. It is where the objects are that it speaks
// of, comes back with them from a snapshot, and outlives every single host and the operator's machine. A Secret and no
// ConfigMap, since variables of applications may be passwords.
const (
	recordNamespace = "kube-system"
	recordPrefix    = "sealer-application."
	recordLabel     = "sealer.io/application"
	recordKey       = "record.json"
	recordVersion   = "v1"
)

// maxRecord is what a Secret may hold: https://kubernetes.io/docs/concepts/configuration/secret/#restriction-data-size.
const maxRecord = 1 << 20

// Record is what is kept of an application.
type Record struct {
	SchemaVersion string `json:"schemaVersion"`
	Name          string `json:"name"`
	Image         string `json:"image"`
	Digest        string `json:"digest"`
	// OfCluster: it was launched with the cluster's own image.
	OfCluster bool `json:"ofCluster,omitempty"`
	// Declared: a Clusterfile has named it, and an apply of one that does not takes it away.
	Declared bool      `json:"declared,omitempty"`
	Begun    time.Time `json:"begun"`          // the launch of this image
	Ended    time.Time `json:"ended,omitzero"` // zero: it has not come to its end
	Deleting bool      `json:"deleting,omitempty"`
	// Applications are the ones of the image that are launched.
	Applications []string  `json:"applications,omitempty"`
	Settings     Settings  `json:"settings,omitzero"`
	Done         []string  `json:"done,omitempty"` // keys of the commands that went through, of this image
	Objects      []Object  `json:"objects,omitempty"`
	Releases     []Release `json:"releases,omitempty"`
	// Versions are all images of it of which the hosts may have something.
	Versions []Version `json:"versions,omitempty"`
	// Former is what runs, or ran, while an upgrade has not come to its end.
	Former *Version `json:"former,omitempty"`

	// made is when the Secret was, by the API server's clock: what is older was there before the application.
	made time.Time
}

// Version is an image of an application.
type Version struct {
	Image  string `json:"image"`
	Digest string `json:"digest"`
}

// Settings are what the user said beside the image.
type Settings struct {
	Env          map[string]string         `json:"env,omitempty"`
	Apps         []string                  `json:"apps"` // an empty list is another thing than none
	Cmd          []string                  `json:"cmd"`
	Applications []clusterfile.Application `json:"applications,omitempty"`
	Configs      []clusterfile.Config      `json:"configs,omitempty"`
}

// SettingsOf are those of a Clusterfile.
func SettingsOf(f *clusterfile.File) Settings {
	configs := slices.DeleteFunc(slices.Clone(f.Configs), func(c clusterfile.Config) bool { return c.App == "" })
	return Settings{f.Env, f.Apps, f.Cmd, f.Applications, configs}
}

// File has the settings in a Clusterfile's form.
func (s Settings) File() *clusterfile.File {
	return &clusterfile.File{Env: s.Env, Apps: s.Apps, Cmd: s.Cmd, Applications: s.Applications, Configs: s.Configs}
}

// The values of Record.Origin: with an image of its own, or with the cluster's.
const (
	OriginImage   = "image"
	OriginCluster = "cluster"
)

// Origin tells with which image it came.
func (a *Record) Origin() string {
	if a.OfCluster {
		return OriginCluster
	}
	return OriginImage
}

// secretName is that of the Secret. Applications of a cluster's image may have names that Secrets must not have.
func (a *Record) secretName() string {
	name := a.Name
	if !clusterfile.IsApplicationName(name) {
		sum := sha256.Sum256([]byte(name))
		name = hex.EncodeToString(sum[:10])
	}
	return recordPrefix + a.Origin() + "." + name
}

// Complete tells whether its launch has come to its end.
func (a *Record) Complete() bool { return !a.Ended.IsZero() && !a.Deleting }

// recordSecret is what is read and written of Secret (v1).
type recordSecret struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name              string            `json:"name"`
		Namespace         string            `json:"namespace"`
		Labels            map[string]string `json:"labels,omitempty"`
		CreationTimestamp *time.Time        `json:"creationTimestamp,omitempty"`
	} `json:"metadata"`
	Type string            `json:"type"`
	Data map[string][]byte `json:"data"`
}

func (s recordSecret) record() (*Record, error) {
	var a Record
	if err := json.Unmarshal(s.Data[recordKey], &a); err != nil {
		return nil, fmt.Errorf("reading the record of an application in the Secret %s/%s: %w", recordNamespace, s.Metadata.Name, err)
	}
	if a.SchemaVersion != recordVersion {
		return nil, &recordVersionError{name: s.Metadata.Name, version: a.SchemaVersion}
	}
	if s.Metadata.CreationTimestamp != nil {
		a.made = *s.Metadata.CreationTimestamp
	}
	return &a, nil
}

// recordVersionError is a record of another sealer.
type recordVersionError struct{ name, version string }

func (e *recordVersionError) Error() string {
	return fmt.Sprintf("the Secret %s/%s has schemaVersion %q, this sealer reads %q", recordNamespace, e.name, e.version, recordVersion)
}

// Hint says which sealer reads it.
func (e *recordVersionError) Hint() string {
	return "use the sealer that installed the application, or a later one"
}

// Inventory is what the cluster keeps of its applications.
type Inventory struct{ kube.API }

// Records are those of all applications, by name.
func (a Inventory) Records(ctx context.Context) ([]*Record, error) {
	c := a.Kubectl.Command("get", "secrets", "--namespace", recordNamespace, "--selector", recordLabel, "--output", "json", "--request-timeout", "30s")
	c.Secret = true // its output is kept out of errors
	data, err := host.Output(ctx, a.Cluster.Server().Runner, c)
	if err != nil {
		return nil, fmt.Errorf("reading which applications there are: %w", err)
	}
	var list struct{ Items []recordSecret }
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, fmt.Errorf("reading which applications there are: %w", err)
	}
	var all []*Record
	for _, s := range list.Items {
		r, err := s.record()
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	slices.SortFunc(all, func(x, y *Record) int { return strings.Compare(x.Name, y.Name) })
	return all, nil
}

// Keep writes the record, as a whole.
func (a Inventory) Keep(ctx context.Context, rec *Record) error {
	rec.SchemaVersion = recordVersion
	data, err := json.Marshal(rec)
	if err == nil && len(data) > maxRecord {
		err = fmt.Errorf("it takes %d bytes, a Secret holds %d", len(data), maxRecord)
	}
	if err != nil {
		return fmt.Errorf("keeping the record of the application %q: %w", rec.Name, err)
	}
	s := recordSecret{APIVersion: "v1", Kind: "Secret", Type: "sealer.io/application", Data: map[string][]byte{recordKey: data}}
	s.Metadata.Name, s.Metadata.Namespace = rec.secretName(), recordNamespace
	s.Metadata.Labels = map[string]string{recordLabel: rec.Origin(), "app.kubernetes.io/managed-by": "sealer"}
	text, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("keeping the record of the application %q: %w", rec.Name, err)
	}
	c := a.Kubectl.Command("apply", "--server-side", "--force-conflicts", "--field-manager", "sealer", "--filename", "-", "--output", "json")
	c.Stdin, c.Secret, c.Mutates = bytes.NewReader(text), true, true
	answer, err := host.Output(ctx, a.Cluster.Server().Runner, c)
	if err != nil {
		return fmt.Errorf("keeping the record of the application %q: %w", rec.Name, err)
	}
	var kept recordSecret
	if err := json.Unmarshal(answer, &kept); err != nil {
		return fmt.Errorf("keeping the record of the application %q: %w", rec.Name, err)
	}
	if kept.Metadata.CreationTimestamp != nil {
		rec.made = *kept.Metadata.CreationTimestamp
	}
	return nil
}

// Forget deletes the record.
func (a Inventory) Forget(ctx context.Context, log io.Writer, rec *Record) error {
	return a.Change(ctx, log, "delete", "secret", rec.secretName(), "--namespace", recordNamespace, "--ignore-not-found")
}

// SecretValues are the variables in the Secret of a record whose names say that they are secret.
func SecretValues(data map[string][]byte) []string {
	var r Record
	if json.Unmarshal(data[recordKey], &r) != nil {
		return nil
	}
	envs := []map[string]string{r.Settings.Env}
	for _, a := range r.Settings.Applications {
		envs = append(envs, a.Env)
	}
	var all []string
	for _, env := range envs {
		for name, value := range env {
			lower := strings.ToLower(name)
			if slices.ContainsFunc([]string{"pass", "secret", "token", "key", "credential"}, func(s string) bool { return strings.Contains(lower, s) }) {
				all = append(all, value)
			}
		}
	}
	return all
}
