// SPDX-License-Identifier: Apache-2.0

package kubefile_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/kubefile"
)

func parse(t *testing.T, lines ...string) *kubefile.File {
	t.Helper()
	f, err := kubefile.Parse("Kubefile", []byte(strings.Join(lines, "\n")))
	require.NoError(t, err)
	return f
}

func options(args ...string) kubefile.ScopeOptions {
	o := kubefile.ScopeOptions{BuildArgs: map[string]string{}, Target: platform("arm64"), Build: platform("amd64")}
	for _, arg := range args {
		name, value, _ := strings.Cut(arg, "=")
		o.BuildArgs[name] = value
	}
	return o
}

func scope(t *testing.T, f *kubefile.File, args ...string) *kubefile.Scope {
	t.Helper()
	s, err := kubefile.NewScope(f, options(args...))
	require.NoError(t, err)
	return s
}

// expand expands the first stage and returns its variables and the last
// instruction, or the first error.
func expand(t *testing.T, f *kubefile.File, s *kubefile.Scope, baseEnv ...string) (*kubefile.StageScope, kubefile.Instruction, error) {
	t.Helper()
	vars := s.Stage(baseEnv)
	var last kubefile.Instruction
	for _, instruction := range f.Stages[0].Instructions {
		var err error
		if last, err = vars.Expand(instruction); err != nil {
			return vars, nil, err
		}
	}
	return vars, last, nil
}

func TestScope_From(t *testing.T) {
	for name, test := range map[string]struct {
		lines, args               []string
		image, platform, mistaken string
	}{
		"scratch":           {lines: []string{"FROM scratch"}, image: "scratch"},
		"quoted":            {lines: []string{`FROM "a/b:1"`}, image: "a/b:1"},
		"default":           {lines: []string{"ARG B=a/b:1", "FROM $B"}, image: "a/b:1"},
		"build arg":         {lines: []string{"ARG B=a/b:1", "FROM $B"}, args: []string{"B=c/d"}, image: "c/d"},
		"arch without ARG":  {lines: []string{"FROM a/b:${ARCH}"}, image: "a/b:arm64"},
		"platform":          {lines: []string{"FROM --platform=$BUILDPLATFORM a"}, image: "a", platform: "linux/amd64"},
		"not declared":      {lines: []string{"ARG BASE=a", "FROM ${BSE}"}, mistaken: "Kubefile:2: FROM ${BSE} names no image; not set above the first FROM: BSE (did you mean BASE?)"},
		"only in part":      {lines: []string{"FROM r.example.com/${X}:${Y}"}, mistaken: `Kubefile:1: FROM: "r.example.com/:" is not the name of an image: invalid reference format; not set above the first FROM: X, Y`},
		"no name":           {lines: []string{"ARG B=Up/Per", "FROM ${B}"}, mistaken: `Kubefile:2: FROM: "Up/Per" is not the name of an image: invalid reference format: repository name (Per) must be lowercase`},
		"no platform":       {lines: []string{"FROM --platform=$P a"}, mistaken: `Kubefile:1: FROM --platform=$P: "" has not the form os/arch[/variant]; not set above the first FROM: P`},
		"required":          {lines: []string{"ARG B", "FROM ${B:?needed}"}, mistaken: `Kubefile:2: expanding "${B:?needed}": B: needed`},
		"stage":             {lines: []string{"ARG S=one", "FROM scratch AS one", "FROM $S"}, image: "one"},
		"ARG after FROM":    {lines: []string{"FROM scratch", "ARG B=a", "FROM $B"}, mistaken: "Kubefile:3: FROM $B names no image; not set above the first FROM: B"},
		"later stage":       {lines: []string{"FROM two", "FROM scratch AS two", "FROM two"}, image: "two"},
		"platform override": {lines: []string{"FROM a:$ARCH"}, args: []string{"ARCH=riscv64"}, image: "a:riscv64"},
	} {
		t.Run(name, func(t *testing.T) {
			f := parse(t, test.lines...)
			image, platform, err := scope(t, f, test.args...).From(f.Stages[len(f.Stages)-1])
			if test.mistaken != "" {
				require.EqualError(t, err, test.mistaken)
				return
			}
			require.NoError(t, err)
			require.Equal(t, test.image, image)
			require.Equal(t, test.platform, platform)
		})
	}
}

func TestNewScope_Mistakes(t *testing.T) {
	f := parse(t, "ARG A=${X:?needed}", "ARG B=${Y:?too}", "FROM scratch")
	_, err := kubefile.NewScope(f, options())
	require.EqualError(t, err, "Kubefile:1: expanding \"${X:?needed}\": X: needed\nKubefile:2: expanding \"${Y:?too}\": Y: too")
	var errs kubefile.Errors
	require.ErrorAs(t, err, &errs)

	_, err = kubefile.NewScope(parse(t, "ARG A", "FROM scratch"), options("A=a\x00b"))
	require.EqualError(t, err, "Kubefile:1: the value of A is no text")
}

func TestScope_UnusedBuildArgs(t *testing.T) {
	f := parse(t, "ARG A", "FROM scratch", "ARG B=1", "FROM scratch", "ARG C")
	s := scope(t, f, "A=1", "B=1", "C=1", "D=1", "AA=1", "ARCH=x", "https_proxy=y", "NO_PROXY=z", "BUILDKIT_INLINE_CACHE=1", "SOURCE_DATE_EPOCH=0")
	require.Equal(t, []string{"AA", "D"}, s.UnusedBuildArgs())
	require.Equal(t, map[string]string{"https_proxy": "y", "NO_PROXY": "z"}, s.Proxy())
	require.Empty(t, scope(t, f).UnusedBuildArgs())
}

func TestStageScope_Env(t *testing.T) {
	f := parse(t, "ARG G=global", "FROM scratch",
		"ENV A=1 PATH=/new:$PATH", "ARG A=arg", "ARG B=b", "ARG G", "ARG NONE", "ENV A=2")
	vars, _, err := expand(t, f, scope(t, f), "PATH=/bin", "HOME=/root", "broken", "=x")
	require.NoError(t, err)
	require.Equal(t, []string{"PATH=/new:/bin", "HOME=/root", "A=2"}, vars.Env())
	require.Equal(t, []string{"PATH=/new:/bin", "HOME=/root", "A=2", "B=b", "G=global"}, vars.RunEnv()[:5])
	require.Contains(t, vars.RunEnv(), "ARCH=arm64")
	require.Contains(t, vars.RunEnv(), "TARGETPLATFORM=linux/arm64")
}

func TestStageScope_Child(t *testing.T) {
	f := parse(t, "FROM scratch AS one", "ENV A=1", "ARG B=b", "FROM one", "LABEL x=$A$B", "ENV A=2")
	vars, _, err := expand(t, f, scope(t, f))
	require.NoError(t, err)
	child := vars.Child()
	label, err := child.Expand(f.Stages[1].Instructions[0])
	require.NoError(t, err)
	require.Equal(t, []kubefile.KeyValue{{Key: "x", Value: "1b"}}, label.(*kubefile.Label).Labels)
	_, err = child.Expand(f.Stages[1].Instructions[1])
	require.NoError(t, err)
	require.Equal(t, []string{"A=2"}, child.Env())
	require.Equal(t, []string{"A=1"}, vars.Env(), "the parent stays as it is")
}

// Expand returns a copy: the file can be expanded again for another platform.
func TestStageScope_ExpandCopies(t *testing.T) {
	f := parse(t, "FROM scratch", "COPY --exclude=$ARCH $ARCH <<EOF /x/", "$ARCH", "EOF",
		"RUN --mount=type=cache,id=$ARCH,target=/c x", "ARG A=$ARCH", "ENV E=$ARCH", "LABEL l=$ARCH", "ADD $ARCH y")
	_, _, err := expand(t, f, scope(t, f))
	require.NoError(t, err)
	stage := f.Stages[0].Instructions
	require.Equal(t, []string{"$ARCH"}, stage[0].(*kubefile.Copy).Sources)
	require.Equal(t, "$ARCH\n", stage[0].(*kubefile.Copy).Heredocs[0].Content)
	require.Equal(t, "$ARCH", *stage[2].(*kubefile.Arg).Vars[0].Value)
	require.Equal(t, "$ARCH", stage[3].(*kubefile.Env).Vars[0].Value)
	require.Equal(t, "$ARCH", stage[4].(*kubefile.Label).Labels[0].Value)
	require.Equal(t, []string{"$ARCH"}, stage[5].(*kubefile.Add).Sources)

	again := scope(t, f, "ARCH=riscv64").Stage(nil)
	run, err := again.Expand(stage[1])
	require.NoError(t, err)
	require.Equal(t, "riscv64", run.(*kubefile.Run).Mounts[0].CacheID)
	copied, err := again.Expand(stage[0])
	require.NoError(t, err)
	require.Equal(t, []string{"$ARCH"}, copied.(*kubefile.Copy).Exclude, "patterns are taken as written")
	require.Equal(t, "COPY --exclude=$ARCH $ARCH <<EOF /x/ ($ARCH)", copied.Text(), "a text shows no values")
}

func TestStageScope_Mistakes(t *testing.T) {
	for line, want := range map[string]string{
		"COPY $NO x":                              "Kubefile:2: the source $NO is empty",
		"COPY a $NO":                              "Kubefile:2: the destination $NO is empty",
		"COPY a b $ARCH":                          "Kubefile:2: COPY of 2 sources needs a folder as destination (did you mean arm64/?)",
		"COPY --chmod=9$NO a b":                   "Kubefile:2: --chmod=9: it is octal, up to 7777, or as in u=rwX,go=rX",
		"COPY ${X:-https://example.com} b":        "Kubefile:2: COPY takes no URL: write ADD https://example.com",
		"ADD --checksum=$NO https://a.b/ c":       "",
		"ADD --checksum=${X:-abc} https://a.b/ c": "Kubefile:2: ADD --checksum=abc: it has the form sha256:… with 64 hexadecimal digits: invalid checksum digest format",
		"ENV $NO=x":                               "Kubefile:2: ENV has an empty name",
		"LABEL $NO=x":                             "Kubefile:2: LABEL has an empty name",
		`LABEL a="${X:?is needed}"`:               `Kubefile:2: expanding "\"${X:?is needed}\"": X: is needed`,
		"RUN --mount=type=${X:-y},target=/ a":     `Kubefile:2: RUN --mount: unsupported mount type "y"`,
		"RUN --mount=type=cache,target=$X a":      "Kubefile:2: RUN --mount=type=cache needs target=FOLDER",
		"ARG A=${X:?no}":                          `Kubefile:2: expanding "${X:?no}": X: no`,
	} {
		f := parse(t, "FROM scratch", line)
		_, _, err := expand(t, f, scope(t, f))
		if want == "" {
			require.NoError(t, err, line)
			continue
		}
		require.EqualError(t, err, want)
		var position *kubefile.PositionError
		require.ErrorAs(t, err, &position)
		require.Equal(t, line, position.Text)
	}
}

func TestStageScope_EnvName(t *testing.T) {
	f := parse(t, "FROM scratch", "ARG X=a=b", "ENV $X=c")
	_, _, err := expand(t, f, scope(t, f))
	require.EqualError(t, err, `Kubefile:3: ENV "a=b": a name cannot hold =`)
}

// Variables that double themselves are stopped before they fill the memory.
func TestStageScope_Bomb(t *testing.T) {
	lines := []string{"FROM scratch", "ENV A=xxxxxxxxxxxxxxxx"}
	for range 40 {
		lines = append(lines, "ENV A=$A$A")
	}
	f := parse(t, lines...)
	_, _, err := expand(t, f, scope(t, f))
	require.EqualError(t, err, "Kubefile:16: the value of A has 262144 bytes, more than the 131072 that a variable may have")

	f = parse(t, "FROM scratch", "LABEL a="+strings.Repeat("$A", 30000))
	_, _, err = expand(t, f, scope(t, f), "A="+strings.Repeat("x", 100<<10))
	require.ErrorContains(t, err, "the values have more than 1048576 bytes")
	require.Less(t, len(err.Error()), 300, "a message stays readable")
}
