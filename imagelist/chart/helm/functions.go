// SPDX-License-Identifier: Apache-2.0

package helm

import (
	"errors"
	"fmt"
	"strings"
	"text/template"
)

// maxMade is how much one call of a function may make: bytes of a text, or
// elements of a list.
const maxMade = 1 << 20

// functions replace those of Helm that make much of little. A tolerant engine
// goes on where a chart asks for a value that it was not given.
func functions(tolerant bool) template.FuncMap {
	funcs := template.FuncMap{
		"repeat":    repeat,
		"indent":    indent,
		"nindent":   func(n int, text string) (string, error) { out, err := indent(n, text); return "\n" + out, err },
		"until":     func(n int) ([]int, error) { return untilStep(0, n, sign(n)) },
		"untilStep": untilStep,
	}
	if tolerant {
		funcs["required"] = func(_ string, value any) (any, error) {
			if value == nil {
				return "", nil
			}
			return value, nil
		}
		funcs["fail"] = func(string) string { return "" }
	} else {
		funcs["fail"] = func(message string) (string, error) { return "", errors.New(message) }
		funcs["required"] = func(message string, value any) (any, error) {
			if value == nil || value == "" {
				return nil, errors.New(message)
			}
			return value, nil
		}
	}
	return funcs
}

func repeat(n int, text string) (string, error) {
	if n > 0 && len(text) > maxMade/n {
		return "", fmt.Errorf("repeating %d bytes %d times: %w", len(text), n, errTooMuch)
	}
	return strings.Repeat(text, max(0, n)), nil
}

func indent(n int, text string) (string, error) {
	if n > 0 && strings.Count(text, "\n")+1 > 16*maxMade/n {
		return "", fmt.Errorf("indenting by %d: %w", n, errTooMuch)
	}
	pad := strings.Repeat(" ", max(0, n))
	return pad + strings.ReplaceAll(text, "\n", "\n"+pad), nil
}

func sign(n int) int {
	if n < 0 {
		return -1
	}
	return 1
}

func untilStep(start, stop, step int) ([]int, error) {
	list := []int{}
	if step == 0 || (step > 0) != (stop > start) {
		return list, nil
	}
	if (stop-start)/step > maxMade {
		return nil, fmt.Errorf("counting from %d to %d: %w", start, stop, errTooMuch)
	}
	for i := start; (step > 0 && i < stop) || (step < 0 && i > stop); i += step {
		list = append(list, i)
	}
	return list, nil
}
