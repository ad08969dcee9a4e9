// SPDX-License-Identifier: Apache-2.0

package contexts

import (
	_ "embed"
	"fmt"
	"strings"
	"text/template"
)

// kubefileData is what the Kubefile of a base image is made of.
type kubefileData struct {
	Runtime, Version string
	Arches           []string
	// Stages download; none: the programs lie in a folder for each architecture.
	Stages []stage
	// ListCommand prints the list of images while the image is built; "": List says that there is one in the context.
	ListCommand string
	List        bool
	// Folders and Archives say that there are such folders for each architecture, and that each has a list of its own.
	Folders, Archives bool
}

// stage downloads for one architecture.
type stage struct {
	Arch   string
	Assets []asset
}

// Pinned says whether all checksums are known.
func (s stage) Pinned() bool {
	for _, a := range s.Assets {
		if a.Checksum == "" {
			return false
		}
	}
	return true
}

//go:embed Kubefile.tmpl
var kubefileText string

func (k kubefileData) render() (string, error) {
	t, err := template.New("Kubefile").Option("missingkey=error").Parse(kubefileText)
	if err != nil {
		return "", fmt.Errorf("reading the template of the Kubefile: %w", err)
	}
	var out strings.Builder
	if err := t.Execute(&out, k); err != nil {
		return "", fmt.Errorf("writing the Kubefile: %w", err)
	}
	return out.String(), nil
}
