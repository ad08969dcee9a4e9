// SPDX-License-Identifier: Apache-2.0

package join

import (
	"fmt"
	"strings"
)

// Conflict is something that two images say differently.
type Conflict struct {
	// Kind is what it is about: "file", "image", "application", "env",
	// "runtime", "launch", "platform".
	Kind string
	// What names it: a path, an image, a variable.
	What string
	// First and Second are the images, with what they have.
	First, Second string
}

func (c Conflict) String() string {
	return fmt.Sprintf("%s %s: %s, and %s", c.Kind, c.What, c.First, c.Second)
}

// ConflictError lists all in which images that were to be merged disagree.
type ConflictError struct {
	Conflicts []Conflict
	// Final is set where there is no later one to prefer.
	Final bool
}

// maxShown bounds how many conflicts a message lists.
const maxShown = 50

func (e *ConflictError) Error() string {
	var text strings.Builder
	points := "points"
	if len(e.Conflicts) == 1 {
		points = "point"
	}
	fmt.Fprintf(&text, "the images disagree in %d %s:", len(e.Conflicts), points)
	for i, c := range e.Conflicts {
		if i == maxShown {
			fmt.Fprintf(&text, "\n  … and %d more", len(e.Conflicts)-maxShown)
			break
		}
		fmt.Fprintf(&text, "\n  %s", c)
	}
	return text.String()
}

// Hint tells the user what to do.
func (e *ConflictError) Hint() string {
	if e.Final {
		return "such images cannot be one: a cluster has one Kubernetes"
	}
	return "--on-conflict last takes what the later image has"
}
