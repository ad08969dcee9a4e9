// SPDX-License-Identifier: Apache-2.0

// Package version tells which sealer this is.
package version

import "runtime/debug"

// version is set by the linker (-X); see the Makefile.
var version string

// Version is the release, such as "v0.1.0" or "v0.1.0-12-gabc1234". A binary
// that was not built by the Makefile answers the module's version, or "devel".
func Version() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "devel"
}
