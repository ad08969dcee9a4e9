// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"path/filepath"

	"github.com/sealerio/sealer/internal/version"
	"github.com/sealerio/sealer/kubefile/lint"
)

// sarif is what code review tools read:
// https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html.
type sarif struct {
	Schema  string     `json:"$schema"`
	Version string     `json:"version"`
	Runs    []sarifRun `json:"runs"`
}

type sarifRun struct {
	Tool struct {
		Driver struct {
			Name    string      `json:"name"`
			Version string      `json:"version"`
			Rules   []sarifRule `json:"rules"`
		} `json:"driver"`
	} `json:"tool"`
	Results []sarifResult `json:"results"`
}

type sarifRule struct {
	ID               string    `json:"id"`
	ShortDescription sarifText `json:"shortDescription"`
	FullDescription  sarifText `json:"fullDescription"`
}

type sarifText struct {
	Text string `json:"text"`
}

type sarifResult struct {
	RuleID    string          `json:"ruleId"`
	Level     string          `json:"level"` // error or warning
	Message   sarifText       `json:"message"`
	Locations []sarifLocation `json:"locations"`
}

type sarifLocation struct {
	PhysicalLocation struct {
		ArtifactLocation struct {
			URI string `json:"uri"`
		} `json:"artifactLocation"`
		Region struct {
			StartLine int `json:"startLine"`
		} `json:"region"`
	} `json:"physicalLocation"`
}

func newSarif(findings []lint.Finding) sarif {
	run := sarifRun{Results: []sarifResult{}}
	run.Tool.Driver.Name, run.Tool.Driver.Version = "sealer lint", version.Version()
	for _, rule := range lint.Rules() {
		run.Tool.Driver.Rules = append(run.Tool.Driver.Rules, sarifRule{
			ID: rule.Name, ShortDescription: sarifText{rule.Summary}, FullDescription: sarifText{rule.Why},
		})
	}
	for _, one := range findings {
		var location sarifLocation
		location.PhysicalLocation.ArtifactLocation.URI = filepath.ToSlash(one.File)
		location.PhysicalLocation.Region.StartLine = max(1, one.Line)
		run.Results = append(run.Results, sarifResult{
			RuleID: one.Rule, Level: string(one.Severity), Message: sarifText{one.Message}, Locations: []sarifLocation{location},
		})
	}
	return sarif{Schema: "https://json.schemastore.org/sarif-2.1.0.json", Version: "2.1.0", Runs: []sarifRun{run}}
}
