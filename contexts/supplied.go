// SPDX-License-Identifier: Apache-2.0

package contexts

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	goruntime "runtime"
	"slices"
	"strings"

	"github.com/sealerio/sealer/imagelist"
)

// wanted is a program that a distribution needs.
type wanted struct {
	name string
	// released are names that it has in releases, with the architecture; patterns, where the version is not known.
	released func(version, arch string) []string
	// version are the arguments that print its version; nil: it is not asked.
	version []string
	// own says that its version is the distribution's.
	own bool
}

func programs(runtime string) []wanted {
	switch runtime {
	case "k3s":
		return []wanted{{name: "k3s", version: []string{"--version"}, own: true, released: func(_, arch string) []string {
			return []string{path.Base(k3sAsset(arch))}
		}}}
	case "k0s":
		return []wanted{{name: "k0s", version: []string{"version"}, own: true, released: func(version, arch string) []string {
			return []string{"k0s-" + cmp.Or(version, "v*") + "-" + arch, "k0s-" + arch}
		}}}
	default:
		return []wanted{
			{name: "kubeadm", version: []string{"version", "-o", "short"}, own: true},
			{name: "kubelet", version: []string{"--version"}, own: true},
			{name: "kubectl", version: []string{"version", "--client"}, own: true},
			{name: "containerd", version: []string{"--version"}},
			{name: "containerd-shim-runc-v2"}, {name: "ctr"},
			{name: "runc", released: func(_, arch string) []string { return []string{"runc." + arch} }},
			{name: "crictl"},
		}
	}
}

// MissingError lists what a folder of programs lacks.
type MissingError struct {
	Dir   string
	Files []string
}

func (e *MissingError) Error() string {
	return fmt.Sprintf("%q has no %s", e.Dir, strings.Join(e.Files, ", no "))
}

// Hint says where programs are looked for.
func (e *MissingError) Hint() string {
	return "programs are looked for in ARCH/bin, ARCH, bin and the folder itself, also by the names that releases give them"
}

// supplied takes programs and images out of the folder From.
func (p *plan) supplied(ctx context.Context, k *kubefileData) error {
	p.links = map[string]program{}
	var missing []string
	var errs []error
	for _, arch := range p.arches {
		for _, w := range programs(p.o.Runtime) {
			file, err := p.find(w, arch)
			if errors.Is(err, fs.ErrNotExist) {
				missing = append(missing, w.name+" for "+arch)
				continue
			}
			if err == nil {
				err = p.take(ctx, w, arch, file)
			}
			errs = append(errs, err)
		}
		if p.o.Runtime == "kubernetes" {
			errs = append(errs, p.plugins(arch))
		}
	}
	if len(missing) > 0 {
		errs = append(errs, &MissingError{Dir: p.o.From, Files: missing})
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if p.o.Version == "" {
		return &versionError{Runtime: p.o.Runtime, Text: "", Why: "no program here is for this machine, so none can be asked"}
	}
	if err := p.checkVersion(); err != nil {
		return err
	}
	if p.o.Runtime == "k3s" {
		p.installScript()
	}
	k.Folders = true
	return p.suppliedImages(ctx, k)
}

// find looks for a program for an architecture. The error is fs.ErrNotExist where no file has its name.
func (p *plan) find(w wanted, arch string) (string, error) {
	var candidates []string
	for _, folder := range []string{path.Join(arch, "bin"), arch} {
		candidates = append(candidates, path.Join(folder, w.name))
	}
	if w.released != nil {
		for _, name := range w.released(p.o.Version, arch) {
			if name != w.name {
				candidates = append(candidates, name, path.Join("bin", name))
			}
		}
	}
	candidates = append(candidates, path.Join("bin", w.name), w.name)
	err := fs.ErrNotExist
	for _, name := range candidates {
		files, globErr := fs.Glob(os.DirFS(p.o.From), name)
		if globErr != nil {
			return "", fmt.Errorf("looking for %q: %w", name, globErr)
		}
		for _, found := range files {
			file := filepath.Join(p.o.From, filepath.FromSlash(found))
			info, statErr := os.Stat(file)
			if statErr != nil || !info.Mode().IsRegular() {
				continue
			}
			wrong := checkArch(file, arch)
			if wrong == nil {
				return file, nil
			}
			err = wrong
		}
	}
	return "", err
}

// take puts a program into the context, and what it links to beside itself.
func (p *plan) take(ctx context.Context, w wanted, arch, file string) error {
	version := ""
	if w.version != nil {
		var err error
		if version, err = versionOf(ctx, file, arch, w.version); err != nil {
			return err
		}
	}
	switch {
	case version == "":
		if w.own && arch != goruntime.GOARCH {
			p.note("%s is for %s, and so was not asked for its version", file, arch)
		}
	case w.own && p.o.Version == "":
		p.o.Version = version
	case w.own && version != p.o.Version:
		return fmt.Errorf("%q is %s, not %s", file, version, p.o.Version)
	case w.name == "containerd" && !strings.HasPrefix(version, "v1.7.") && !strings.HasPrefix(version, "v2."):
		return fmt.Errorf("%q is %s: containerd 1.7 or 2 is needed", file, version)
	}
	return p.link(path.Join(arch, "bin", w.name), file)
}

// link takes a file; a link to a file beside it stays one, as where many programs are one.
func (p *plan) link(name, file string) error {
	aim, err := os.Readlink(file)
	if err != nil || strings.ContainsRune(aim, filepath.Separator) || path.Base(file) != path.Base(name) {
		p.links[name] = program{path: file, mode: 0o755}
		return nil
	}
	p.links[name] = program{path: file, link: aim}
	return p.link(path.Join(path.Dir(name), aim), filepath.Join(filepath.Dir(file), aim))
}

// plugins takes the CNI plugins.
func (p *plan) plugins(arch string) error {
	for _, folder := range []string{filepath.Join(arch, "cni"), "cni"} {
		dir := filepath.Join(p.o.From, folder)
		entries, err := os.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("looking for CNI plugins: %w", err)
		}
		var errs []error
		for _, entry := range entries {
			file := filepath.Join(dir, entry.Name())
			info, err := os.Stat(file)
			if err != nil || !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0 {
				continue // a licence, a README
			}
			errs = append(errs, checkArch(file, arch), p.link(path.Join(arch, "cni", entry.Name()), file))
		}
		if _, ok := p.links[path.Join(arch, "cni", "loopback")]; !ok {
			errs = append(errs, &MissingError{Dir: dir, Files: []string{"loopback, which every node needs"}})
		}
		return errors.Join(errs...)
	}
	return &MissingError{Dir: p.o.From, Files: []string{"cni for " + arch}}
}

// installScript takes the install script of k3s, where there is one.
func (p *plan) installScript() {
	for _, name := range []string{"scripts/k3s-install.sh", "k3s-install.sh", "install.sh"} {
		file := filepath.Join(p.o.From, name)
		if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() {
			p.links["scripts/k3s-install.sh"] = program{path: file, mode: 0o755}
			return
		}
	}
}

// suppliedImages finds out which images the distribution needs: a list that is given, archives, a list of the release, the program.
func (p *plan) suppliedImages(ctx context.Context, k *kubefileData) error {
	if p.o.ImageList != "" {
		return p.takeList(k, p.o.ImageList)
	}
	if found, err := p.archives(k); found || err != nil {
		return err
	}
	for _, name := range []string{"imageList", "k3s-images.txt", "airgap-images-list.txt", "images/k3s-images.txt"} {
		file := filepath.Join(p.o.From, name)
		if strings.Contains(name, "k3s") && p.o.Runtime != "k3s" || strings.HasPrefix(name, "airgap") && p.o.Runtime != "k0s" {
			continue
		}
		if _, err := os.Stat(file); err == nil {
			return p.takeList(k, file)
		}
	}
	if args := listCommand(p.o.Runtime, p.o.Version); args != nil && slices.Contains(p.arches, goruntime.GOARCH) {
		file := p.links[path.Join(goruntime.GOARCH, "bin", args[0])]
		text, err := ask(ctx, file.path, args[1:]...)
		if err != nil {
			return fmt.Errorf("asking for the list of images: %w", err)
		}
		if p.o.Runtime == "k0s" {
			text = withoutK0sExtras(text)
		}
		return p.list(k, text, strings.Join(args, " "))
	}
	return p.knownImages(k)
}

// k0sExtras are images of k0s for settings that a Clusterfile has to ask for. Those of the load balancers that nodes have are
// not among them: clusters of several control planes have these unless told otherwise.
const k0sExtras = "/(calico-|pushgateway-|traefik)"

func withoutK0sExtras(list string) string {
	extra := regexp.MustCompile(k0sExtras)
	return strings.Join(slices.DeleteFunc(strings.Split(list, "\n"), extra.MatchString), "\n")
}

// listCommand prints the images that a distribution needs; nil: it has none.
func listCommand(runtime, version string) []string {
	switch runtime {
	case "kubernetes":
		return []string{"kubeadm", "config", "images", "list", "--kubernetes-version", version}
	case "k0s":
		return []string{"k0s", "airgap", "list-images", "--all"}
	}
	return nil
}

// archives takes one archive for each platform, to be read while the image is built; every platform gets a list that names it.
func (p *plan) archives(k *kubefileData) (bool, error) {
	type archive struct{ arch, file, name string }
	var found []archive
	var missing []string
	for _, arch := range p.arches {
		file, name := p.archive(arch)
		if file == "" {
			missing = append(missing, arch)
			continue
		}
		found = append(found, archive{arch, file, name})
	}
	if len(found) == 0 {
		return false, nil
	}
	if len(missing) > 0 {
		return true, fmt.Errorf("%q has an archive of images for %s, but none for %s", p.o.From, found[0].arch, strings.Join(missing, ", "))
	}
	for _, a := range found {
		p.links[path.Join("images", a.name)] = program{path: a.file, mode: 0o644}
		p.add(path.Join(a.arch, "imageList"), "# read while the image is built; it is not in the rootfs\narchive:images/"+a.name+"\n")
	}
	p.result.Images = "archives"
	k.Archives = true
	return true, nil
}

// archive is the file with the images of an architecture, and the name that it gets.
func (p *plan) archive(arch string) (file, name string) {
	var patterns []string
	switch p.o.Runtime {
	case "k3s":
		patterns = []string{"k3s-airgap-images-" + arch + ".tar.zst", "k3s-airgap-images-" + arch + ".tar.gz", "k3s-airgap-images-" + arch + ".tar"}
	case "k0s":
		patterns = []string{"k0s-airgap-bundle-" + p.o.Version + "-" + arch, "k0s-airgap-bundle-" + p.o.Version + "-" + arch + ".tar", "k0s-airgap-bundle-" + arch + ".tar", "airgap-image-bundle-linux-" + arch + ".tar"}
	}
	for _, pattern := range patterns {
		for _, folder := range []string{".", "images", arch, arch + "/images"} {
			file := filepath.Join(p.o.From, folder, pattern)
			if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() {
				if !imagelist.IsArchive(pattern) {
					pattern += ".tar"
				}
				return file, pattern
			}
		}
	}
	return "", ""
}
