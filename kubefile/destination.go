// SPDX-License-Identifier: Apache-2.0

package kubefile

import (
	"path"
	"slices"
	"strings"
)

// Destination is where COPY and ADD put files, as an absolute path; a / at its
// end says that it is a folder, whether or not it is there. workdir is that of
// WORKDIR.
func Destination(workdir, dest string) string {
	p := path.Join("/", dest)
	if !path.IsAbs(dest) {
		p = path.Join("/", workdir, dest)
	}
	if strings.HasSuffix(dest, "/") || path.Base(dest) == "." || path.Base(dest) == ".." || slices.Contains(rootfsFolders(), p) {
		p = strings.TrimSuffix(p, "/") + "/"
	}
	return p
}

// rootfsFolders are what a rootfs has at its root,
// https://github.com/sealerio/basefs. COPY into one of them makes it, where a
// Dockerfile would make a file of that name: `COPY imageList manifests` is how
// Kubefiles are written.
func rootfsFolders() []string {
	return []string{
		"/application", "/bin", "/charts", "/cri", "/etc", "/images", "/lib", "/manifests", "/opt", "/plugins", "/registry", "/scripts", "/statics",
	}
}
