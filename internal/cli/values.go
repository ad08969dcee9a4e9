// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/sealerio/sealer/cluster"
)

// Values of flags are held against their bounds as the command line is read, before anything else is.

const maxPort = 65535

// numberVar declares a flag whose value is a whole number from least to most; most may be math.MaxInt.
func numberVar(f *pflag.FlagSet, p *int, name, short string, value, least, most int, usage string) {
	*p = value
	f.VarP(number{p, least, most}, name, short, usage)
}

type number struct {
	value       *int
	least, most int
}

func (n number) Set(text string) error {
	v, err := strconv.Atoi(text)
	switch {
	case (err != nil || v < n.least) && n.most == math.MaxInt:
		return fmt.Errorf("it must be a whole number of at least %d", n.least)
	case err != nil || v < n.least || v > n.most:
		return fmt.Errorf("it must be a whole number between %d and %d", n.least, n.most)
	}
	*n.value = v
	return nil
}

func (n number) String() string {
	if n.value == nil {
		return "0"
	}
	return strconv.Itoa(*n.value)
}

func (n number) Type() string { return "int" }

// timeVar declares a flag whose value is a time that is longer than nothing.
func timeVar(f *pflag.FlagSet, p *time.Duration, name string, value time.Duration, usage string) {
	*p = value
	f.Var(span{p, false}, name, usage)
}

// timeOrNoneVar declares one that may be 0.
func timeOrNoneVar(f *pflag.FlagSet, p *time.Duration, name string, value time.Duration, usage string) {
	*p = value
	f.Var(span{p, true}, name, usage)
}

type span struct {
	value *time.Duration
	none  bool
}

func (s span) Set(text string) error {
	v, err := time.ParseDuration(text)
	switch {
	case (err != nil || v < 0) && s.none:
		return errors.New("it must be 0 or a time such as 90s, 10m or 1h30m")
	case err != nil || v <= 0 && !s.none:
		return errors.New("it must be a time such as 90s, 10m or 1h30m")
	}
	*s.value = v
	return nil
}

func (s span) String() string {
	if s.value == nil || *s.value == 0 {
		return "0"
	}
	return s.value.String()
}

func (s span) Type() string { return "duration" }

// batchValue is a number of workers, or a share of them.
type batchValue struct{ value *string }

func (b batchValue) Set(text string) error {
	if err := cluster.CheckBatch(text); err != nil {
		return errors.New("it must be a number of workers such as 3, or a share of all such as 10%")
	}
	*b.value = text
	return nil
}

func (b batchValue) String() string {
	if b.value == nil {
		return ""
	}
	return *b.value
}

func (b batchValue) Type() string { return "string" }

// jumpValue is a jump host, [USER@]HOST[:PORT].
type jumpValue struct{ value *string }

func (j jumpValue) Set(text string) error {
	if _, _, _, err := parseJump(text); err != nil {
		return err
	}
	*j.value = text
	return nil
}

func (j jumpValue) String() string {
	if j.value == nil {
		return ""
	}
	return *j.value
}

func (j jumpValue) Type() string { return "string" }

// parseJump takes [USER@]HOST[:PORT] apart; an IPv6 address may stand in brackets, and does before a port. 0: no port is said.
func parseJump(text string) (user, host string, port int, err error) {
	wrong := errors.New("it must be [USER@]HOST[:PORT], with a port between 1 and 65535")
	host = text
	if at := strings.LastIndexByte(text, '@'); at >= 0 {
		if user, host = text[:at], text[at+1:]; user == "" {
			return "", "", 0, wrong
		}
	}
	bare := host
	if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		bare = host[1 : len(host)-1]
	}
	if _, err := netip.ParseAddr(bare); err == nil {
		return user, bare, 0, nil
	}
	if strings.Contains(host, ":") {
		var digits string
		if host, digits, err = net.SplitHostPort(host); err == nil {
			port, err = strconv.Atoi(digits)
		}
		if err != nil || port < 1 || port > maxPort {
			return "", "", 0, wrong
		}
	}
	if host == "" || strings.ContainsAny(host, " \t/[]") {
		return "", "", 0, wrong
	}
	return user, host, port, nil
}
