// SPDX-License-Identifier: Apache-2.0

// Package redact takes secrets out of text that is handed on: those that are known, and what looks like one. It
// would rather take too much.
package redact

import (
	"cmp"
	"encoding/base64"
	"regexp"
	"slices"
	"strings"
)

// Mark stands where a secret was.
const Mark = "[redacted]"

// minSecret is the shortest known secret that is looked for, in bytes: shorter ones stand in words.
const minSecret = 6

// Redactor takes secrets out of texts. It may be used by many at once.
type Redactor struct {
	known  *strings.Replacer
	shapes []shape
}

type shape struct {
	pattern *regexp.Regexp
	// with is what stands in its place, as Regexp.Expand has it; empty: Mark.
	with string
	// value is the group that is the value of a setting: only it goes, and a path or nothing stays; 0: none is.
	value int
}

// New is a Redactor that knows secrets: each is found as it stands, in base64 and line by line.
func New(secrets ...string) *Redactor {
	seen := map[string]bool{}
	var all []string
	add := func(s string) {
		if s = strings.TrimSpace(s); len(s) >= minSecret && !seen[s] {
			seen[s] = true
			all = append(all, s)
		}
	}
	for _, s := range secrets {
		add(s)
		if len(s) < minSecret {
			continue
		}
		add(base64.StdEncoding.EncodeToString([]byte(s)))
		add(base64.StdEncoding.EncodeToString([]byte(s + "\n")))
		add(base64.URLEncoding.EncodeToString([]byte(s)))
		if strings.Contains(strings.TrimSpace(s), "\n") {
			for line := range strings.Lines(s) {
				if len(line) > 16 { // of a key; shorter ones are "}" and the like
					add(line)
				}
			}
		}
	}
	// Of two that begin alike the longer one is taken.
	slices.SortFunc(all, func(a, b string) int { return cmp.Or(cmp.Compare(len(b), len(a)), strings.Compare(a, b)) })
	var pairs []string
	for _, s := range all {
		pairs = append(pairs, s, Mark)
	}
	return &Redactor{known: strings.NewReplacer(pairs...), shapes: shapes()}
}

// names of settings whose values are secrets.
const names = `passw(?:or)?d|auth[-_]?pass|passphrase|secret|token|api[-_]?key|access[-_]?key|private[-_]?key|client-key-data|client-certificate-data|certificate-key|credential|htpasswd`

// value is that of a setting: in quotes, in quotes that stand in a text, or one word.
const value = `\[redacted\]|"(?:[^"\\\n]|\\.)*"|\\"[^"\n]*?\\"|'[^'\n]*'|[^\s"',;}\]]+`

func shapes() []shape {
	return []shape{
		{pattern: regexp.MustCompile(`(?s)-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\z)`)},
		{pattern: regexp.MustCompile(`LS0tLS1CRUdJTi[A-Za-z0-9+/=_-]{16,}`)},                                  // PEM in base64
		{pattern: regexp.MustCompile(`\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*`)},            // JWT
		{pattern: regexp.MustCompile(`\b[a-z0-9]{6}\.[a-z0-9]{16}\b`)},                                        // kubeadm's bootstrap token
		{pattern: regexp.MustCompile(`\bK10[0-9a-f]{64}::[^\s"']+`)},                                          // k3s' token
		{pattern: regexp.MustCompile(`\bH4sI[A-Za-z0-9+/=_-]{60,}`)},                                          // k0s' token: gzip in base64
		{pattern: regexp.MustCompile(`\bAKIA[0-9A-Z]{16}\b`)},                                                 // AWS
		{pattern: regexp.MustCompile(`\$(?:2[aby]|5|6|y|apr1)\$[^\s:"']{16,}`)},                               // crypt(3)
		{pattern: regexp.MustCompile(`(?i)\b(basic|bearer)(\s+)[A-Za-z0-9+/=._~-]{8,}`), with: "$1$2" + Mark}, // RFC 7617, 6750
		{pattern: regexp.MustCompile(`([a-zA-Z][a-zA-Z0-9+.-]*://)[^/\s:@"']*:[^/\s@"']+@`), with: "$1" + Mark + "@"},
		{pattern: regexp.MustCompile(`(?i)(\bauthorization\\?["']?\s*[:=][ \t]*)(` + value + `)`), value: 2},
		{pattern: regexp.MustCompile(`(?i)(--[\w-]*(?:` + names + `)[\w-]*[ =])(` + value + `)`), value: 2},
		{pattern: regexp.MustCompile(`(?i)([\w./-]*(?:` + names + `)[\w./-]*\\?["']?\s*[:=]>?[ \t]*)(` + value + `)`), value: 2},
	}
}

// Text is s without secrets.
func (r *Redactor) Text(s string) string {
	s = r.known.Replace(s)
	for _, p := range r.shapes {
		switch {
		case p.value > 0:
			s = p.pattern.ReplaceAllStringFunc(s, func(found string) string {
				at := p.pattern.FindStringSubmatchIndex(found)
				return found[:at[2*p.value]] + hidden(found[at[2*p.value]:])
			})
		case p.with == "":
			s = p.pattern.ReplaceAllLiteralString(s, Mark)
		default:
			s = p.pattern.ReplaceAllString(s, p.with)
		}
	}
	return s
}

// hidden is a value without what it says. Its quotes stay: JSON stays JSON.
func hidden(value string) string {
	bare := strings.Trim(value, `\"'`)
	switch strings.ToLower(bare) {
	case "", "true", "false", "null", "nil", "none", "<none>", "<nil>", "<set":
		return value // it tells that there is one, or none
	}
	if strings.HasPrefix(bare, "/") || strings.HasPrefix(bare, Mark) {
		return value // where it is
	}
	for _, quote := range []string{`\"`, `"`, `'`} {
		if strings.HasPrefix(value, quote) && strings.HasSuffix(value, quote) {
			return quote + Mark + quote
		}
	}
	return Mark
}
