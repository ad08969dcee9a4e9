// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"

	"github.com/sealerio/sealer/internal/atomicfile"
)

// Where a host's docker listens, and where it looks for the authorities of registries
// (docs.docker.com/engine/security/certificates).
const (
	dockerSocket = "/var/run/docker.sock"
	dockerCerts  = "/etc/docker/certs.d"
)

// dockerFile remembers what was brought to the host's docker.
const dockerFile = "docker.json"

// DockerImage is an image that the host's docker is to have under its own name.
type DockerImage struct {
	Name       string        `json:"name"`       // docker.io/library/nginx:1.27; never one with a digest
	Repository string        `json:"repository"` // where the registry has it
	Manifest   digest.Digest `json:"manifest"`
	ID         digest.Digest `json:"id"` // the config's: docker calls an image by it
	// For are the ClusterImages that pack it.
	For []digest.Digest `json:"for"`
}

// DockerAccess is what docker is to have, and from where.
type DockerAccess struct {
	Registry string        `json:"registry"` // as references name it
	CA       string        `json:"ca"`       // PEM; empty: one that the host trusts anyway
	Username string        `json:"username"`
	Password string        `json:"password"`
	Images   []DockerImage `json:"images"`
}

// DockerLack is what of a DockerAccess docker has not.
type DockerLack struct {
	Images []string `json:"images"`
	CA     bool     `json:"ca"` // it does not know the registry's CA
}

// dockerNotes is the content of dockerFile.
type dockerNotes struct {
	Images map[string]dockerNote `json:"images"`
	// Registries are those whose CA was given to docker; Made are folders that were made for that, outer ones first.
	Registries []string `json:"registries,omitempty"`
	Made       []string `json:"made,omitempty"`
}

type dockerNote struct {
	DockerImage
	Was string `json:"was,omitempty"` // what the name stood for before, by docker's id; empty: nothing
	// Pulled is the name that it is being pulled by, which is to go again.
	Pulled string `json:"pulled,omitempty"`
}

func (n *Node) dockerNotes() (notes dockerNotes, err error) {
	notes.Images = map[string]dockerNote{}
	f, err := os.Open(filepath.Join(n.root, dockerFile))
	if errors.Is(err, fs.ErrNotExist) {
		return notes, nil
	}
	if err != nil {
		return notes, fmt.Errorf("reading what docker was given: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return notes, readJSON(f, "what docker was given", &notes)
}

func (n *Node) keepDockerNotes(notes dockerNotes) error {
	data, err := json.MarshalIndent(notes, "", "  ")
	if err != nil {
		return fmt.Errorf("noting what docker is given: %w", err)
	}
	if err := os.MkdirAll(n.root, 0o700); err != nil {
		return fmt.Errorf("noting what docker is given: %w", err)
	}
	return atomicfile.Write(filepath.Join(n.root, dockerFile), append(data, '\n'), 0o600)
}

// LackedByDocker asks docker which of the images it does not have under their names, or has others under them.
func (n *Node) LackedByDocker(ctx context.Context, a DockerAccess) (DockerLack, error) {
	d := n.docker()
	defer d.close()
	lack := DockerLack{Images: []string{}, CA: a.CA != "" && !hasContent(n.dockerCA(a.Registry), []byte(a.CA))}
	notes, err := n.dockerNotes()
	if err != nil {
		return lack, err
	}
	for _, image := range a.Images {
		id, err := d.id(ctx, image.Name)
		if err != nil {
			return lack, err
		}
		if _, noted := notes.Images[image.Name]; !image.is(id) || !noted {
			lack.Images = append(lack.Images, image.Name)
		}
	}
	return lack, nil
}

// is tells whether docker's id is the image's: its config, or with containerd's store what was pulled.
func (i DockerImage) is(id string) bool { return id == i.ID.String() || id == i.Manifest.String() }

func (i DockerImage) validate() error {
	named, err := reference.ParseNormalizedNamed(i.Name)
	if err != nil {
		return fmt.Errorf("reading the image name %q: %w", i.Name, err)
	}
	if _, pinned := named.(reference.Digested); pinned || reference.IsNameOnly(named) {
		return fmt.Errorf("reading the image name %q: docker takes names with a tag, and no digest", i.Name)
	}
	return errors.Join(i.Manifest.Validate(), i.ID.Validate())
}

// BringToDocker has docker pull the images that it lacks from the registry, by their digests, which it checks, and gives them their
// own names. What the names stood for before is noted first, so that Clean can undo it; what docker had is left alone.
func (n *Node) BringToDocker(ctx context.Context, a DockerAccess) error {
	for _, image := range a.Images {
		if err := image.validate(); err != nil {
			return err
		}
	}
	notes, err := n.dockerNotes()
	if err != nil {
		return err
	}
	if err := n.trustRegistry(&notes, a); err != nil {
		return err
	}
	d := n.docker()
	defer d.close()
	for _, image := range a.Images {
		if err := n.bringImage(ctx, d, &notes, a, image); err != nil {
			return fmt.Errorf("bringing %s to docker: %w", image.Name, err)
		}
	}
	return nil
}

func (n *Node) bringImage(ctx context.Context, d *docker, notes *dockerNotes, a DockerAccess, image DockerImage) error {
	have, err := d.id(ctx, image.Name)
	if err != nil {
		return err
	}
	note, noted := notes.Images[image.Name]
	if !noted {
		note.Was = have
	}
	for _, of := range note.For {
		if !slices.Contains(image.For, of) {
			image.For = append(image.For, of)
		}
	}
	if err := d.forget(ctx, note.Pulled); err != nil {
		return err
	}
	pulled := a.Registry + "/" + image.Repository + "@" + image.Manifest.String()
	note.DockerImage, note.Pulled = image, pulled
	if image.is(have) {
		note.Pulled = ""
	}
	notes.Images[image.Name] = note
	if err := n.keepDockerNotes(*notes); err != nil || image.is(have) {
		return err
	}
	if err := d.pullNamed(ctx, a, pulled); err != nil {
		return err
	}
	id, err := d.id(ctx, pulled)
	if err != nil {
		return err
	}
	if !image.is(id) {
		return fmt.Errorf("docker pulled %s, and has %q, not %s", pulled, id, image.ID)
	}
	if err := d.tag(ctx, id, image.Name); err != nil {
		return err
	}
	if err := d.remove(ctx, pulled); err != nil { // the name that it was pulled by; the image stays under its own
		return err
	}
	note.Pulled = ""
	notes.Images[image.Name] = note
	return n.keepDockerNotes(*notes)
}

// forget takes away a name that an image was pulled by, where it is there: whoever pulled it may have been stopped.
func (d *docker) forget(ctx context.Context, pulled string) error {
	if pulled == "" {
		return nil
	}
	id, err := d.id(ctx, pulled)
	if err != nil || id == "" {
		return err
	}
	return d.remove(ctx, pulled)
}

// dockerCA is where docker looks for the CA of a registry.
func (n *Node) dockerCA(registry string) string {
	return filepath.Join(n.dockerCerts, registry, "ca.crt")
}

// trustRegistry gives docker the registry's CA. It reads it at every pull. A CA that somebody else put there stays.
func (n *Node) trustRegistry(notes *dockerNotes, a DockerAccess) error {
	file := n.dockerCA(a.Registry)
	if a.CA == "" || hasContent(file, []byte(a.CA)) {
		return nil
	}
	if _, err := os.Lstat(file); err == nil && !slices.Contains(notes.Registries, a.Registry) {
		return fmt.Errorf("giving docker the registry's CA: %q is there, with another one", file)
	}
	if !slices.Contains(notes.Registries, a.Registry) {
		notes.Registries = append(notes.Registries, a.Registry)
	}
	var missing []string
	for dir := filepath.Dir(file); ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(dir); err == nil || dir == filepath.Dir(dir) {
			break
		}
		missing = append([]string{dir}, missing...)
	}
	for _, dir := range missing {
		if !slices.Contains(notes.Made, dir) {
			notes.Made = append(notes.Made, dir)
		}
	}
	if err := n.keepDockerNotes(*notes); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return fmt.Errorf("giving docker the registry's CA: %w", err)
	}
	return atomicfile.Write(file, []byte(a.CA), 0o644)
}

// DockerImages are those that were brought to docker, by name.
func (n *Node) DockerImages() ([]DockerImage, error) {
	notes, err := n.dockerNotes()
	list := []DockerImage{}
	for _, name := range slices.Sorted(maps.Keys(notes.Images)) {
		if image := notes.Images[name].DockerImage; len(image.For) > 0 {
			list = append(list, image)
		}
	}
	return list, err
}

// LostByDocker are the names of images that were brought to docker, and that it has no more, or others by these names.
func (n *Node) LostByDocker(ctx context.Context) ([]string, error) {
	notes, err := n.dockerNotes()
	if err != nil {
		return nil, err
	}
	d := n.docker()
	defer d.close()
	lost := []string{} // [] in JSON, not null
	for _, name := range slices.Sorted(maps.Keys(notes.Images)) {
		note := notes.Images[name]
		if len(note.For) == 0 {
			continue
		}
		id, err := d.id(ctx, name)
		if err != nil {
			return nil, err
		}
		if !note.is(id) {
			lost = append(lost, name)
		}
	}
	return lost, nil
}

// DropFromDocker takes back what was brought for a ClusterImage alone. What a container still runs from, or was run from a moment ago,
// goes with a later call.
func (n *Node) DropFromDocker(ctx context.Context, image digest.Digest) error {
	notes, err := n.dockerNotes()
	if err != nil {
		return err
	}
	d := n.docker()
	defer d.close()
	for _, name := range slices.Sorted(maps.Keys(notes.Images)) {
		note := notes.Images[name]
		if len(note.For) > 0 && !slices.Contains(note.For, image) {
			continue
		}
		note.For = slices.DeleteFunc(note.For, func(of digest.Digest) bool { return of == image })
		notes.Images[name] = note
		if len(note.For) == 0 {
			kept, err := n.giveBack(ctx, d, note)
			if err != nil {
				return err
			}
			if !kept {
				delete(notes.Images, name)
			}
		}
		if err := n.keepDockerNotes(notes); err != nil {
			return err
		}
	}
	return nil
}

// giveBack lets a name stand for what it stood for before. kept: a container uses the image, which stays.
func (n *Node) giveBack(ctx context.Context, d *docker, note dockerNote) (kept bool, err error) {
	if err := d.forget(ctx, note.Pulled); err != nil {
		return false, err
	}
	id, err := d.id(ctx, note.Name)
	if err != nil || !note.is(id) || note.is(note.Was) { // it is another's by now, or was there before
		return false, err
	}
	there := ""
	if note.Was != "" {
		if there, err = d.id(ctx, note.Was); err != nil {
			return false, err
		}
	}
	if there == "" {
		return d.leave(ctx, note.Name)
	}
	if err := d.tag(ctx, note.Was, note.Name); err != nil {
		return false, err
	}
	return d.leave(ctx, id)
}

// cleanDocker leaves docker as it was before. One that does not answer keeps its images: they are named.
func (n *Node) cleanDocker(ctx context.Context) error {
	notes, err := n.dockerNotes()
	if err != nil {
		return err
	}
	d := n.docker()
	defer d.close()
	for _, name := range slices.Sorted(maps.Keys(notes.Images)) {
		kept, err := n.giveBack(ctx, d, notes.Images[name])
		if kept {
			n.log.Warn("docker keeps an image: a container of somebody else uses it", "image", name)
		}
		if silent, ok := errors.AsType[*DockerError](err); ok {
			n.log.Warn("docker keeps the images of the cluster", "images", slices.Sorted(maps.Keys(notes.Images)), "error", silent)
			break
		}
		if err != nil {
			return fmt.Errorf("taking %s from docker: %w", name, err)
		}
	}
	for _, registry := range notes.Registries {
		if err := os.Remove(n.dockerCA(registry)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("taking the registry's CA from docker: %w", err)
		}
	}
	for _, dir := range slices.Backward(notes.Made) {
		_ = os.Remove(dir) // where others have put something meanwhile it stays
	}
	if err := os.Remove(filepath.Join(n.root, dockerFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forgetting what docker was given: %w", err)
	}
	return nil
}
