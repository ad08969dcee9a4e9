// SPDX-License-Identifier: Apache-2.0

package convert

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/kubefile"
)

// command adds what CMD says to what is run once the cluster is up.
func (s *stage) command(i *kubefile.Cmd) {
	s.launch.Cmds = append(s.launch.Cmds, s.commandLines(i)...)
}

// entrypoint does the same before the CMDs of this Kubefile, and behind what the base runs.
func (s *stage) entrypoint(i *kubefile.Entrypoint) {
	lines := s.commandLines(&i.Cmd)
	at := min(len(s.inherited.Launch.Cmds)+s.entrypoints, len(s.launch.Cmds))
	s.launch.Cmds = slices.Insert(s.launch.Cmds, at, lines...)
	s.entrypoints += len(lines)
}

// commandLines is a CMD as lines for the shell.
func (s *stage) commandLines(c *kubefile.Cmd) []string {
	lines := c.ShellLines()
	if lines == nil {
		return []string{s.inDir(shellWords(c.Args))}
	}
	var out []string
	for _, line := range lines {
		line = s.variables(line)
		if s.shell != nil {
			line = shellWords(append(slices.Clone(s.shell), line))
		}
		out = append(out, s.inDir(line))
	}
	return out
}

// inDir is a line that is run in WORKDIR. It begins in the root of the rootfs.
func (s *stage) inDir(line string) string {
	dir := strings.Trim(s.dir, "/")
	if dir == "" {
		return line
	}
	return "cd " + clusterimage.Quote(dir) + " || exit; " + line
}

// kubernetesVariable is a variable as Kubernetes writes it in commands, and sealos in CMD.
var kubernetesVariable = regexp.MustCompile(`\$\(([A-Za-z_][A-Za-z0-9_]*)\)`)

// variables turns $(NAME) into ${NAME}, where NAME is a variable of the image: for the shell the first would be a command.
func (s *stage) variables(line string) string {
	return kubernetesVariable.ReplaceAllStringFunc(line, func(written string) string {
		name := written[len("$(") : len(written)-1]
		if !slices.ContainsFunc(s.scope.Env(), func(e string) bool { return strings.HasPrefix(e, name+"=") }) {
			return written
		}
		return "${" + name + "}"
	})
}

func shellWords(args []string) string {
	words := make([]string, len(args))
	for i, w := range args {
		words[i] = clusterimage.Quote(w)
	}
	return strings.Join(words, " ")
}

// Command is what an image launches as an OCI config has it, for tools that know no ClusterImage. nil: nothing.
func Command(e clusterimage.Extension) []string {
	lines := e.Script()
	if len(lines) == 0 {
		return nil
	}
	return []string{"/bin/sh", "-ec", strings.Join(lines, "\n")}
}

// launch converts LAUNCH: it names all applications that are started, those of the base with them.
func (c *converter) launch(s *stage, i *kubefile.Launch) error {
	if err := kubefile.CheckNames(i, s.appNames()); err != nil {
		return err
	}
	for _, name := range s.launch.AppNames {
		if !slices.Contains(i.Apps, name) {
			s.warn(c.file, i, fmt.Sprintf("%s, which the base starts, is not among these applications and will not be started", name))
		}
	}
	if len(s.launch.AppNames) == 0 {
		s.launch.After = len(s.launch.Cmds)
	}
	s.launch.AppNames = i.Apps
	return nil
}

func (s *stage) appNames() []string {
	var names []string
	for _, a := range s.apps {
		names = append(names, a.Name)
	}
	return names
}

func (s *stage) warn(f *kubefile.File, i kubefile.Instruction, message string) {
	line := i.Lines().First
	s.warnings = append(s.warnings, kubefile.Warning{File: f.Name, Line: line, Text: f.SourceLine(line), Message: message})
}
