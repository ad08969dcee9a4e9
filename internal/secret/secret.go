// SPDX-License-Identifier: Apache-2.0

// Package secret holds the one type that passwords, passphrases and tokens
// travel in.
package secret

import (
	"fmt"
	"log/slog"
)

const redacted = "[redacted]"

// Text is a string that shows as "[redacted]" wherever it is printed, logged
// or marshalled, whatever the verb. The empty Text shows as the empty string.
type Text string

// Reveal is the only way to the value.
func (s Text) Reveal() string { return string(s) }

func (s Text) String() string {
	if s == "" {
		return ""
	}
	return redacted
}

// Format covers every verb, %q, %x and %#v included.
func (s Text) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(s.String())) }

// LogValue is for slog.
func (s Text) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText is for JSON, YAML and the like.
func (s Text) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
