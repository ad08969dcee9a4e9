// SPDX-License-Identifier: Apache-2.0

// Package registries has nothing but tests: k3s' own parser reads the registries.yaml that sealer writes.
package registries
