// SPDX-License-Identifier: Apache-2.0

package convert_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/build/convert"
	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/internal/goldenfile"
	"github.com/sealerio/sealer/kubefile"
)

func options(t *testing.T, f *kubefile.File) convert.Options {
	t.Helper()
	target, build := ocispec.Platform{OS: "linux", Architecture: "arm64"}, ocispec.Platform{OS: "linux", Architecture: "amd64"}
	scope, err := kubefile.NewScope(f, kubefile.ScopeOptions{BuildArgs: map[string]string{"GIVEN": "given"}, Target: target, Build: build})
	require.NoError(t, err)
	return convert.Options{
		Scope: scope, Target: target, Build: build, Epoch: time.Unix(7, 0), Source: llb.NewSourceMap(nil, f.Name, "Dockerfile", f.Source),
		Image: func(_ context.Context, name string, p ocispec.Platform) (convert.Base, error) {
			b := convert.Base{State: llb.Image(name, llb.Platform(p)), Digest: digest.FromString(name).String()}
			b.Config.Config.Env = []string{"PATH=/base/bin", "BASE=yes"}
			if strings.HasPrefix(name, "cluster") {
				ext := clusterimage.Extension{
					Applications: []clusterimage.Application{{Name: "flannel", Type: "kube"}, {Name: "old", Type: "shell", Files: []string{"x.sh"}}},
					Launch:       clusterimage.Launch{Cmds: []string{"of the base"}, AppNames: []string{"flannel"}},
				}
				b.Config.Config.Labels = map[string]string{clusterimage.LabelExtension: string(ext.Marshal()), "base": "label"}
			}
			return b, nil
		},
		Context: func(paths []string) llb.State { return llb.Local("context", llb.FollowPaths(paths)) },
		Toolbox: func(context.Context) (convert.Toolbox, error) {
			return convert.Toolbox{State: llb.Image("toolbox", llb.Platform(build)), Env: []string{"PATH=/bin"}}, nil
		},
	}
}

// TestToLLB compares what every Kubefile in testdata becomes.
func TestToLLB(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.kubefile")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			src, err := os.ReadFile(file)
			require.NoError(t, err)
			f, err := kubefile.Parse("Kubefile", src)
			require.NoError(t, err)
			made, err := convert.ToLLB(t.Context(), f, options(t, f))
			require.NoError(t, err)
			got := describe(t, "rootfs", made.State) + describe(t, "added", made.Added)
			config, err := json.MarshalIndent(struct {
				Config    ocispec.Image
				Extension clusterimage.Extension
				Apps      []convert.App      `json:",omitempty"`
				Warnings  []kubefile.Warning `json:",omitempty"`
			}{made.Config, made.Extension, made.Apps, made.Warnings}, "", "  ")
			require.NoError(t, err)
			got += string(config) + "\n"
			golden := strings.TrimSuffix(file, ".kubefile") + ".golden"
			if goldenfile.Updating() {
				require.NoError(t, os.WriteFile(golden, []byte(got), 0o644))
			}
			want, err := os.ReadFile(golden)
			require.NoError(t, err)
			require.Equal(t, string(want), got)
		})
	}
}

// describe writes a graph as text: a line for each operation, inputs by number.
func describe(t *testing.T, name string, st llb.State) string {
	t.Helper()
	var out strings.Builder
	fmt.Fprintf(&out, "%s:\n", name)
	if st.Output() == nil {
		return out.String() + "  nothing\n"
	}
	def, err := st.Marshal(t.Context(), llb.LinuxAmd64)
	require.NoError(t, err)
	number := map[string]int{}
	for i, data := range def.Def {
		var op pb.Op
		require.NoError(t, op.UnmarshalVT(data))
		d := digest.FromBytes(data)
		number[d.String()] = i
		var inputs []string
		for _, in := range op.Inputs {
			inputs = append(inputs, fmt.Sprintf("#%d.%d", number[in.Digest], in.Index))
		}
		if op.Op == nil { // the last one only points at the result
			fmt.Fprintf(&out, "  result %s\n", strings.Join(inputs, " "))
			continue
		}
		fmt.Fprintf(&out, "  #%d %s%s%s\n", i, operation(&op), strings.Join(append([]string{""}, inputs...), " "), source(def, d))
	}
	return out.String()
}

func source(def *llb.Definition, d digest.Digest) string {
	where := ""
	if locations := def.Source.Locations[d.String()]; locations != nil {
		for _, l := range locations.Locations {
			for _, r := range l.Ranges {
				where += fmt.Sprintf(" (line %d)", r.Start.Line)
			}
		}
	}
	return where
}

func operation(op *pb.Op) string {
	platform := ""
	if op.Platform != nil {
		platform = " " + op.Platform.Architecture
	}
	switch o := op.Op.(type) {
	case *pb.Op_Source:
		text := "source " + o.Source.Identifier
		for _, k := range slices.Sorted(keys(o.Source.Attrs)) {
			if k == pb.AttrFollowPaths || k == pb.AttrHTTPChecksum {
				text += " " + k + "=" + o.Source.Attrs[k]
			}
		}
		return text + platform
	case *pb.Op_Exec:
		m := o.Exec.Meta
		text := fmt.Sprintf("exec %q in %s env %q network %s", m.Args, m.Cwd, m.Env, o.Exec.Network)
		for _, mount := range o.Exec.Mounts {
			text += fmt.Sprintf(" mount %s=%d>%d", mount.Dest, mount.Input, mount.Output)
			if mount.Readonly {
				text += "(ro)"
			}
			if mount.MountType != pb.MountType_BIND {
				text += "(" + mount.MountType.String() + ")"
			}
		}
		return text + platform
	case *pb.Op_File:
		text := "file"
		for _, a := range o.File.Actions {
			switch a := a.Action.(type) {
			case *pb.FileAction_Copy:
				c := a.Copy
				text += fmt.Sprintf(" copy %s > %s at %d", c.Src, c.Dest, c.Timestamp/1e9)
				if c.Owner != nil {
					text += fmt.Sprintf(" owner %v:%v", c.Owner.User.GetUser(), c.Owner.Group.GetUser())
				}
				if c.Mode >= 0 || c.ModeStr != "" {
					text += fmt.Sprintf(" mode %o%s", c.Mode, c.ModeStr)
				}
				text += strings.TrimRight(fmt.Sprintf(" %s %s", strings.Join(c.IncludePatterns, ","), strings.Join(c.ExcludePatterns, ",")), " ")
				if c.AttemptUnpackDockerCompatibility {
					text += " unpack"
				}
			case *pb.FileAction_Mkfile:
				text += fmt.Sprintf(" mkfile %s %q", a.Mkfile.Path, a.Mkfile.Data)
			case *pb.FileAction_Rm:
				text += " rm " + a.Rm.Path
			case *pb.FileAction_Mkdir:
				text += " mkdir " + a.Mkdir.Path
			}
		}
		return text + platform
	case *pb.Op_Merge:
		return "merge"
	case *pb.Op_Diff:
		return "diff"
	}
	return fmt.Sprintf("%T", op.Op)
}

func keys(m map[string]string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

func TestToLLB_Mistakes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ src, want string }{
		{"FROM scratch\nRUN --security=insecure true\n", "Kubefile:2: RUN --security=insecure is not supported: a step gets no privileges of the machine that builds"},
		{"FROM scratch\nLABEL io.sealer.clusterimage={}\n", "Kubefile:2: the label io.sealer.clusterimage is written by sealer itself"},
		{"FROM scratch\n\nRUN --mount=type=cache,target=/rootfs true\n", "Kubefile:3: RUN --mount=type=cache: the target cannot be the root of the files"},
	} {
		f, err := kubefile.Parse("Kubefile", []byte(c.src))
		require.NoError(t, err)
		_, err = convert.ToLLB(t.Context(), f, options(t, f))
		require.EqualError(t, err, c.want)
	}
}
