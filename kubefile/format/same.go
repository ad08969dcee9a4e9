// SPDX-License-Identifier: Apache-2.0

package format

import (
	"encoding/json"
	"reflect"
	"strings"

	"github.com/sealerio/sealer/kubefile"
)

// same says whether two files mean the same: they differ in lines at most, and
// in how many spaces stand between the words of a shell's command.
func same(a, b *kubefile.File) bool {
	one, other := a.All(), b.All()
	if a.Directives != b.Directives || len(a.Stages) != len(b.Stages) || len(one) != len(other) {
		return false
	}
	for i, stage := range a.Stages {
		if stage.Name != b.Stages[i].Name || len(stage.Instructions) != len(b.Stages[i].Instructions) {
			return false
		}
	}
	for i := range one {
		if !sameInstruction(one[i], other[i]) {
			return false
		}
	}
	return true
}

func sameInstruction(a, b kubefile.Instruction) bool {
	if reflect.TypeOf(a) != reflect.TypeOf(b) {
		return false
	}
	if a.Text() != b.Text() { // its words; the case of AS is none of them
		if _, ok := a.(*kubefile.From); !ok || !strings.EqualFold(a.Text(), b.Text()) {
			return false
		}
	}
	return reflect.DeepEqual(fields(a), fields(b))
}

// fields is what an instruction says, without where it stands.
func fields(instruction kubefile.Instruction) map[string]any {
	raw, err := json.Marshal(instruction)
	if err != nil {
		return nil
	}
	all := map[string]any{}
	if err := json.Unmarshal(raw, &all); err != nil {
		return nil
	}
	delete(all, "Range")
	if all["Shell"] == true {
		collapseAll(all["Args"])
	}
	if _, ok := instruction.(*kubefile.Cmds); ok {
		collapseAll(all["Cmds"])
	}
	return all
}

// collapseAll makes one space of each run in the commands of a shell.
func collapseAll(commands any) {
	list, _ := commands.([]any)
	for i, one := range list {
		if line, ok := one.(string); ok {
			list[i] = collapsed(line, freeSpaces(command, line, 0))
		}
	}
}
