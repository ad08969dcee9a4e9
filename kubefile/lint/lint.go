// SPDX-License-Identifier: Apache-2.0

// Package lint looks for what is probably not meant in a Kubefile, in the build
// context that it copies from and in the lists and manifests that name its
// images. Nothing is built and no network is asked: what cannot be known
// without is not reported.
package lint

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/imagelist/chart"
	"github.com/sealerio/sealer/internal/sourceerror"
	"github.com/sealerio/sealer/kubefile"
)

// Severity says how bad a finding is.
type Severity string

// The severities.
const (
	Error   Severity = "error"   // the build or the cluster fails, or a secret leaks
	Warning Severity = "warning" // it works, until something changes
)

// Options are what the Kubefile itself does not say.
type Options struct {
	BuildArgs map[string]string
	Platforms []ocispec.Platform // none: Linux on this machine's architecture
	Target    string             // the stage that is built; empty: the last
	Toolbox   string             // of --toolbox; empty: the Kubefile's, else sealer's own
	Lists     []List             // further files like imageList

	Context fs.FS // nil: nothing is said about it
	// Charts renders the charts in the context; nil: each of them is a finding.
	Charts chart.Renderer
	// Ignore are the patterns of the ignore file IgnoreName; nil: there is none.
	Ignore     []string
	IgnoreName string

	Skip []string // rules to leave out
}

// List is a file of image references, as --image-list takes it.
type List struct {
	Name    string // in messages
	Content []byte
}

// Finding is one place that a rule has something to say about.
type Finding struct {
	Rule     string   `json:"rule"`
	Severity Severity `json:"severity"`
	File     string   `json:"file"` // the Kubefile as Parse was given it, else relative to the context
	Line     int      `json:"line"` // counted from 1; 0: the whole file, as with what a chart makes
	Message  string   `json:"message"`
	Hint     string   `json:"hint,omitempty"`

	Text string `json:"-"` // the line; empty where it holds a secret
	Mark string `json:"-"` // the part of Text that is meant
}

// Show returns the finding with its line below it, without a line end.
func (f Finding) Show() string {
	shown := f.String()
	if f.Text != "" && f.Line > 0 {
		shown += "\n" + sourceerror.Excerpt(f.Line, f.Text, f.Mark)
	}
	if f.Hint != "" {
		shown += "\nhint: " + f.Hint
	}
	return shown
}

// String returns the finding on one line.
func (f Finding) String() string {
	where := f.File
	if f.Line > 0 {
		where = fmt.Sprintf("%s:%d", f.File, f.Line)
	}
	return fmt.Sprintf("%s: %s: %s [%s]", where, f.Severity, f.Message, f.Rule)
}

// UnknownRuleError names a rule that does not exist.
type UnknownRuleError struct {
	Name, Near string // Near: the rule that it resembles; empty where there is none
}

func (e *UnknownRuleError) Error() string {
	if e.Near != "" {
		return "there is no rule " + e.Name + " (did you mean " + e.Near + "?)"
	}
	return "there is no rule " + e.Name
}

// Hint says where the names are.
func (*UnknownRuleError) Hint() string { return "sealer lint --list shows all rules" }

// Source lints the text of a Kubefile; name is what messages call it. A file
// that does not parse gives findings too. The result is sorted by file and line.
// An error is an *UnknownRuleError in Skip, or the end of ctx.
func Source(ctx context.Context, name string, src []byte, o Options) ([]Finding, error) {
	for _, rule := range o.Skip {
		if _, err := Lookup(rule); err != nil {
			return nil, err
		}
	}
	if len(o.Platforms) == 0 {
		o.Platforms = []ocispec.Platform{{OS: "linux", Architecture: runtime.GOARCH}}
	}
	file, err := kubefile.Parse(name, src)
	if err != nil {
		return invalid(err), nil
	}
	var findings []Finding
	for _, platform := range o.Platforms {
		s, err := newSubject(file, o, platform)
		if err != nil {
			return invalid(err), nil
		}
		if s.discover(ctx); ctx.Err() != nil {
			return nil, ctx.Err()
		}
		for _, rule := range Rules() {
			s.rule = rule
			if rule.check != nil {
				rule.check(s)
			}
		}
		findings = append(findings, s.findings...)
	}
	findings = suppressed(file, o, withoutSecrets(findings))
	sortFindings(findings)
	return slices.CompactFunc(findings, func(a, b Finding) bool {
		return a.Rule == b.Rule && a.File == b.File && a.Line == b.Line && a.Message == b.Message
	}), nil
}

// withoutSecrets keeps lines that hold a secret out of all findings. Those that
// would quote one are left out: the rule about the secret has found the line.
func withoutSecrets(findings []Finding) []Finding {
	type place struct {
		file string
		line int
	}
	secret := map[place]bool{}
	for _, one := range findings {
		if one.Rule == ruleSecretName || secretIn(one.Text) != "" {
			secret[place{one.File, one.Line}] = true
		}
	}
	var kept []Finding
	for _, one := range findings {
		if secretIn(one.Message) != "" {
			continue
		}
		if secret[place{one.File, one.Line}] {
			one.Text = ""
		}
		kept = append(kept, one)
	}
	return kept
}

// invalid are the mistakes of a file as findings.
func invalid(err error) []Finding {
	var errs kubefile.Errors
	if one, ok := errors.AsType[*kubefile.PositionError](err); ok && !errors.As(err, &errs) {
		errs = kubefile.Errors{one}
	}
	var findings []Finding
	for _, one := range errs {
		findings = append(findings, Finding{
			Rule: ruleInvalid, Severity: Error, File: one.File, Line: one.Line,
			Message: one.Err.Error(), Hint: one.Hint(), Text: one.Text, Mark: one.Mark,
		})
	}
	return findings
}

func sortFindings(findings []Finding) {
	slices.SortStableFunc(findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Message, b.Message))
	})
}
