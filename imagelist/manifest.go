// SPDX-License-Identifier: Apache-2.0

package imagelist

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// ParseManifests reads a file of Kubernetes objects, as YAML or JSON, one or
// many, and returns every image that they name: those of the containers and
// image volumes of every kind of Kubernetes, and in custom resources the values
// of keys called image, or a repository with its tag or digest. Variables,
// arguments and other texts that read like an image are candidates.
//
// What cannot be read as the name of an image is a Problem. A document that is
// no YAML is an error (Errors); the other documents of the file are still read.
// In a template (a file .tmpl, or a document that is no YAML because of its
// {{ }}) the images are found that do not depend on values; the others are
// Problems.
func ParseManifests(file string, src []byte, options ...Option) ([]Image, []Problem, error) {
	if len(src) > MaxFile {
		return nil, nil, tooLarge(file, int64(len(src)))
	}
	s := &scan{source: newSource(file, src), configMaps: newConfig(options).configMaps}
	isTemplate := path.Ext(file) == ".tmpl"
	for _, doc := range documents(s.source.lines) {
		s.document(doc, isTemplate)
	}
	sortProblems(s.problems)
	if len(s.errs) > 0 {
		return Merge(s.images), s.problems, s.errs
	}
	return Merge(s.images), s.problems, nil
}

// document is part of a file: its text and how many lines stand before it.
type document struct {
	text   string
	before int
}

// documents splits a stream at its --- lines, so that a mistake in one document
// does not hide the others. Such a line ends a document wherever it stands, in
// strings too: https://yaml.org/spec/1.2.2/#9.2-document-markers.
func documents(lines []string) []document {
	var docs []document
	begin, hasContent := 0, false
	flush := func(end int) {
		if hasContent {
			docs = append(docs, document{strings.Join(lines[begin:end], "\n") + "\n", begin})
		}
		begin, hasContent = end, false
	}
	for i, line := range lines {
		marker := line == "---" || strings.HasPrefix(line, "--- ") || strings.HasPrefix(line, "---\t")
		switch {
		case marker && hasContent:
			flush(i)
			hasContent = strings.TrimSpace(line[3:]) != ""
		case marker:
			hasContent = strings.TrimSpace(line[3:]) != ""
		case strings.TrimSpace(line) != "" && line[0] != '#' && line[0] != '%':
			hasContent = true
		}
	}
	flush(len(lines))
	return docs
}

// scan collects what one file holds.
type scan struct {
	source     source
	configMaps bool // what ConfigMaps hold is taken, too
	values     bool // what is no Kubernetes object is taken, too
	depth      int  // of files in files
	images     []Image
	problems   []Problem
	errs       Errors
}

func (s *scan) document(doc document, isTemplate bool) {
	isTemplate = isTemplate && strings.Contains(doc.text, "{{")
	text := doc.text
	if isTemplate {
		text = mask(text)
	}
	roots, err := parse(text)
	if err != nil && !isTemplate && strings.Contains(doc.text, "{{") {
		isTemplate = true
		roots, err = parse(mask(doc.text))
	}
	if err != nil {
		s.broken(doc, err, isTemplate)
		return
	}
	for _, root := range roots {
		w := &walk{scan: s, before: doc.before}
		w.root(root)
	}
}

// broken reports a document that is no YAML.
func (s *scan) broken(doc document, err error, isTemplate bool) {
	line := 1
	if syntax, ok := errors.AsType[*syntaxError](err); ok {
		line = max(1, syntax.line)
	}
	line = s.source.clamp(doc.before + line)
	for line < doc.before+strings.Count(doc.text, "\n") && strings.Trim(s.source.lines[line-1], "- \t") == "" {
		line++ // the parser counts some mistakes from the line before
	}
	if isTemplate {
		s.problems = append(s.problems, s.source.problemAt(line,
			fmt.Sprintf("the template is no YAML without its values (%v): write its images into imageList", err)))
		return
	}
	text := s.source.lines[line-1]
	if indent := text[:len(text)-len(strings.TrimLeft(text, " \t"))]; strings.ContainsRune(indent, '\t') {
		err = fmt.Errorf("a tab indents the line, where YAML takes spaces only: %w", err)
	}
	s.errs = append(s.errs, s.source.errorAt(line, fmt.Errorf("reading YAML: %w", err)))
}

// maskRune stands for what a template puts in: a character for private use,
// which YAML takes and no reference has.
const maskRune = '\ue000'

var action = regexp.MustCompile(`(?s)\{\{.*?\}\}`)

// mask puts maskRune in the place of a template's actions, keeps the lines, and
// empties those that hold nothing else.
func mask(text string) string {
	text = action.ReplaceAllStringFunc(text, func(found string) string {
		return string(maskRune) + strings.Repeat("\n", strings.Count(found, "\n"))
	})
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if strings.Trim(line, " \t"+string(maskRune)) == "" {
			lines[i] = ""
		}
	}
	return strings.Join(lines, "\n")
}

// parse reads one document: JSON where it is that, else YAML.
func parse(text string) ([]*yaml.Node, error) {
	if trimmed := strings.TrimSpace(text); strings.HasPrefix(trimmed, "{") || strings.HasPrefix(trimmed, "[") {
		if roots, err := parseJSON(text); err == nil {
			return roots, nil
		}
	}
	decoder := yaml.NewDecoder(bytes.NewReader([]byte(text)))
	var roots []*yaml.Node
	for {
		var root yaml.Node
		err := decoder.Decode(&root)
		if errors.Is(err, io.EOF) {
			return roots, nil
		}
		if err != nil {
			return nil, newSyntaxError(err)
		}
		roots = append(roots, &root)
	}
}

// syntaxError is an error of the YAML parser with its line, 0 where that is
// not known.
type syntaxError struct {
	line    int
	message string
}

func (e *syntaxError) Error() string { return e.message }

var yamlPosition = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

// newSyntaxError takes the line out of the parser's message, the one place
// where it stands. A message of another form stays whole.
func newSyntaxError(err error) *syntaxError {
	match := yamlPosition.FindStringSubmatch(err.Error())
	if match == nil {
		return &syntaxError{0, err.Error()}
	}
	line, _ := strconv.Atoi(match[1]) // no number: 0
	return &syntaxError{line, strings.TrimPrefix(err.Error(), match[0])}
}
