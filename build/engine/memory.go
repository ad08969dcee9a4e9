// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"os"
	"runtime/debug"
	"strconv"
)

const (
	collectVariable = "GOGC" // https://pkg.go.dev/runtime#hdr-Environment_Variables
	// collectPercent is how much a heap grows before it is collected. Most commands end before they have collected what
	// would matter: a heap is a few megabytes, and buffers are bounded.
	collectPercent = 400
)

// CollectLate lets this process collect garbage less often than Go would, unless GOGC says how often. Isolate's copy does
// so from its start.
func CollectLate() {
	if os.Getenv(collectVariable) == "" {
		debug.SetGCPercent(collectPercent)
	}
}

// lateEnvironment is this process' environment, for a copy of it.
func lateEnvironment() []string {
	env := os.Environ()
	if os.Getenv(collectVariable) == "" {
		env = append(env, collectVariable+"="+strconv.Itoa(collectPercent))
	}
	return env
}
