// SPDX-License-Identifier: Apache-2.0

package kubefile

import (
	"fmt"
	"slices"
	"strings"
)

// checkApplications looks at what LAUNCH, CMDS, APP and their like say of one
// another in a stage.
func (p *parsing) checkApplications(stage *Stage) {
	p.checkLast(stage)
	apps, commands := map[string]int{}, map[string]int{} // name to line
	version := 0
	for _, instruction := range stage.Instructions {
		line := instruction.Lines().First
		switch c := instruction.(type) {
		case *App:
			if first := apps[c.Name]; first > 0 {
				p.fail(line, c.Name, fmt.Errorf("%s %s: an application of this name stands already in line %d", c.Word, c.Name, first))
				continue
			}
			apps[c.Name] = line
		case *AppCmds:
			if first := commands[c.Name]; first > 0 {
				p.fail(line, c.Name, fmt.Errorf("APPCMDS %s stands already in line %d", c.Name, first))
				continue
			}
			commands[c.Name] = line
		case *KubeVersion:
			if version > 0 {
				p.fail(line, "", fmt.Errorf("KUBEVERSION stands already in line %d; several bounds are one line: KUBEVERSION >=1.20, <1.25", version))
				continue
			}
			version = line
		}
	}
	known, complete := p.file.Applications(stage)
	if !complete || p.noApp {
		return // the base's are for who knows the base
	}
	for _, instruction := range stage.Instructions {
		if err := CheckNames(instruction, known); err != nil {
			p.fail(instruction.Lines().First, markOf(err), err)
		}
	}
}

// checkLast holds that LAUNCH and CMDS end their stage, and that LAUNCH stands
// with no CMD.
func (p *parsing) checkLast(stage *Stage) {
	command := 0
	for i, instruction := range stage.Instructions {
		line := instruction.Lines().First
		var word string
		switch instruction.(type) {
		case *Cmd, *Entrypoint:
			if command == 0 {
				command = line
			}
			continue
		case *Launch:
			word = "LAUNCH"
			if command > 0 {
				p.fail(line, "", fmt.Errorf("LAUNCH and CMD exclude each other: one stands in line %d; give the application's command as APPCMDS, or start everything with CMD", command))
			}
		case *Cmds:
			word = "CMDS"
		default:
			continue
		}
		if i == len(stage.Instructions)-1 {
			continue
		}
		next := stage.Instructions[i+1]
		text, _, _ := strings.Cut(next.Text(), " ")
		p.fail(line, "", fmt.Errorf("%s is the last instruction of a stage, and stands once: %s follows in line %d", word, text, next.Lines().First))
	}
}

// Applications returns the names of the applications that a stage has, sorted,
// and whether these are all: those of a base image are not known here.
func (f *File) Applications(stage *Stage) (names []string, complete bool) {
	for {
		for _, instruction := range stage.Instructions {
			if app, ok := instruction.(*App); ok {
				names = append(names, app.Name)
			}
		}
		slices.Sort(names)
		names = slices.Compact(names)
		parent, ok := f.LookupName(stage.From.Image, stage.Index)
		if !ok {
			return names, stage.From.Image == "scratch"
		}
		stage = parent
	}
}

// CheckNames says whether an instruction names an application that is not among
// known.
func CheckNames(instruction Instruction, known []string) error {
	var word string
	var names []string
	switch c := instruction.(type) {
	case *Launch:
		word, names = "LAUNCH", c.Apps
	case *AppCmds:
		word, names = "APPCMDS", []string{c.Name}
	case *AppEnv:
		word, names = "APPENV", []string{c.Name}
	}
	for _, name := range names {
		if slices.Contains(known, name) {
			continue
		}
		have := "there is none"
		if len(known) > 0 {
			have = "there are " + strings.Join(known, ", ")
		}
		return &markedError{name, fmt.Errorf("%s %s: no APP, CNI or CSI has this name%s; %s", word, name, didYouMean(name, known), have)}
	}
	return nil
}
