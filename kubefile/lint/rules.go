// SPDX-License-Identifier: Apache-2.0

package lint

import (
	"slices"

	"github.com/moby/buildkit/util/suggest"
)

// Rule is one thing that is looked for.
type Rule struct {
	Name     string
	Severity Severity
	Summary  string // half a sentence: what a finding says
	Why      string // what goes wrong, and what to do
	Bad      Example
	Good     Example

	check func(*subject) // nil: found where the file is read
}

// Example is a Kubefile that a rule finds or does not find, with the files of
// its context that matter.
type Example struct {
	Kubefile string
	Files    map[string]string // by path; nil: what is in the context does not matter
	Ignore   string            // the patterns of .sealerignore
}

// Rules returns all rules, sorted by name.
func Rules() []Rule {
	all := slices.Concat(
		fileRules(), imageRules(), downloadRules(), variableRules(), secretRules(), contextRules(), packedRules(), runRules(), clusterRules())
	slices.SortFunc(all, func(a, b Rule) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return all
}

// Lookup finds a rule by its name. An error is an *UnknownRuleError.
func Lookup(name string) (Rule, error) {
	var names []string
	for _, rule := range Rules() {
		if rule.Name == name {
			return rule, nil
		}
		names = append(names, rule.Name)
	}
	near, _ := suggest.Search(name, names, true)
	return Rule{}, &UnknownRuleError{Name: name, Near: near}
}
