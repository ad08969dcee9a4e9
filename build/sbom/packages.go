// SPDX-License-Identifier: Apache-2.0

package sbom

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"debug/buildinfo"
	"io"
	"path"
	"runtime/debug"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/package-url/packageurl-go"
)

// modules are what Go has written into a program: its own module, those below it, and the standard library.
func modules(file string, r io.ReaderAt) []Package {
	info, err := buildinfo.Read(r)
	if err != nil {
		return nil // not of Go, or stripped of it
	}
	out := []Package{goPackage(file, "stdlib", strings.TrimPrefix(strings.Fields(info.GoVersion + " ")[0], "go"))}
	for _, m := range append([]*debug.Module{&info.Main}, info.Deps...) {
		if m.Replace != nil {
			m = m.Replace
		}
		if m.Path == "" || strings.HasPrefix(m.Path, ".") || strings.HasPrefix(m.Path, "/") {
			continue // a folder of the one who built it
		}
		version := m.Version
		if version == "(devel)" {
			version = ""
		}
		out = append(out, goPackage(file, m.Path, version))
	}
	return out
}

func goPackage(file, module, version string) Package {
	namespace, name := path.Split(module)
	return Package{Name: module, Version: version, In: file, PURL: purl(packageurl.TypeGolang, strings.TrimSuffix(namespace, "/"), name, version, nil)}
}

func purl(kind, namespace, name, version string, qualifiers map[string]string) string {
	return packageurl.NewPackageURL(kind, namespace, name, version, packageurl.QualifiersFromMap(qualifiers), "").ToString()
}

// kind of a package database.
type kind int

const (
	dpkg kind = iota
	apk
)

// database is one that was found; which distribution it is of may be known later.
type database struct {
	kind kind
	file string
	data []byte
}

func (d database) packages(distribution string) []Package {
	if d.kind == apk {
		return d.apk(distribution)
	}
	return d.dpkg(distribution)
}

// stanzas reads blocks of "Key: value" lines; lines that continue one are left out.
func stanzas(data []byte, separator string, each func(map[string]string)) {
	fields := map[string]string{}
	end := func() {
		if len(fields) > 0 {
			each(fields)
		}
		fields = map[string]string{}
	}
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, maxDatabase)
	for lines.Scan() {
		line := lines.Text()
		if strings.TrimSpace(line) == "" {
			end()
			continue
		}
		if key, value, ok := strings.Cut(line, separator); ok && !strings.HasPrefix(line, " ") && !strings.HasPrefix(line, "\t") {
			fields[key] = strings.TrimSpace(value)
		}
	}
	end()
}

// dpkg reads /var/lib/dpkg/status, and the files of status.d that distroless images have: deb-status(5) has no page; it is
// dpkg-query(1) that names the fields.
func (d database) dpkg(distribution string) (out []Package) {
	if distribution == "" {
		distribution = "debian"
	}
	stanzas(d.data, ":", func(f map[string]string) {
		if status, ok := f["Status"]; ok && !strings.HasSuffix(status, " installed") || f["Package"] == "" {
			return
		}
		out = append(out, Package{
			Name: f["Package"], Version: f["Version"], In: d.file,
			PURL: purl(packageurl.TypeDebian, distribution, f["Package"], f["Version"], qualifiers("arch", f["Architecture"])),
		})
	})
	return out
}

// apk reads https://wiki.alpinelinux.org/wiki/Apk_spec#Installed_Database_V2
func (d database) apk(distribution string) (out []Package) {
	if distribution == "" {
		distribution = "alpine"
	}
	stanzas(d.data, ":", func(f map[string]string) {
		if f["P"] == "" {
			return
		}
		out = append(out, Package{
			Name: f["P"], Version: f["V"], License: f["L"], In: d.file,
			PURL: purl("apk", distribution, f["P"], f["V"], qualifiers("arch", f["A"])),
		})
	})
	return out
}

func qualifiers(key, value string) map[string]string {
	if value == "" {
		return nil
	}
	return map[string]string{key: value}
}

// osRelease is the ID of os-release(5).
func osRelease(data []byte) string {
	id := ""
	stanzas(data, "=", func(f map[string]string) {
		if v := strings.Trim(f["ID"], `"'`); v != "" {
			id = v
		}
	})
	return id
}

// chart reads Chart.yaml, https://helm.sh/docs/topics/charts/#the-chartyaml-file
func chart(file string, data []byte) []Package {
	var c struct {
		Name    string `yaml:"name"`
		Version string `yaml:"version"`
	}
	if err := yaml.Unmarshal(data, &c); err != nil || c.Name == "" {
		return nil // a template of one
	}
	return []Package{{Name: c.Name, Version: c.Version, In: file, PURL: purl("helm", "", c.Name, c.Version, nil)}}
}

// chartArchive reads the charts of a packed chart: its own, and those below it.
func chartArchive(file string, data []byte) (out []Package) {
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil
	}
	for tr := tar.NewReader(io.LimitReader(z, 8*maxChart)); ; {
		h, err := tr.Next()
		if err != nil {
			return out // its end, or no chart
		}
		if path.Base(h.Name) != "Chart.yaml" || h.Size > 1<<20 {
			continue
		}
		text, err := io.ReadAll(tr)
		if err != nil {
			return out
		}
		out = append(out, chart(file, text)...)
	}
}
