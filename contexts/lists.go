// SPDX-License-Identifier: Apache-2.0

package contexts

import (
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"strings"

	"github.com/sealerio/sealer/imagelist"
)

// known are lists of releases, by RUNTIME-VERSION.txt: what kubeadm config images list, k3s-images.txt and k0s airgap
// list-images say.
//
//go:embed known
var known embed.FS

// knownImages takes the list that came with this program, where there is one for the version.
func (p *plan) knownImages(k *kubefileData) error {
	data, err := fs.ReadFile(known, "known/"+p.o.Runtime+"-"+p.o.Version+".txt")
	if errors.Is(err, fs.ErrNotExist) {
		return &NoListError{Runtime: p.o.Runtime, Version: p.o.Version}
	}
	if err != nil {
		return err
	}
	return p.list(k, string(data), "known to this sealer")
}

// NoListError says that nobody can tell which images a version needs.
type NoListError struct{ Runtime, Version string }

func (e *NoListError) Error() string {
	return fmt.Sprintf("nothing here says which images %s %s needs", e.Runtime, e.Version)
}

// Hint says who can.
func (e *NoListError) Hint() string {
	switch e.Runtime {
	case "k3s":
		return "give --image-list FILE: k3s-images.txt of the release; or lay it, or k3s-airgap-images-ARCH.tar.zst, into the folder of --from"
	case "k0s":
		return "give --image-list FILE: what `k0s airgap list-images --all` prints with this version"
	default:
		return "give --image-list FILE: what `kubeadm config images list --kubernetes-version " + e.Version + "` prints with the kubeadm of this version"
	}
}

// takeList takes a list out of a file.
func (p *plan) takeList(k *kubefileData, file string) error {
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("reading the list of images: %w", err)
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.LimitReader(f, imagelist.MaxFile+1))
	if err != nil {
		return fmt.Errorf("reading the list of images: %w", err)
	}
	return p.list(k, string(text), file)
}

// list checks a list, and makes it the context's.
func (p *plan) list(k *kubefileData, text, from string) error {
	images, err := imagelist.ParseList(from, []byte(text))
	if err != nil {
		return fmt.Errorf("reading the list of images: %w", err)
	}
	if len(images) == 0 {
		return fmt.Errorf("reading the list of images: %s names none", from)
	}
	k.List, p.result.Images = true, from
	p.add("imageList", strings.TrimRight(text, "\n")+"\n")
	return nil
}

// versionError says that a version is none of a distribution.
type versionError struct{ Runtime, Text, Why string }

func (e *versionError) Error() string {
	if e.Text == "" {
		return fmt.Sprintf("a version of %s is needed: %s", e.Runtime, e.Why)
	}
	return fmt.Sprintf("%q is no version of %s", e.Text, e.Runtime)
}

func (e *versionError) Hint() string {
	return "write it whole, as in --version " + map[string]string{"k3s": "v1.36.1+k3s1", "k0s": "v1.36.3+k0s.2", "kubernetes": "v1.36.3"}[e.Runtime]
}

// checkVersion tells whether the version is one of the distribution, and can be installed.
func (p *plan) checkVersion() error {
	runtime, version := p.o.Runtime, p.o.Version
	ends := map[string]string{"k3s": `\+k3s\d+`, "k0s": `\+k0s\.\d+`, "kubernetes": ``}
	if ok, err := regexp.MatchString(`^v1\.\d+\.\d+(-[0-9A-Za-z.]+)?`+ends[runtime]+`$`, version); err != nil || !ok {
		return &versionError{Runtime: runtime, Text: version}
	}
	if p.o.Supported == nil {
		return nil
	}
	return p.o.Supported(runtime, version)
}
