// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/patternmatcher/ignorefile"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/sealerio/sealer/kubefile/lint"
)

type lintFlags struct {
	kubefile, target, toolbox, explain string
	output                             string
	platforms, buildArgs               []string
	imageLists, ignore                 []string
	strict, list                       bool
}

func newLint(a *app) *cobra.Command {
	var o lintFlags
	cmd := &cobra.Command{
		Use:   "lint [CONTEXT]",
		Short: "Look for mistakes in a Kubefile without building it",
		Long: `lint reads the Kubefile of the folder CONTEXT (default: the current one), the files that it
copies, and the lists and manifests that name its images. It builds nothing and asks no
network. The exit code is 1 where there is an error; with --strict, where there is anything.

A comment silences a rule for the instruction below it, or for the file:
  # sealer-lint ignore=RULE
  # sealer-lint ignore-file=RULE,RULE`,
		Example: `  sealer lint .
  sealer lint --strict --ignore arg-unused -f deploy/Kubefile .
  sealer lint --explain download-unchecked`,
		Args: atMostOne("CONTEXT"),
	}
	f := cmd.Flags()
	f.StringVarP(&o.kubefile, "file", "f", "", "path of the Kubefile, - for standard input (default: CONTEXT/Kubefile)")
	f.StringSliceVar(&o.ignore, "ignore", nil, "leave out this RULE (repeatable)")
	f.BoolVar(&o.strict, "strict", false, "exit 1 for warnings too")
	f.BoolVar(&o.list, "list", false, "list all rules")
	f.StringVar(&o.explain, "explain", "", "say what a RULE is about, with an example that it finds and one that it does not")
	f.StringSliceVar(&o.platforms, "platform", nil, "platforms to look at, such as linux/amd64 (default: this machine's)")
	f.StringArrayVar(&o.buildArgs, "build-arg", nil, "value of an ARG (NAME=VALUE, or NAME to take it from the environment; repeatable)")
	f.StringArrayVar(&o.imageLists, "image-list", nil, "also look at this list of images (repeatable)")
	f.StringVar(&o.target, "target", "", "the stage that is built (default: the last)")
	f.StringVar(&o.toolbox, "toolbox", "", "image that RUN instructions run in")
	f.StringVarP(&o.output, "output", "o", "text", "format of the result: "+strings.Join(lintFormats(), ", "))
	mustComplete(cmd, "output", lintFormats())
	var names []string
	for _, rule := range lint.Rules() {
		names = append(names, rule.Name)
	}
	mustComplete(cmd, "explain", names)
	mustComplete(cmd, "ignore", names)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch {
		case o.list:
			return a.listRules(cmd, o.output)
		case o.explain != "":
			return a.explainRule(cmd, o.output, o.explain)
		default:
			return a.lint(cmd, o, contextOf(args))
		}
	}
	return cmd
}

func lintFormats() []string { return []string{"text", "table", "json", "yaml", "sarif"} }

func (a *app) lint(cmd *cobra.Command, o lintFlags, contextDir string) error {
	if !slices.Contains(lintFormats(), o.output) {
		return usagef(cmd, "--output %q is not one of %s", o.output, strings.Join(lintFormats(), ", "))
	}
	options, err := o.options(cmd, contextDir)
	if err != nil {
		return err
	}
	path, src, err := a.readKubefile(o.kubefile, contextDir)
	if err != nil {
		return err
	}
	findings, err := lint.Source(cmd.Context(), path, src, options)
	if err != nil {
		return usagef(cmd, "%w", err)
	}
	for i, one := range findings { // what lies in the context is named from here, as the Kubefile is
		isList := slices.ContainsFunc(options.Lists, func(l lint.List) bool { return l.Name == one.File })
		if one.File != path && !isList {
			findings[i].File = filepath.Join(contextDir, one.File)
		}
	}
	if err := a.printFindings(cmd, o.output, findings); err != nil {
		return err
	}
	isBad := func(one lint.Finding) bool { return o.strict || one.Severity == lint.Error }
	if slices.ContainsFunc(findings, isBad) {
		return &exitStatusError{code: exitFailed}
	}
	return nil
}

func (o lintFlags) options(cmd *cobra.Command, contextDir string) (lint.Options, error) {
	options := lint.Options{Target: o.target, Toolbox: o.toolbox, Skip: o.ignore}
	charts, err := chartsProgram()
	if err != nil {
		return options, err
	}
	options.Charts = charts
	if len(o.platforms) > 0 {
		platforms, err := parsePlatforms(cmd, o.platforms)
		if err != nil {
			return options, err
		}
		options.Platforms = append([]ocispec.Platform(nil), platforms...)
	}
	if options.BuildArgs, err = parseBuildArgs(cmd, o.buildArgs); err != nil {
		return options, err
	}
	for _, name := range o.imageLists {
		content, err := readFileBounded(name)
		if err != nil {
			return options, fmt.Errorf("reading the image list: %w", err)
		}
		options.Lists = append(options.Lists, lint.List{Name: name, Content: content})
	}
	info, err := os.Stat(contextDir)
	if err != nil {
		return options, fmt.Errorf("build context: %w", err)
	}
	if !info.IsDir() {
		return options, fmt.Errorf("build context: %q is no folder", contextDir)
	}
	options.Context = os.DirFS(contextDir)
	options.IgnoreName, options.Ignore, err = readIgnoreFile(o.kubefile, contextDir)
	return options, err
}

// readIgnoreFile takes the ignore file that a build would: the Kubefile's own,
// ours, Docker's.
func readIgnoreFile(kubefile, contextDir string) (name string, patterns []string, err error) {
	if kubefile == "" || kubefile == "-" {
		kubefile = filepath.Join(contextDir, "Kubefile")
	}
	for _, path := range []string{
		kubefile + ".dockerignore", filepath.Join(contextDir, ".sealerignore"), filepath.Join(contextDir, ".dockerignore"),
	} {
		src, err := readFileBounded(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			patterns, err = ignorefile.ReadAll(bytes.NewReader(src))
		}
		if err != nil {
			return "", nil, fmt.Errorf("reading the ignore file %q: %w", path, err)
		}
		return filepath.Base(path), patterns, nil
	}
	return "", nil, nil
}

func readFileBounded(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	return readBounded(file)
}

func (a *app) printFindings(cmd *cobra.Command, format string, findings []lint.Finding) error {
	if findings == nil {
		findings = []lint.Finding{}
	}
	switch format {
	case "text":
		for _, one := range findings {
			if _, err := fmt.Fprintln(a.streams.Out, one.Show()); err != nil {
				return err
			}
		}
		return nil
	case "sarif":
		return a.print(cmd, "json", newSarif(findings), nil)
	default:
		return a.print(cmd, format, findings, func(t *table) {
			t.line("SEVERITY", "RULE", "WHERE", "MESSAGE")
			for _, one := range findings {
				t.line(string(one.Severity), one.Rule, fmt.Sprintf("%s:%d", one.File, one.Line), one.Message)
			}
		})
	}
}

// ruleDoc is a rule in JSON and YAML.
type ruleDoc struct {
	Name     string        `json:"name"`
	Severity lint.Severity `json:"severity"`
	Summary  string        `json:"summary"`
	Why      string        `json:"why"`
	Bad      string        `json:"bad"`
	Good     string        `json:"good"`
}

func newRuleDoc(r lint.Rule) ruleDoc {
	return ruleDoc{Name: r.Name, Severity: r.Severity, Summary: r.Summary, Why: r.Why, Bad: r.Bad.Kubefile, Good: r.Good.Kubefile}
}

func (a *app) listRules(cmd *cobra.Command, format string) error {
	var docs []ruleDoc
	for _, rule := range lint.Rules() {
		docs = append(docs, newRuleDoc(rule))
	}
	if format == "text" {
		format = "table"
	}
	return a.print(cmd, format, docs, func(t *table) {
		t.line("RULE", "SEVERITY", "FINDS")
		for _, doc := range docs {
			t.line(doc.Name, string(doc.Severity), doc.Summary)
		}
	})
}

func (a *app) explainRule(cmd *cobra.Command, format, name string) error {
	rule, err := lint.Lookup(name)
	if err != nil {
		return usagef(cmd, "%w", err)
	}
	if format != "text" {
		return a.print(cmd, format, newRuleDoc(rule), func(t *table) { t.line(rule.Name, string(rule.Severity), rule.Summary) })
	}
	_, err = io.WriteString(a.streams.Out, explanation(rule))
	return err
}

func explanation(rule lint.Rule) string {
	var text strings.Builder
	_, _ = fmt.Fprintf(&text, "%s (%s): %s.\n\n%s\n", rule.Name, rule.Severity, rule.Summary, wrap(rule.Why, 88))
	for _, example := range []struct {
		title string
		lint.Example
	}{{"This is found", rule.Bad}, {"This is not", rule.Good}} {
		_, _ = fmt.Fprintf(&text, "\n%s:\n\n%s", example.title, indented(example.Kubefile))
		for _, name := range slices.Sorted(maps.Keys(example.Files)) {
			_, _ = fmt.Fprintf(&text, "\n  with the file %s\n%s", name, indented(example.Files[name]))
		}
		if example.Ignore != "" {
			_, _ = fmt.Fprintf(&text, "\n  with the file .sealerignore\n%s", indented(example.Ignore))
		}
	}
	return text.String()
}

func indented(text string) string {
	var out strings.Builder
	for line := range strings.Lines(text) {
		out.WriteString("    " + line)
	}
	return out.String()
}

// wrap breaks a text into lines of at most width characters.
func wrap(text string, width int) string {
	var out strings.Builder
	column := 0
	for i, word := range strings.Fields(text) {
		n := len([]rune(word))
		switch {
		case i == 0:
		case column+1+n > width:
			out.WriteByte('\n')
			column = 0
		default:
			out.WriteByte(' ')
			column++
		}
		out.WriteString(word)
		column += n
	}
	return out.String()
}
