// SPDX-License-Identifier: Apache-2.0

package lint

import (
	"fmt"
	"regexp"

	"github.com/sealerio/sealer/kubefile"
)

const ruleSecretName = "secret-in-variable"

// secretRules are about passwords and keys. Their findings never show the line.
func secretRules() []Rule {
	return []Rule{
		{
			Name: ruleSecretName, Severity: Warning,
			Summary: "the name of an ARG, ENV, APPENV or LABEL says that it holds a secret",
			Why:     "Values of ENV and LABEL stand in the image for everybody who can pull it, and those of ARG in its history. A build gets secrets with RUN --mount=type=secret, a cluster with Kubernetes Secrets that are made when it runs.",
			Bad:     Example{Kubefile: "FROM scratch\nARG REGISTRY_PASSWORD\nRUN wget --header \"Authorization: $REGISTRY_PASSWORD\" https://example.com/a.txt && sha256sum -c a.sum\n"},
			Good:    Example{Kubefile: "FROM scratch\nRUN --mount=type=secret,id=registry wget --header \"$(cat /run/secrets/registry)\" https://example.com/a.txt && sha256sum -c a.sum\n"},
			check: func(s *subject) {
				for _, arg := range s.file.Args {
					s.secretNames("ARG", arg)
				}
				s.each(func(_ *stage, line kubefile.Instruction) {
					switch line.(type) {
					case *kubefile.Arg:
						s.secretNames("ARG", line)
					case *kubefile.Env:
						s.secretNames("ENV", line)
					case *kubefile.AppEnv:
						s.secretNames("APPENV", line)
					case *kubefile.Label:
						s.secretNames("LABEL", line)
					}
				})
			},
		},
		{
			Name: "secret-in-value", Severity: Error,
			Summary: "a private key, a token or a password stands in the file",
			Why:     "It is in the repository, in the image, and in every copy of both. Take it out, make it invalid where it was issued, and pass its successor as a secret.",
			Bad:     Example{Kubefile: "FROM scratch\nRUN wget https://deploy:hunter2@example.com/app.yaml && sha256sum -c app.sum\n"},
			Good:    Example{Kubefile: "FROM scratch\nRUN --mount=type=secret,id=netrc,target=/root/.netrc wget https://example.com/app.yaml && sha256sum -c app.sum\n"},
			check: func(s *subject) {
				for i, line := range s.file.Layout() {
					if what := secretIn(line.Text); what != "" && line.Kind != kubefile.CommentLine {
						s.add(s.file.Name, i+1, "", "", "the line holds "+what)
					}
				}
			},
		},
	}
}

// The words are those of BuildKit's own check, without auth and key alone,
// which name other things more often than secrets.
var (
	secretName = regexp.MustCompile(`(?i)(^|[_.-])(api_?key|access_?key|private_?key|secret_?key|credentials?|passwd|password|pword|secret|token)([_.-]|$)`)
	publicName = regexp.MustCompile(`(?i)(^|[_.-])(public|file|path|version|name|url|ttl|image|id|namespace)([_.-]|$)`)
)

func (s *subject) secretNames(word string, line kubefile.Instruction) {
	check := func(name, value string, isSet bool) {
		if isSet && value == "" || !secretName.MatchString(name) || publicName.MatchString(name) {
			return
		}
		s.report(line, name, fmt.Sprintf("%s %s: what it holds stands in the image for all who can pull it", word, name))
		s.findings[len(s.findings)-1].Text = ""
	}
	switch c := line.(type) {
	case *kubefile.Arg:
		for _, v := range c.Vars {
			check(v.Name, "", false)
		}
	case *kubefile.Env:
		for _, v := range c.Vars {
			check(v.Key, v.Value, true)
		}
	case *kubefile.AppEnv:
		for _, v := range c.Vars {
			check(v.Key, v.Value, true)
		}
	case *kubefile.Label:
		for _, v := range c.Labels {
			check(v.Key, v.Value, true)
		}
	}
}

// secretIn says which kind of secret a text holds; empty: none that has a form
// of its own.
func secretIn(text string) string {
	for _, known := range []struct{ what, pattern string }{
		{"a private key", `-----BEGIN ([A-Z]+ )*PRIVATE KEY-----`},
		{"an access key of AWS", `\b(AKIA|ASIA)[0-9A-Z]{16}\b`},
		{"a token of GitHub", `\b(gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{60,})\b`},
		{"a token of GitLab", `\bglpat-[A-Za-z0-9_-]{20,}`},
		{"a token of Slack", `\bxox[abprs]-[A-Za-z0-9-]{10,}`},
		{"a URL with a password", `\b[a-z][a-z0-9+.-]*://[^/\s:@$"']+:[^/\s:@$"'<>{}]+@[A-Za-z0-9]`},
	} {
		if regexp.MustCompile(known.pattern).MatchString(text) {
			return known.what
		}
	}
	return ""
}
