// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"os"
	"strings"
	"unsafe"

	"github.com/sealerio/sealer/host"
)

// secretValue is a flag that holds a secret: it is shown nowhere, and its text
// is wiped from the arguments that the system lists for this process.
type secretValue struct{ secret *host.Secret }

func (v secretValue) Set(text string) error {
	*v.secret = host.Secret(strings.Clone(text))
	wipeArgument(text)
	return nil
}

func (v secretValue) String() string { return "" }
func (v secretValue) Type() string   { return "string" }

// wipeArgument overwrites text where it is a part of this process's argument
// block: Go's os.Args are views of that memory, which /proc/PID/cmdline and so
// ps show to every user of the machine. Text from anywhere else is left alone.
func wipeArgument(text string) {
	if text == "" {
		return
	}
	at := uintptr(unsafe.Pointer(unsafe.StringData(text))) //nolint:gosec // compared, not followed
	for _, arg := range os.Args {
		if arg == "" {
			continue
		}
		begin := uintptr(unsafe.Pointer(unsafe.StringData(arg))) //nolint:gosec // compared, not followed
		if at < begin || at+uintptr(len(text)) > begin+uintptr(len(arg)) {
			continue
		}
		block := unsafe.Slice(unsafe.StringData(text), len(text)) //nolint:gosec // inside os.Args, which is writable memory
		for i := range block {
			block[i] = '*'
		}
		return
	}
}
