// SPDX-License-Identifier: Apache-2.0

package sbom

import (
	"crypto/sha1" //nolint:gosec // SPDX's verification code is made of it
	"encoding/hex"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/package-url/packageurl-go"
	"github.com/spdx/tools-golang/spdx/v2/common"
	"github.com/spdx/tools-golang/spdx/v2/v2_3"
)

const noAssertion = "NOASSERTION"

// Image is a packed container image.
type Image struct {
	Name     string // full reference
	Platform ocispec.Platform
	Digest   digest.Digest // of its manifest
	License  string        // of its label; "" where it has none
}

// Document describes a rootfs and the images beside it.
type Document struct {
	Rootfs   ocispec.Descriptor // manifest
	Platform ocispec.Platform
	Contents Contents
	Images   []Image
	Version  string    // of sealer
	Created  time.Time // SPDX wants one: the build's epoch, since another would make every build differ
}

// SPDX is the document as https://spdx.github.io/spdx-spec/v2.3/ has it. The same input gives the same document.
func (d Document) SPDX() *v2_3.Document {
	doc := &v2_3.Document{
		SPDXVersion: v2_3.Version, DataLicense: v2_3.DataLicense, SPDXIdentifier: "DOCUMENT",
		DocumentName: "ClusterImage",
		CreationInfo: &v2_3.CreationInfo{
			Created:  d.Created.UTC().Format(time.RFC3339),
			Creators: []common.Creator{{CreatorType: "Tool", Creator: strings.TrimSuffix("sealer-"+d.Version, "-")}},
		},
	}
	w := &writer{doc: doc, has: map[common.ElementID]bool{}}
	root := d.rootfs()
	w.add(root)
	w.relate("DOCUMENT", "DESCRIBES", root.PackageSPDXIdentifier)
	files := w.files(root, d.Contents.Files)
	for _, p := range d.Contents.Packages {
		one := newPackage(p)
		w.add(one)
		w.relate(root.PackageSPDXIdentifier, "CONTAINS", one.PackageSPDXIdentifier)
		if file, ok := files[p.In]; ok {
			w.relate(one.PackageSPDXIdentifier, "OTHER", file) // evident by
		}
	}
	for _, img := range d.Images {
		one := img.spdx()
		w.add(one)
		w.relate(root.PackageSPDXIdentifier, "DEPENDS_ON", one.PackageSPDXIdentifier)
	}
	// A name that no other document has.
	sum := digest.FromString(d.Rootfs.Digest.String() + "\n" + strings.Join(w.ids, "\n"))
	doc.DocumentNamespace = "https://github.com/sealerio/sealer/spdx/" + sum.Encoded()
	return doc
}

func (d Document) rootfs() *v2_3.Package {
	sums := make([]string, len(d.Contents.Files))
	for i, f := range d.Contents.Files {
		sums[i] = f.SHA1
	}
	slices.Sort(sums)
	code := sha1.Sum([]byte(strings.Join(sums, ""))) //nolint:gosec // 7.9 of the specification
	return &v2_3.Package{
		PackageName: "rootfs", PackageSPDXIdentifier: "rootfs", PackageVersion: d.Rootfs.Digest.String(),
		PackageDownloadLocation: noAssertion, FilesAnalyzed: true, PrimaryPackagePurpose: "CONTAINER",
		PackageVerificationCode: &common.PackageVerificationCode{Value: hex.EncodeToString(code[:])},
		PackageChecksums:        []common.Checksum{{Algorithm: common.SHA256, Value: d.Rootfs.Digest.Encoded()}},
		PackageLicenseConcluded: noAssertion, PackageLicenseDeclared: noAssertion, PackageCopyrightText: noAssertion,
	}
}

func newPackage(p Package) *v2_3.Package {
	out := &v2_3.Package{
		PackageName: p.Name, PackageVersion: p.Version, PackageSPDXIdentifier: element("Package", p.PURL),
		PackageDownloadLocation: noAssertion, PackageLicenseConcluded: noAssertion, PackageLicenseDeclared: noAssertion,
		PackageCopyrightText: noAssertion, PackageExternalReferences: located(p.PURL),
	}
	switch {
	case p.License == "":
	case regexp.MustCompile(`^[A-Za-z0-9.+()\- ]+$`).MatchString(p.License):
		out.PackageLicenseDeclared = p.License
	default: // no SPDX expression
		out.PackageLicenseComments = p.License
	}
	return out
}

func located(purl string) []*v2_3.PackageExternalReference {
	return []*v2_3.PackageExternalReference{{Category: common.CategoryPackageManager, RefType: common.TypePackageManagerPURL, Locator: purl}}
}

func (img Image) spdx() *v2_3.Package {
	purl := img.PURL()
	out := newPackage(Package{Name: img.Name, Version: img.Digest.String(), PURL: purl, License: img.License})
	out.PackageSPDXIdentifier = element("Image", purl+" "+img.Name)
	out.PackageChecksums = []common.Checksum{{Algorithm: common.SHA256, Value: img.Digest.Encoded()}}
	out.PrimaryPackagePurpose = "CONTAINER"
	return out
}

// PURL names an image as https://github.com/package-url/purl-spec/blob/main/types-doc/oci-definition.md has it.
func (img Image) PURL() string {
	q := map[string]string{"arch": img.Platform.Architecture, "os": img.Platform.OS}
	name := img.Name
	if named, err := reference.ParseNormalizedNamed(img.Name); err == nil {
		name = named.Name()
		if tagged, ok := named.(reference.Tagged); ok {
			q["tag"] = tagged.Tag()
		}
	}
	q["repository_url"] = name
	return purl(packageurl.TypeOCI, "", strings.ToLower(name[strings.LastIndexByte(name, '/')+1:]), img.Digest.String(), q)
}

// element is an identifier of the letters that SPDX allows.
func element(kind, name string) common.ElementID {
	return common.ElementID(kind + "-" + digest.FromString(name).Encoded()[:32])
}

// writer adds each element once.
type writer struct {
	doc *v2_3.Document
	ids []string
	has map[common.ElementID]bool
}

func (w *writer) add(p *v2_3.Package) {
	if id := p.PackageSPDXIdentifier; !w.has[id] {
		w.has[id] = true
		w.ids = append(w.ids, string(id))
		w.doc.Packages = append(w.doc.Packages, p)
	}
}

func (w *writer) relate(a common.ElementID, how string, b common.ElementID) {
	w.doc.Relationships = append(w.doc.Relationships, &v2_3.Relationship{
		RefA: common.DocElementID{ElementRefID: a}, Relationship: how, RefB: common.DocElementID{ElementRefID: b},
	})
}

func (w *writer) files(root *v2_3.Package, files []File) map[string]common.ElementID {
	ids := make(map[string]common.ElementID, len(files))
	for _, f := range files {
		id := element("File", f.Path)
		ids[f.Path] = id
		w.doc.Files = append(w.doc.Files, &v2_3.File{
			FileName: "./" + f.Path, FileSPDXIdentifier: id, LicenseConcluded: noAssertion, FileCopyrightText: noAssertion,
			Checksums: []common.Checksum{{Algorithm: common.SHA1, Value: f.SHA1}, {Algorithm: common.SHA256, Value: f.SHA256}},
		})
		w.relate(root.PackageSPDXIdentifier, "CONTAINS", id)
	}
	return ids
}
