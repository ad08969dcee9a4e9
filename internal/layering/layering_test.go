// SPDX-License-Identifier: Apache-2.0

package layering_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/sealerio/sealer"

// allowed is the whole list of our own packages that a package may import.
// A package that is not in the table fails: add it here and in docs/architecture.md.
var allowed = map[string][]string{
	"cmd/sealer":       {"build/engine", "internal/cli", "rootfs"},
	"cmd/sealer-fetch": {},
	"cmd/sealer-node":  {"internal/node", "internal/version"},

	"internal/cli": {
		"build/gatewayimage",
		"build", "build/engine", "cluster", "cluster/application", "cluster/kube", "clusterfile", "clusterimage", "host", "imagelist", "imagelist/chart", "inspect", "kubefile", "kubefile/format",
		"kubefile/lint", "contexts",
		"registry", "rootfs", "rootfs-templates", "runtime", "runtime/k0s", "runtime/k3s", "runtime/kubernetes", "signature", "store",
		"join", "ship",
		"internal/atomicfile", "internal/progress", "internal/version",
	},
	"internal/node": {
		"clusterimage", "registry", "rootfs", "store",
		"internal/atomicfile", "internal/balance", "internal/blobstream", "internal/ipvs", "internal/peers", "internal/secret", "internal/swarm",
		"internal/version",
	},

	"kubefile":         {"internal/sourceerror"},
	"kubefile/format":  {"kubefile"},
	"kubefile/lint":    {"clusterimage", "imagelist", "imagelist/chart", "kubefile", "internal/sourceerror"},
	"imagelist":        {"imagelist/chart", "imagelist/kustomization", "internal/secret", "internal/sourceerror"},
	"clusterimage":     {},
	"clusterfile":      {"internal/secret"},
	"rootfs-templates": {},
	"contexts":         {"imagelist", "rootfs-templates"},
	"store":            {"clusterimage", "internal/atomicfile", "internal/process"},
	"rootfs":           {"clusterimage", "store", "internal/atomicfile"},
	"store/archive":    {"clusterimage", "store"},
	"join":             {"clusterimage", "store"},
	"ship":             {"clusterimage", "clusterimage/layout", "store", "store/archive", "internal/atomicfile"},
	"registry":         {"clusterimage", "clusterimage/layout", "store", "internal/atomicfile", "internal/secret"},
	"signature":        {"clusterimage", "registry", "store"},
	"inspect":          {"clusterimage", "registry", "ship", "signature", "store"},

	"imagelist/chart":         {},
	"imagelist/chart/helm":    {"imagelist/chart"},
	"imagelist/kustomization": {},

	"build/attest":   {"clusterimage"},
	"build/flatten":  {},
	"build/policy":   {"signature"},
	"build/sbom":     {"build/flatten"},
	"build/toolbox":  {},
	"build/engine":   {"internal/atomicfile", "internal/process"},
	"build/convert":  {"kubefile", "clusterimage"},
	"build/frontend": {"build/convert", "clusterfile", "clusterimage/layout", "kubefile", "imagelist", "imagelist/chart", "clusterimage"},
	"build": {
		"build/attest", "build/convert", "build/engine", "build/flatten", "build/frontend", "build/policy", "build/sbom", "build/toolbox",
		"clusterimage", "imagelist", "imagelist/chart", "kubefile", "registry", "signature", "store", "store/archive", "internal/atomicfile", "internal/progress",
	},

	"build/gatewayimage":  {"build/frontend", "build/toolbox", "clusterimage"},
	"clusterimage/layout": {"clusterimage"},
	"cmd/sealer-charts":   {"imagelist/chart", "imagelist/chart/helm", "internal/version"},
	"cmd/sealer-frontend": {"build/frontend", "imagelist/chart/helm", "internal/version"},

	"host":                {"internal/secret"},
	"host/hosttest":       {"host"},
	"runtime":             {"clusterfile", "clusterimage", "host", "internal/progress", "internal/redact"},
	"runtime/k0s":         {"clusterfile", "clusterimage", "host", "runtime"},
	"runtime/k3s":         {"clusterfile", "clusterimage", "host", "runtime"},
	"runtime/kubernetes":  {"clusterfile", "clusterimage", "host", "rootfs-templates", "runtime"},
	"cluster/application": {"cluster/kube", "clusterfile", "host"},
	"cluster/kube":        {"host", "runtime"},
	"cluster/program":     {"host", "runtime"},
	"cluster/transfer": {
		"cluster/program", "host", "runtime", "internal/blobstream", "internal/peers", "internal/progress", "internal/swarm",
	},
	"cluster": {
		"cluster/application", "cluster/kube", "cluster/program", "cluster/transfer", "clusterfile", "clusterimage", "host", "runtime",
		"internal/atomicfile", "internal/blobstream", "internal/progress", "internal/redact", "internal/version", "internal/vip",
	},

	"internal/atomicfile":  {},
	"internal/balance":     {},
	"internal/blobstream":  {},
	"internal/goldenfile":  {}, // for tests
	"internal/ipvs":        {"internal/balance"},
	"internal/layering":    {},
	"internal/peers":       {},
	"internal/progress":    {},
	"internal/redact":      {},
	"internal/secret":      {},
	"internal/sourceerror": {},
	"internal/swarm":       {},
	"internal/process":     {},
	"internal/version":     {},
	"internal/vip":         {},
}

// onlyIn names the homes of heavy third-party packages: what is imported from
// anywhere else would end up in binaries that must stay small, or would tie a
// package to a library that it has no business with.
var onlyIn = map[string][]string{
	"github.com/spf13/cobra":                 {"internal/cli", "internal/node"},
	"github.com/moby/buildkit":               {"kubefile", "build", "internal/progress"},
	"github.com/distribution/distribution":   {"registry"},
	"github.com/google/go-containerregistry": {"registry", "imagelist", "test"},
	"go.podman.io/storage":                   {"rootfs", "cmd/sealer-node"},
	"github.com/sigstore/sigstore":           {"signature"},
	"github.com/moby/ipvs":                   {"internal/ipvs"},
	"github.com/vishvananda/netlink":         {"internal/ipvs"},
	"helm.sh/helm":                           {"imagelist/chart"},
	"sigs.k8s.io/kustomize":                  {"imagelist/kustomization"},
	"golang.org/x/crypto/ssh":                {"host", "test"},
}

func TestImports(t *testing.T) {
	root := moduleRoot(t)
	seen := map[string]bool{}
	require.NoError(t, filepath.WalkDir(root, func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if skipDir(root, rel, entry) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(file, ".go") {
			return nil
		}
		pkg := path.Dir(filepath.ToSlash(rel))
		seen[pkg] = true
		checkFile(t, pkg, file, rel)
		return nil
	}))
	for pkg := range allowed {
		if !seen[pkg] {
			t.Errorf("%s stands in the table but not in the tree", pkg)
		}
	}
}

func checkFile(t *testing.T, pkg, file, rel string) {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
	require.NoError(t, err)
	isTest := strings.HasSuffix(file, "_test.go")
	if _, known := allowed[pkg]; !known && !strings.HasPrefix(pkg, "test/") {
		t.Errorf("%s: package %s is not in the table of this test", rel, pkg)
		return
	}
	for _, spec := range parsed.Imports {
		imp, err := strconv.Unquote(spec.Path.Value)
		require.NoError(t, err)
		if ours, ok := strings.CutPrefix(imp, module+"/"); ok {
			if !mayImport(pkg, ours, isTest) {
				t.Errorf("%s: %s may not import %s", rel, pkg, ours)
			}
			continue
		}
		if !isTest {
			checkHome(t, pkg, imp, rel)
		}
	}
}

func mayImport(pkg, dep string, isTest bool) bool {
	switch {
	case strings.HasPrefix(pkg, "test/"):
		return strings.HasPrefix(dep, "test/") // the binaries are what is tested there
	case slices.Contains(allowed[pkg], dep):
		return true
	case isTest:
		return dep == pkg || dep != "internal/cli" // a test may set up its subject with any package but the command tree
	}
	return false
}

func checkHome(t *testing.T, pkg, imp, rel string) {
	t.Helper()
	for lib, homes := range onlyIn {
		if imp != lib && !strings.HasPrefix(imp, lib+"/") {
			continue
		}
		if !slices.ContainsFunc(homes, func(home string) bool { return pkg == home || strings.HasPrefix(pkg, home+"/") }) {
			t.Errorf("%s: %s is at home in %s, not in %s", rel, lib, strings.Join(homes, ", "), pkg)
		}
	}
}

// skipDir leaves out what is no package of this module: hidden folders, test
// data, and folders with a go.mod of their own.
func skipDir(root, rel string, entry fs.DirEntry) bool {
	if rel == "." {
		return false
	}
	if strings.HasPrefix(entry.Name(), ".") || entry.Name() == "testdata" || entry.Name() == "bin" {
		return true
	}
	_, err := os.Stat(filepath.Join(root, rel, "go.mod"))
	return err == nil
}

func moduleRoot(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	require.NoError(t, err)
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		parent := filepath.Dir(dir)
		require.NotEqual(t, parent, dir, "no go.mod above the test")
		dir = parent
	}
}
