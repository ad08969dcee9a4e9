// SPDX-License-Identifier: Apache-2.0

package kubefile_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/kubefile"
)

func TestParse_Types(t *testing.T) {
	_, err := kubefile.Parse("deep/Kubefile", []byte("FROM scratch\nEXPOSE 80\nLUNCH\n"))
	var refused *kubefile.RefusedError
	require.ErrorAs(t, err, &refused)
	require.Equal(t, "EXPOSE", refused.Instruction)
	var unknown *kubefile.UnknownInstructionError
	require.ErrorAs(t, err, &unknown)
	require.Equal(t, "LUNCH", unknown.Word)
	require.Equal(t, "LAUNCH", unknown.Near)
	var errs kubefile.Errors
	require.ErrorAs(t, err, &errs)
	require.Equal(t, "deep/Kubefile:2: EXPOSE is refused: a ClusterImage has no container that listens; ports are of the Services in its manifests\n"+
		"deep/Kubefile:3: unknown instruction LUNCH (did you mean LAUNCH?)", err.Error())
	require.Equal(t, `deep/Kubefile:2: EXPOSE is refused: a ClusterImage has no container that listens; ports are of the Services in its manifests
   2 | EXPOSE 80
     | ^^^^^^
deep/Kubefile:3: unknown instruction LUNCH (did you mean LAUNCH?)
   3 | LUNCH
     | ^^^^^`, errs.Show())
}

// A file of rubbish gives a bounded number of errors in a bounded time.
func TestParse_Rubbish(t *testing.T) {
	for _, line := range []string{"LUNCH", "ENV A=1 B", `RUN ["a", 1]`} {
		_, err := kubefile.Parse("Kubefile", []byte(strings.Repeat(line+"\n", 5000)))
		var errs kubefile.Errors
		require.ErrorAs(t, err, &errs)
		require.LessOrEqual(t, len(errs), 100)
	}
	_, err := kubefile.Parse("Kubefile", make([]byte, 5<<20))
	require.EqualError(t, err, "Kubefile:1: the file has 5242880 bytes, more than the 4194304 that a Kubefile may have")
}

// Documents may be long as a whole: only single lines are bounded.
func TestParse_LongHeredoc(t *testing.T) {
	doc := strings.Repeat(strings.Repeat("x", 1000)+"\n", 500)
	f := parse(t, "FROM scratch", "COPY <<EOF a.yaml", strings.TrimSuffix(doc, "\n"), "EOF", "RUN x")
	require.Equal(t, doc, f.Stages[0].Instructions[0].(*kubefile.Copy).Heredocs[0].Content)
	require.Equal(t, kubefile.Range{First: 504, Last: 504}, f.Stages[0].Instructions[1].Lines())
}

func TestFile_LookupStage(t *testing.T) {
	f := parse(t, "FROM scratch AS one", "FROM scratch", "FROM scratch AS Three")
	for ref, want := range map[string]int{"one": 0, "ONE": 0, "three": 2, "0": 0, "2": 2, "3": -1, "-1": -1, "four": -1, "": -1} {
		stage, ok := f.LookupStage(ref, len(f.Stages))
		require.Equal(t, want >= 0, ok, ref)
		if ok {
			require.Equal(t, want, stage.Index)
		}
	}
	_, ok := f.LookupStage("three", 2)
	require.False(t, ok, "a later stage does not count")
	_, ok = f.LookupName("0", 3)
	require.False(t, ok)
	require.Equal(t, "one", f.Stages[0].String())
	require.Equal(t, "1", f.Stages[1].String())
}

// The Kubefiles that sealer's own users have: the instructions of this release.
func TestParse_FieldUse(t *testing.T) {
	f := parse(t, "FROM scratch", "COPY ${ARCH} .", "COPY $ARCH .", "COPY f1 f2 dest/", "COPY --from=base --chown=1 a b",
		"cmd kubectl apply -f a", "CMD kubectl apply -f b", "ENV k=v k2='v 2' k3=\"x=y\"", "env old form")
	require.Len(t, f.Stages[0].Instructions, 8)
	vars, last, err := expand(t, f, scope(t, f))
	require.NoError(t, err)
	require.Equal(t, []string{"k=v", "k2=v 2", "k3=x=y", "old=form"}, vars.Env())
	require.IsType(t, &kubefile.Env{}, last)
	require.Equal(t, []string{"f1", "f2"}, f.Stages[0].Instructions[2].(*kubefile.Copy).Sources)
	require.Equal(t, "1", f.Stages[0].Instructions[3].(*kubefile.Copy).Chown)
}

func TestDestination(t *testing.T) {
	for _, c := range []struct{ workdir, dest, want string }{
		{"", ".", "/"}, {"", "/", "/"}, {"/", "a", "/a"}, {"", "a/", "/a/"}, {"", "a/.", "/a/"}, {"", "a/..", "/"}, {"", "../x", "/x"},
		{"/etc", "x", "/etc/x"}, {"/etc", ".", "/etc/"}, {"/etc", "/x", "/x"},
		{"", "manifests", "/manifests/"}, {"", "./registry", "/registry/"}, {"/etc", "manifests", "/etc/manifests"}, {"/etc", "../bin", "/bin/"},
	} {
		require.Equal(t, c.want, kubefile.Destination(c.workdir, c.dest), c)
	}
}
