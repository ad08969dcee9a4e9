// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"strings"
	"testing"
)

func TestRun_Mistakes(t *testing.T) {
	for _, test := range []struct {
		args []string
		code int
		text string
	}{
		{[]string{"nonsense"}, exitUsage, `unknown command "nonsense"`},
		{[]string{"build", "more"}, exitUsage, `unexpected argument "more"`},
		{[]string{"build", "--nonsense"}, exitUsage, "unknown flag: --nonsense"},
		{[]string{"push"}, exitUsage, "--to"},
		{[]string{"push", "--to", "http://127.0.0.1:1", "--jobs", "0"}, exitUsage, "--jobs"},
		{[]string{"push", "--to", "127.0.0.1", "--dir", t.TempDir()}, exitFailed, "registry's address"},
		{[]string{"build", "--source", t.TempDir()}, exitFailed, "finding the sources"},
	} {
		t.Run(strings.Join(test.args[:1], " ")+" "+test.text, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			if code := Run(t.Context(), test.args, &stdout, &stderr); code != test.code {
				t.Errorf("exit code %d, want %d", code, test.code)
			}
			if !strings.Contains(stderr.String(), test.text) {
				t.Errorf("stderr does not say %q: %s", test.text, stderr.String())
			}
			if stdout.Len() > 0 {
				t.Errorf("stdout is for results, got %s", stdout.String())
			}
		})
	}
}
