// SPDX-License-Identifier: Apache-2.0

// Package layering holds the test that keeps the packages' arrows as
// docs/architecture.md draws them. It has no code of its own.
package layering
