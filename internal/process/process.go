// SPDX-License-Identifier: Apache-2.0

// Package process tells what this process is called by others of this machine, for messages such as "waiting for …".
package process

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// outerID is the environment variable that holds the id, where this process is in a pid namespace of its own.
const outerID = "SEALER_OUTER_PID"

// ID is the number under which other processes of this machine know this one. In a pid namespace of its own that is what
// SetID was told, else the usual one.
func ID() int {
	if id, err := strconv.Atoi(os.Getenv(outerID)); err == nil {
		return id
	}
	return os.Getpid()
}

// SetID notes the number for this process, and for those that it starts.
func SetID(id string) error { return os.Setenv(outerID, id) }

// Command is the program with its first argument: "sealer build". More could hold a secret.
func Command() string {
	name := filepath.Base(os.Args[0])
	if self, err := os.Executable(); err == nil {
		name = filepath.Base(self) // a copy of this program may have another name in its arguments
	}
	if len(os.Args) > 1 && !strings.HasPrefix(os.Args[1], "-") {
		name += " " + os.Args[1]
	}
	return name
}
