// SPDX-License-Identifier: Apache-2.0

package clusterfile

import (
	"fmt"
	"log/slog"
)

const redacted = "[redacted]"

// Secret is a password that shows as "[redacted]" wherever it is printed or
// logged, and that is never marshalled.
type Secret string

// Reveal is the only way to the value.
func (s Secret) Reveal() string { return string(s) }

func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return redacted
}

// Format covers every verb, %q, %x and %#v included.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(s.String())) }

// LogValue is for slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText is for JSON and YAML, where a field of this kind is not left out anyway.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
