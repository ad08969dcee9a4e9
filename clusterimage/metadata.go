// SPDX-License-Identifier: Apache-2.0

package clusterimage

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
)

// SchemaVersion is the version of the documents that this package writes, and
// the only one that it reads.
const SchemaVersion = "v1"

// Image types, the values of Extension.Type.
const (
	KubeInstaller = "kube-installer"
	AppInstaller  = "app-installer"
)

// Metadata is the file "Metadata" at the root of a rootfs; its ClusterRuntime
// picks the distribution at run time.
type Metadata struct {
	Version               string `json:"version"`
	Arch                  string `json:"arch"`
	Variant               string `json:"variant"`
	ClusterRuntime        string `json:"clusterRuntime"`
	KubeVersion           string `json:"kubeVersion"`
	ClusterRuntimeVersion string `json:"clusterRuntimeVersion"`
	ContainerRuntime      string `json:"containerRuntime"`
}

// maxMetadata bounds the file, in bytes.
const maxMetadata = 64 << 10

// ParseMetadata reads the file strictly: an unknown key, text after the object
// and more than 64 KiB are errors.
func ParseMetadata(data []byte) (Metadata, error) {
	var m Metadata
	if len(data) > maxMetadata {
		return m, fmt.Errorf("reading Metadata: it has %d bytes, more than %d", len(data), maxMetadata)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&m); err != nil {
		return Metadata{}, fmt.Errorf("reading Metadata: %w", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return Metadata{}, fmt.Errorf("reading Metadata: there is text after the JSON object")
	}
	return m, nil
}

// Marshal gives the bytes of the file, the same for the same values, with a
// newline at the end.
func (m Metadata) Marshal() []byte { return mustJSON(m) }

// Extension is the structured part of a rootfs' config, kept as JSON in
// LabelExtension.
type Extension struct {
	SchemaVersion string            `json:"schemaVersion"`
	Type          string            `json:"type,omitempty"`
	Applications  []Application     `json:"applications,omitempty"`
	Launch        Launch            `json:"launch,omitzero"`
	Env           map[string]string `json:"env,omitempty"`
	Base          *Base             `json:"base,omitempty"`
	// Clusterfiles are the default Clusterfiles of the image and, before it, of its bases, with their plugins. Each goes
	// over the one before it, and the user's over the last.
	Clusterfiles []string `json:"clusterfiles,omitempty"`
	// RegistryTree is set where the rootfs is of an older tool, or built from one.
	RegistryTree *RegistryTree `json:"registryTree,omitempty"`
}

// Application is something the image can launch by name. Its files are below
// ApplicationDir of its name.
type Application struct {
	Name    string            `json:"name"`
	Type    string            `json:"type,omitempty"` // kube, helm, shell; empty: Cmds say how it is launched
	Version string            `json:"version,omitempty"`
	Files   []string          `json:"files,omitempty"` // what is launched, relative to its folder, in order
	Env     map[string]string `json:"env,omitempty"`   // goes over the image's; the Clusterfile's goes over it
	Cmds    []string          `json:"cmds,omitempty"`  // in place of what the type would do; shell text, run in its folder
}

// Launch is what runs on the first control plane once the cluster is up.
type Launch struct {
	Cmds     []string `json:"cmds,omitempty"`     // shell text, run in the root of the rootfs
	AppNames []string `json:"appNames,omitempty"` // the applications that are started, in order
	// After is how many of Cmds run before the applications, the others behind
	// them: a base's commands go before those of what is built on it.
	After int `json:"after,omitempty"`
}

// Base is the ClusterImage that this one was built from.
type Base struct {
	Name   string `json:"name"`
	Digest string `json:"digest"`
}

// SchemaVersionError says that a document was written by another version.
type SchemaVersionError struct {
	Document, Version string
}

func (e *SchemaVersionError) Error() string {
	return fmt.Sprintf("%s has schemaVersion %q, this version of sealer reads %q", e.Document, e.Version, SchemaVersion)
}

// Hint tells the user what to do.
func (e *SchemaVersionError) Hint() string {
	return "use the version of sealer that built the image, or a later one (sealer inspect shows label " + LabelVersion + ")"
}

// ParseExtension reads LabelExtension. Unknown keys are ignored; another
// schemaVersion is a *SchemaVersionError.
func ParseExtension(data []byte) (Extension, error) {
	var e Extension
	if err := json.Unmarshal(data, &e); err != nil {
		return Extension{}, fmt.Errorf("reading label %s: %w", LabelExtension, err)
	}
	if e.SchemaVersion != SchemaVersion {
		return Extension{}, &SchemaVersionError{Document: "label " + LabelExtension, Version: e.SchemaVersion}
	}
	return e, nil
}

// Marshal gives the value of LabelExtension, the same for the same values.
// SchemaVersion is filled in.
func (e Extension) Marshal() []byte {
	e.SchemaVersion = SchemaVersion
	return bytes.TrimRight(mustJSON(e), "\n")
}

// mustJSON encodes documents made of strings, numbers, slices and maps, for
// which encoding/json has no error to give. Maps come out sorted.
func mustJSON(v any) []byte {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(fmt.Sprintf("clusterimage: encoding %T: %v", v, err))
	}
	return buf.Bytes()
}
