// SPDX-License-Identifier: Apache-2.0

package lint

import (
	"errors"
	"fmt"
	"strings"

	"github.com/sealerio/sealer/kubefile"
)

const (
	ruleInvalid     = "kubefile-invalid"
	ruleUnknownRule = "suppression-unknown"
)

// fileRules are about the file itself.
func fileRules() []Rule {
	return []Rule{
		{
			Name: ruleInvalid, Severity: Error,
			Summary: "the file cannot be read as a Kubefile",
			Why:     "The build stops at such a line. All mistakes of the file are shown in one run.",
			Bad:     Example{Kubefile: "FROM scratch\nCOPI imageList manifests/\n"},
			Good:    Example{Kubefile: "FROM scratch\nCOPY imageList manifests/\n"},
			check: func(s *subject) {
				for _, err := range s.broken {
					s.findings = append(s.findings, invalid(err)...)
				}
			},
		},
		{
			Name: ruleUnknownRule, Severity: Warning,
			Summary: "a comment silences a rule that does not exist",
			Why:     "The comment has no effect. `sealer lint --list` shows the names of all rules.",
			Bad:     Example{Kubefile: "FROM scratch\n# sealer-lint ignore=download-uncheckd\nADD https://example.com/a.yaml manifests/\n"},
			Good:    Example{Kubefile: "FROM scratch\n# sealer-lint ignore=download-unchecked\nADD https://example.com/a.yaml manifests/\n"},
		},
		{
			Name: "directive-unknown", Severity: Warning,
			Summary: "a comment at the top looks like a directive, but is none",
			Why:     "It is taken as a comment. The directives are `# syntax=`, `# escape=`, `# check=` and `# toolbox=`.",
			Bad:     Example{Kubefile: "# tolbox=registry.example.com/tools:v1\nFROM scratch\n"},
			Good:    Example{Kubefile: "# toolbox=registry.example.com/tools:v1\nFROM scratch\n"},
			check:   fromWarnings(kubefile.UnknownDirective),
		},
		{
			Name: "continuation-blank", Severity: Warning,
			Summary: "an empty line stands inside a continued instruction",
			Why:     "Docker will refuse that one day, and readers take it for the end. `sealer fmt --write` takes it out.",
			Bad:     Example{Kubefile: "FROM scratch\nRUN mkdir etc && \\\n\n    touch etc/a\n"},
			Good:    Example{Kubefile: "FROM scratch\nRUN mkdir etc && \\\n    touch etc/a\n"},
			check:   fromWarnings(kubefile.EmptyContinuation),
		},
		{
			Name: "json-array-broken", Severity: Warning,
			Summary: "the arguments look like a JSON array, but are none",
			Why:     "They are taken as plain words, with the brackets and quotes in them. JSON has double quotes and no comma behind the last string.",
			Bad:     Example{Kubefile: "FROM scratch\nCMD ['kubectl', 'apply', '-f', 'manifests']\n"},
			Good:    Example{Kubefile: "FROM scratch\nCMD [\"kubectl\", \"apply\", \"-f\", \"manifests\"]\n"},
			check:   fromWarnings(kubefile.BrokenArray),
		},
		{
			Name: "maintainer-deprecated", Severity: Warning,
			Summary: "MAINTAINER is out of use",
			Why:     "OCI has a label for it, which every tool shows.",
			Bad:     Example{Kubefile: "FROM scratch\nMAINTAINER ops@example.com\n"},
			Good:    Example{Kubefile: "FROM scratch\nLABEL org.opencontainers.image.authors=\"ops@example.com\"\n"},
			check:   fromWarnings(kubefile.OldMaintainer),
		},
		{
			Name: "key-value-legacy", Severity: Warning,
			Summary: "ENV or LABEL is written without =",
			Why:     "`ENV NAME VALUE` takes the rest of the line, so a second variable becomes part of the first one's value. Write `NAME=VALUE`.",
			Bad:     Example{Kubefile: "FROM scratch\nENV PodCIDR 100.64.0.0/10\n"},
			Good:    Example{Kubefile: "FROM scratch\nENV PodCIDR=100.64.0.0/10\n"},
			check: func(s *subject) {
				s.each(func(_ *stage, line kubefile.Instruction) {
					words := strings.Fields(line.Text())
					if len(words) > 2 && (words[0] == "ENV" || words[0] == "LABEL") && !strings.Contains(words[1], "=") {
						s.report(line, words[1], fmt.Sprintf("%s takes the rest of the line as the value of %s: write %s %s=…", words[0], words[1], words[0], words[1]))
					}
				})
			},
		},
		{
			Name: "stage-unknown", Severity: Warning,
			Summary: "a stage is misspelt, so that its name is taken as an image's",
			Why:     "`COPY --from` takes a name that no stage has as an image, which is then asked for in a registry.",
			Bad:     Example{Kubefile: "FROM scratch AS tools\nRUN mkdir bin\n\nFROM scratch\nCOPY --from=tool bin bin\n"},
			Good:    Example{Kubefile: "FROM scratch AS tools\nRUN mkdir bin\n\nFROM scratch\nCOPY --from=tools bin bin\n"},
			check:   fromWarnings(kubefile.UnknownStage),
		},
		{
			Name: "stage-unreachable", Severity: Warning,
			Summary: "no stage that is built needs this one",
			Why:     "It is built for `--target` alone. Take it out, or use it with `FROM` or `COPY --from`.",
			Bad:     Example{Kubefile: "FROM scratch AS tools\nRUN mkdir bin\n\nFROM scratch\nCOPY imageList imageList\n"},
			Good:    Example{Kubefile: "FROM scratch AS tools\nRUN mkdir bin\n\nFROM scratch\nCOPY --from=tools bin bin\n"},
			check: func(s *subject) {
				for _, t := range s.stages {
					if !t.needed && !s.neededElsewhere(t) {
						s.report(t.From, t.Name, fmt.Sprintf("stage %s does not need stage %s: only --target builds it", s.last(), t))
					}
				}
			},
		},
	}
}

// fromWarnings reports what the parser has warned of.
func fromWarnings(kinds ...kubefile.WarningKind) func(*subject) {
	return func(s *subject) {
		for _, w := range s.file.Warnings {
			for _, kind := range kinds {
				if w.Kind == kind {
					s.reportLine(w.Line, "", w.Message)
				}
			}
		}
	}
}

// hintOf is the way out that an error knows.
func hintOf(err error) string {
	var hinted interface{ Hint() string }
	if errors.As(err, &hinted) {
		return hinted.Hint()
	}
	return ""
}
