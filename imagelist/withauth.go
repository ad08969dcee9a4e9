// SPDX-License-Identifier: Apache-2.0

package imagelist

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"github.com/distribution/reference"
	"go.yaml.in/yaml/v3"

	"github.com/sealerio/sealer/internal/secret"
)

// Login is the account that a list with credentials has for some repositories of a registry.
type Login struct {
	Host         string
	Repositories []string // without the host
	Username     string
	Password     secret.Text
}

type section struct {
	Registry string      `yaml:"registry"`
	Username string      `yaml:"username"`
	Password secret.Text `yaml:"password"`
	Images   []yaml.Node `yaml:"images"`
}

// ParseListWithAuth reads a list as sealer's --image-list-with-auth has it: a YAML list of sections, each with a registry, a
// username, a password and images. An image without a host is one of the section's registry. No error shows what stands in
// the file beside images, for that may be a password.
func ParseListWithAuth(file string, src []byte) ([]Image, []Login, error) {
	if len(src) > MaxFile {
		return nil, nil, tooLarge(file, int64(len(src)))
	}
	var sections []section
	dec := yaml.NewDecoder(bytes.NewReader(src))
	dec.KnownFields(true)
	if err := dec.Decode(&sections); err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, fmt.Errorf("reading %q: %w", file, authSyntax(err))
	}
	var images []Image
	var logins []Login
	var errs Errors
	for i, s := range sections {
		if s.Registry == "" || s.Username == "" || s.Password == "" {
			return nil, nil, fmt.Errorf("reading %q: section %d needs a registry, a username and a password", file, i+1)
		}
		login := Login{Host: strings.TrimSuffix(s.Registry, "/"), Username: s.Username, Password: s.Password}
		for _, node := range s.Images {
			name, err := Normalize(withHost(node.Value, login.Host))
			var repository string
			if err == nil {
				repository, err = repositoryOf(name, login.Host)
			}
			if err != nil {
				errs = append(errs, &PositionError{File: file, Line: node.Line, Text: node.Value, Err: err}) // the line may hold a password, too
				continue
			}
			if !slices.Contains(login.Repositories, repository) {
				login.Repositories = append(login.Repositories, repository)
			}
			images = append(images, Image{Name: name, Origins: []Origin{{File: file, Line: node.Line}}})
		}
		logins = append(logins, login)
	}
	if len(errs) > 0 {
		return nil, nil, errs
	}
	return Merge(images), logins, nil
}

// withHost completes a reference without a host by the section's.
func withHost(ref, host string) string {
	first, _, found := strings.Cut(ref, "/")
	if found && (strings.ContainsAny(first, ".:") || first == "localhost") {
		return ref
	}
	return host + "/" + ref
}

func repositoryOf(name, host string) (string, error) {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return "", err
	}
	if reference.Domain(named) != host && (host != "index.docker.io" || reference.Domain(named) != "docker.io") {
		return "", &lineError{
			fmt.Sprintf("the image is of %s, the section's registry is %s", reference.Domain(named), host),
			"give it a section of its own",
		}
	}
	return reference.Path(named), nil
}

// authSyntax keeps of the YAML library's message the line alone.
func authSyntax(err error) error {
	if m := regexp.MustCompile(`line (\d+)`).FindStringSubmatch(err.Error()); m != nil {
		return &lineError{"line " + m[1] + " is not as expected", authHint}
	}
	return &lineError{"it is not as expected", authHint}
}

const authHint = "the file is a YAML list of sections with registry, username, password and images"
