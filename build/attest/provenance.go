// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/moby/buildkit/util/purl"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/package-url/packageurl-go"
)

// BuildType is what externalParameters mean: https://slsa.dev/spec/v1.0/provenance#builddefinition
const BuildType = "https://github.com/sealerio/sealer/blob/main/docs/build.md#provenance"

// DefaultBuilder is the builder's identity where the user names none.
const DefaultBuilder = "https://github.com/sealerio/sealer"

const redacted = "[redacted]"

// Provenance is how a rootfs and its images came to be. Nothing in it depends on when, where and by whom it was built:
// no times, no names of machines, no folders, no build number. So the same input gives the same bytes.
type Provenance struct {
	BuilderID string // "" is DefaultBuilder
	Version   string // of sealer
	Kubefile  string // its name, relative to the context
	Source    []byte // its text
	Target    string
	Max       bool // all that is below, too

	BuildArgs map[string]string // the values of those that sound like secrets are left out
	Labels    map[string]string
	Secrets   []string // IDs
	SSH       []string // IDs
	Lite      bool

	Dependencies []Dependency
}

// Dependency is something that went into the build.
type Dependency struct {
	Name        string            `json:"name,omitempty"` // what it was for: base, toolbox, image
	URI         string            `json:"uri,omitempty"`
	Digest      map[string]string `json:"digest,omitempty"`
	Annotations map[string]any    `json:"annotations,omitempty"`
}

// Image makes a Dependency of a container image.
func Image(use, name string, p ocispec.Platform, d digest.Digest) (Dependency, error) {
	uri, err := purl.RefToPURL(packageurl.TypeDocker, name, &p)
	if err != nil {
		return Dependency{}, fmt.Errorf("image %s: %w", name, err)
	}
	return Dependency{Name: use, URI: uri, Digest: map[string]string{d.Algorithm().String(): d.Encoded()}}, nil
}

// predicate has the fields, and their names, that BuildKit's has, so that its readers show it.
type predicate struct {
	BuildDefinition struct {
		BuildType            string             `json:"buildType"`
		ExternalParameters   externalParameters `json:"externalParameters"`
		InternalParameters   struct{}           `json:"internalParameters"`
		ResolvedDependencies []Dependency       `json:"resolvedDependencies,omitempty"`
	} `json:"buildDefinition"`
	RunDetails struct {
		Builder struct {
			ID      string            `json:"id"`
			Version map[string]string `json:"version,omitempty"`
		} `json:"builder"`
		Metadata metadata `json:"metadata"`
	} `json:"runDetails"`
}

type externalParameters struct {
	ConfigSource struct {
		Path   string            `json:"path"`
		Digest map[string]string `json:"digest"`
	} `json:"configSource"`
	Request struct {
		Frontend string            `json:"frontend"`
		Args     map[string]string `json:"args,omitempty"`
		Secrets  []id              `json:"secrets,omitempty"`
		SSH      []id              `json:"ssh,omitempty"`
		Locals   []local           `json:"locals,omitempty"`
	} `json:"request"`
}

type id struct {
	ID string `json:"id"`
}

type local struct {
	Name string `json:"name"`
}

type metadata struct {
	Completeness struct {
		Request              bool `json:"request"`
		ResolvedDependencies bool `json:"resolvedDependencies"`
	} `json:"buildkit_completeness"`
	BuildKit *source `json:"buildkit_metadata,omitempty"`
}

type source struct {
	Source struct {
		Infos []sourceInfo `json:"infos"`
	} `json:"source"`
}

type sourceInfo struct {
	Filename string `json:"filename"`
	Language string `json:"language"`
	Data     []byte `json:"data"`
}

// Statement gives the provenance its form.
func (p Provenance) Statement() Statement {
	var out predicate
	def := &out.BuildDefinition
	def.BuildType = BuildType
	config := &def.ExternalParameters.ConfigSource
	sum := digest.FromBytes(p.Source)
	config.Path, config.Digest = p.Kubefile, map[string]string{sum.Algorithm().String(): sum.Encoded()}
	req := &def.ExternalParameters.Request
	req.Frontend, req.Locals, req.Args = "kubefile", []local{{Name: "context"}}, map[string]string{}
	if p.Target != "" {
		req.Args["target"] = p.Target
	}
	if p.Lite {
		req.Args["build-mode"] = "lite"
	}
	def.ResolvedDependencies = sorted(p.Dependencies)
	run := &out.RunDetails
	run.Builder.ID = p.BuilderID
	if run.Builder.ID == "" {
		run.Builder.ID = DefaultBuilder
	}
	if p.Version != "" {
		run.Builder.Version = map[string]string{"sealer": p.Version}
	}
	// Dependencies are never complete: the context is a folder without a digest of its own, and RUN has a network.
	run.Metadata.Completeness.Request = len(p.BuildArgs)+len(p.Labels)+len(p.Secrets)+len(p.SSH) == 0
	if p.Max {
		p.addRequest(&out)
	}
	return Statement{PredicateType: PredicateSLSA, Predicate: out}
}

func (p Provenance) addRequest(out *predicate) {
	req := &out.BuildDefinition.ExternalParameters.Request
	complete := true
	for name, value := range p.BuildArgs {
		if SoundsSecret(name) {
			value, complete = redacted, false
		}
		req.Args["build-arg:"+name] = value
	}
	for name, value := range p.Labels {
		req.Args["label:"+name] = value
	}
	for _, name := range slices.Sorted(slices.Values(p.Secrets)) {
		req.Secrets = append(req.Secrets, id{name})
	}
	for _, name := range slices.Sorted(slices.Values(p.SSH)) {
		req.SSH = append(req.SSH, id{name})
	}
	out.RunDetails.Metadata.Completeness.Request = complete
	text := &source{}
	text.Source.Infos = []sourceInfo{{Filename: p.Kubefile, Language: "Dockerfile", Data: p.Source}}
	out.RunDetails.Metadata.BuildKit = text
}

// sorted has each dependency once.
func sorted(list []Dependency) []Dependency {
	key := func(d Dependency) string {
		return d.Name + " " + d.URI + " " + fmt.Sprint(d.Digest) // maps print in order
	}
	out := slices.Clone(list)
	slices.SortStableFunc(out, func(a, b Dependency) int { return strings.Compare(key(a), key(b)) })
	return slices.CompactFunc(out, func(a, b Dependency) bool { return key(a) == key(b) })
}

// Fetched are the dependencies in BuildKit's own provenance that are not images: what ADD downloaded from URLs and git.
// Passwords and tokens in URLs are left out.
func Fetched(predicate json.RawMessage) ([]Dependency, error) {
	var p struct {
		BuildDefinition struct {
			ResolvedDependencies []Dependency `json:"resolvedDependencies"`
		} `json:"buildDefinition"`
	}
	if err := json.Unmarshal(predicate, &p); err != nil {
		return nil, fmt.Errorf("reading the builder's provenance: %w", err)
	}
	var out []Dependency
	for _, d := range p.BuildDefinition.ResolvedDependencies {
		if strings.HasPrefix(d.URI, "pkg:") {
			continue // images are known better here: their names, not those of the session
		}
		out = append(out, Dependency{Name: "file", URI: withoutSecrets(d.URI), Digest: maps.Clone(d.Digest)})
	}
	return out, nil
}

func withoutSecrets(uri string) string {
	u, err := url.Parse(uri)
	if err != nil {
		return redacted
	}
	if u.User != nil {
		u.User = url.User("redacted")
	}
	q, changed := u.Query(), false
	for key := range q {
		if SoundsSecret(key) {
			q.Set(key, redacted)
			changed = true
		}
	}
	if changed {
		u.RawQuery = q.Encode()
	}
	return u.String()
}

// SoundsSecret tells whether a variable of this name probably holds a secret: by the words that BuildKit's check
// SecretsUsedInArgOrEnv looks for, and those of signed URLs.
// https://docs.docker.com/reference/build-checks/secrets-used-in-arg-or-env/
func SoundsSecret(name string) bool {
	spaced := regexp.MustCompile(`([a-z0-9])([A-Z])`).ReplaceAllString(name, "$1 $2")
	words := regexp.MustCompile(`[^a-z0-9]+`).Split(strings.ToLower(spaced), -1)
	if slices.Contains(words, "public") {
		return false
	}
	return slices.ContainsFunc(words, func(w string) bool {
		switch w {
		case "apikey", "accesskey", "auth", "credential", "credentials", "key", "passphrase", "pat", "privatekey", "pwd", "pword", "sig", "signature":
			return true
		}
		for _, end := range []string{"password", "passwd", "secret", "token"} {
			if strings.HasSuffix(w, end) {
				return true
			}
		}
		return false
	})
}
