// SPDX-License-Identifier: Apache-2.0

package format_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"mvdan.cc/sh/v3/syntax"

	"github.com/sealerio/sealer/kubefile"
	"github.com/sealerio/sealer/kubefile/format"
)

func TestSource(t *testing.T) {
	for name, c := range map[string]struct{ in, want string }{
		"mistake": {"FROM a\nONBUILD_ x\n", ""},
		"sealer's own": {"FROM scratch\napp  a  local://x.yaml \\\n local://y.yaml\nappcmds a [\"b  c\",  \\\n\"d\"]\nappenv a  X='1  2'\nkubeversion >= 1.20,  <1.30\nlaunch  [\"a\"]",
			"FROM scratch\nAPP a local://x.yaml \\\n    local://y.yaml\nAPPCMDS a [\"b  c\", \\\n    \"d\"]\nAPPENV a X='1  2'\nKUBEVERSION >= 1.20,  <1.30\nLAUNCH [\"a\"]\n"},
		"commands":     {"FROM a\ncmds a  b &&\\\n c\n", "FROM a\nCMDS a  b && \\\n    c\n"},
		"other shell":  {"FROM a\nSHELL [\"python3\", \"-c\"]\nRUN x \\\n  y\n", "FROM a\nSHELL [\"python3\", \"-c\"]\nRUN x \\\n  y\n"},
		"flags":        {"FROM a\nRUN   --mount=type=cache,target=/x  \\\n --network=none   a  b\n", "FROM a\nRUN --mount=type=cache,target=/x \\\n    --network=none a  b\n"},
		"case":         {"from a as b\ncopy  x   y\nenv  A=b\tC='d  e'\n", "FROM a AS b\nCOPY x y\nENV A=b C='d  e'\n"},
		"line ends":    {"\ufeffFROM a\r\nCOPY x y \t\r\n", "FROM a\nCOPY x y\n"},
		"blank lines":  {"\n\nFROM a\n\n\n\nCOPY x y\n\n\n", "FROM a\n\nCOPY x y\n"},
		"stages":       {"ARG A\nFROM a\nCOPY x y\n# the second\n# one\nFROM b\nFROM c", "ARG A\nFROM a\nCOPY x y\n\n# the second\n# one\nFROM b\n\nFROM c\n"},
		"continued":    {"FROM a\nRUN  x  y\\\n && z \\ \n\t\t# why\n\n      w\\\nv\n", "FROM a\nRUN x  y \\\n    && z \\\n\t\t# why\n    w\\\nv\n"},
		"quoted":       {"FROM a\nRUN echo 'a \\\n  b' \\\n  c\n", "FROM a\nRUN echo 'a \\\n  b' \\\n    c\n"},
		"old ENV":      {"FROM a\nenv  A  b  c \\\n  d\n", "FROM a\nENV A  b  c \\\n  d\n"},
		"array":        {"FROM a\nCMD [ \"a  b\",\\\n\"c\" ]\n", "FROM a\nCMD [ \"a  b\",\\\n\"c\" ]\n"},
		"heredoc":      {"FROM a\nrun  <<E\n  a  \\\n\n\n# b\nE\nCOPY <<-F  x\n\ty\n\tF\n", "FROM a\nRUN <<E\n  a  \\\n\n\n# b\nE\nCOPY <<-F x\n\ty\n\tF\n"},
		"escape":       {"# escape=`\nFROM a\nRUN a `\n  b\\\nCOPY a `\n b\n", "# escape=`\nFROM a\nRUN a `\n    b\\\nCOPY a `\n    b\n"},
		"no directive": {"\n\n# escape=`\nFROM a\nRUN a \\\n  b\n", "\n# escape=`\nFROM a\nRUN a \\\n    b\n"},
		"comment":      {"  #   a   b  \nFROM a\n    #c\t\n", "  #   a   b  \nFROM a\n    #c\t\n"},
		"empty lines":  {"FROM a\nRUN a \\\n   \\\n\\\nb\\\n# end\n", "FROM a\nRUN a \\\n    b\n# end\n"},
		"here string":  {"FROM a\nRUN cat <<<'a  b' &&\\\n     c\n", "FROM a\nRUN cat <<<'a  b' &&\\\n     c\n"},
		"substitution": {"FROM a\nRUN x=\"$(echo \"a\\\n    b\")\"\n", "FROM a\nRUN x=\"$(echo \"a\\\n    b\")\"\n"},
	} {
		if c.want == "" {
			_, err := format.Source("Kubefile", []byte(c.in))
			var errs kubefile.Errors
			require.ErrorAs(t, err, &errs, name)
			continue
		}
		got, err := format.Source("Kubefile", []byte(c.in))
		require.NoError(t, err, name)
		require.Equal(t, c.want, string(got), name)
		checkMeaning(t, []byte(c.in), got)
	}
}

// checkMeaning compares what two texts of a file mean with means of its own:
// commands by a shell's parser.
func checkMeaning(t *testing.T, src, result []byte) {
	t.Helper()
	before, err := kubefile.Parse("Kubefile", src)
	require.NoError(t, err)
	after, err := kubefile.Parse("Kubefile", result)
	require.NoError(t, err, "%q", result)
	require.Equal(t, before.Directives, after.Directives)
	one, other := before.All(), after.All()
	require.Len(t, other, len(one))
	for i := range one {
		require.IsType(t, one[i], other[i])
		require.Equal(t, strings.ToUpper(one[i].Text()), strings.ToUpper(other[i].Text()))
		switch a := one[i].(type) {
		case *kubefile.Run:
			b := other[i].(*kubefile.Run)
			require.Equal(t, a.Heredocs, b.Heredocs)
			require.Equal(t, a.Mounts, b.Mounts)
			require.Equal(t, shell(a.Shell, a.Script(), a.Args), shell(b.Shell, b.Script(), b.Args))
		case *kubefile.Cmd:
			b := other[i].(*kubefile.Cmd)
			require.Equal(t, shell(a.Shell, a.Args[0], a.Args), shell(b.Shell, b.Args[0], b.Args))
		case *kubefile.Copy:
			b := other[i].(*kubefile.Copy)
			require.Equal(t, []any{a.Sources, a.Dest, a.From, a.Chown, a.Chmod, a.Heredocs}, []any{b.Sources, b.Dest, b.From, b.Chown, b.Chmod, b.Heredocs})
		case *kubefile.Env:
			require.Equal(t, a.Vars, other[i].(*kubefile.Env).Vars)
		case *kubefile.Label:
			require.Equal(t, a.Labels, other[i].(*kubefile.Label).Labels)
		case *kubefile.Arg:
			require.Equal(t, a.Vars, other[i].(*kubefile.Arg).Vars)
		case *kubefile.App:
			b := other[i].(*kubefile.App)
			require.Equal(t, []any{a.Name, a.Sources, a.Checksum}, []any{b.Name, b.Sources, b.Checksum})
		case *kubefile.AppCmds:
			require.Equal(t, a.Cmds, other[i].(*kubefile.AppCmds).Cmds)
		case *kubefile.AppEnv:
			require.Equal(t, a.Vars, other[i].(*kubefile.AppEnv).Vars)
		case *kubefile.Cmds:
			b := other[i].(*kubefile.Cmds)
			require.Len(t, b.Cmds, len(a.Cmds))
			for n := range a.Cmds {
				require.Equal(t, shell(true, a.Cmds[n], nil), shell(true, b.Cmds[n], nil))
			}
		case *kubefile.Launch:
			require.Equal(t, a.Apps, other[i].(*kubefile.Launch).Apps)
		case *kubefile.Workdir:
			require.Equal(t, a.Path, other[i].(*kubefile.Workdir).Path)
		case *kubefile.Shell:
			require.Equal(t, a.Args, other[i].(*kubefile.Shell).Args)
		}
	}
	require.Equal(t, comments(before), comments(after))
}

// comments are those outside of heredocs, as they stand there.
func comments(f *kubefile.File) []string {
	var list []string
	for _, line := range f.Layout() {
		if line.Kind == kubefile.CommentLine {
			list = append(list, strings.TrimRight(line.Text, "\r"))
		}
	}
	return list
}

// shell returns a command as a shell reads it; where it could not read it, its
// words.
func shell(isShell bool, script string, args []string) []string {
	if !isShell {
		return args
	}
	file, err := syntax.NewParser(syntax.Variant(syntax.LangBash)).Parse(strings.NewReader(script), "")
	if err != nil {
		return strings.Fields(script)
	}
	var text strings.Builder
	if err := syntax.NewPrinter(syntax.Minify(true)).Print(&text, file); err != nil {
		return strings.Fields(script)
	}
	return []string{text.String()}
}

func corpus(tb testing.TB) []string {
	tb.Helper()
	files, err := filepath.Glob("../testdata/*/*.kubefile")
	require.NoError(tb, err)
	require.NotEmpty(tb, files)
	return files
}

// Every file of the parser's corpus keeps its meaning, and is canonical then.
func TestSource_Corpus(t *testing.T) {
	for _, name := range corpus(t) {
		src, err := os.ReadFile(name)
		require.NoError(t, err)
		check(t, src)
	}
}

func check(t *testing.T, src []byte) {
	t.Helper()
	if _, err := kubefile.Parse("Kubefile", src); err != nil {
		_, err := format.Source("Kubefile", src)
		require.Error(t, err)
		return
	}
	once, err := format.Source("Kubefile", src)
	require.NoError(t, err)
	checkMeaning(t, src, once)
	twice, err := format.Source("Kubefile", once)
	require.NoError(t, err)
	require.Equal(t, string(once), string(twice))
}

// FuzzSource holds for every file that parses: it keeps its meaning and its
// comments, and formatting it again changes nothing.
func FuzzSource(f *testing.F) {
	for _, name := range corpus(f) {
		src, err := os.ReadFile(name)
		require.NoError(f, err)
		f.Add(src)
	}
	f.Fuzz(func(t *testing.T, src []byte) { check(t, src) })
}
