// SPDX-License-Identifier: Apache-2.0

package kubefile

import (
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// Range is the lines of an instruction, first and last, counted from 1.
type Range struct {
	First, Last int
}

// Instruction is one of *Copy, *Add, *Run, *Cmd, *Env, *Arg, *Label and
// *Maintainer, of *Entrypoint, *Workdir, *User and *Shell, or of sealer's own: *App,
// *AppCmds, *AppEnv, *KubeVersion, *Launch and *Cmds.
type Instruction interface {
	// Lines returns where the instruction stands in the file.
	Lines() Range
	// Text returns the instruction as it was written, on one line, for progress
	// displays. Variables stay unexpanded, so that no value of a build argument
	// is shown.
	Text() string
}

// origin is where an instruction comes from; every instruction embeds it.
type origin struct {
	Range Range
	text  string
}

// Lines implements Instruction.
func (o origin) Lines() Range { return o.Range }

// Text implements Instruction.
func (o origin) Text() string { return o.text }

// From is the FROM line of a stage.
type From struct {
	origin
	Image    string // scratch, the name of an earlier stage, or an image; may hold variables
	Platform string // of --platform; empty: the target's; may hold variables
}

// Heredoc is a document that stands in the Kubefile itself.
type Heredoc struct {
	Name string // the word that ends it; with COPY and ADD also the file's name
	// Content ends with a line end, unless it is empty. Leading tabs are gone
	// where it was written as <<-.
	Content string
	Expand  bool // false where the name was quoted: variables stay as they are
}

// Copy is a COPY line. Sources and heredocs are copied to Dest, relative to the
// root of the cluster's files.
type Copy struct {
	origin
	Sources  []string // files and folders of the context, or of From
	Dest     string
	From     string   // a stage or an image; empty: the build context
	Chown    string   // user[:group]; empty: 0:0
	Chmod    string   // octal or symbolic; empty: as the source
	Exclude  []string // patterns
	Parents  bool     // keep the sources' parent folders
	Link     bool
	Heredocs []Heredoc
}

// Add is an ADD line: a COPY that also takes URLs and Git repositories, and
// unpacks local archives. From and Parents stay empty.
type Add struct {
	Copy
	Checksum   string // of the one URL that is added; empty: unchecked
	KeepGitDir bool
	Unpack     *bool // nil: local archives are unpacked, downloads are not
}

// Mount is one --mount of a RUN line. Its kinds and fields are BuildKit's.
type Mount = instructions.Mount

// Run is a RUN line.
type Run struct {
	origin
	Args     []string // one shell command line, or, where Shell is false, a program and its arguments
	Shell    bool
	Heredocs []Heredoc
	Network  string // default, none or host
	Security string // sandbox or insecure
	InRootfs bool   // run inside the cluster's root file system, not beside it in the toolbox
	Mounts   []*Mount

	mounts []string // as written, to be read again once their variables are known
}

// Script returns what the shell has to run when Shell is true: the command
// line with its heredocs behind it, or the document alone where the line is
// nothing but `RUN <<EOF`.
func (r *Run) Script() string {
	if !r.Shell || len(r.Args) == 0 {
		return ""
	}
	if r.OnlyHeredoc() {
		return r.Heredocs[0].Content
	}
	var script strings.Builder
	script.WriteString(r.Args[0])
	for _, doc := range r.Heredocs {
		script.WriteString("\n" + doc.Content + doc.Name)
	}
	return script.String()
}

// OnlyHeredoc says whether the line is nothing but one document. Where that
// begins with #! it is a program to run, not input for the shell.
func (r *Run) OnlyHeredoc() bool {
	return r.Shell && len(r.Args) == 1 && len(r.Heredocs) == 1 && parser.MustParseHeredoc(r.Args[0]) != nil
}

// Cmd is one command that is run once the cluster is up, on its first control
// plane.
type Cmd struct {
	origin
	Args  []string // one shell command line, or, where Shell is false, a program and its arguments
	Shell bool
}

// ShellLines are the command lines for the shell that a CMD stands for. A JSON array
// whose first string holds a space is a list of them, as sealos has it: no
// program's name does. lines is nil where it is one program and its arguments.
func (c *Cmd) ShellLines() (lines []string) {
	if c.Shell || len(c.Args) > 0 && strings.ContainsAny(c.Args[0], " \t\n") {
		return c.Args
	}
	return nil
}

// Entrypoint is an ENTRYPOINT line: what is run before the commands of CMD.
type Entrypoint struct {
	Cmd
}

// KeyValue is one variable or label.
type KeyValue struct {
	Key, Value string
}

// Env is an ENV line.
type Env struct {
	origin
	Vars []KeyValue
}

// Label is a LABEL line.
type Label struct {
	origin
	Labels []KeyValue
}

// Arg is an ARG line.
type Arg struct {
	origin
	Vars []ArgVar
}

// ArgVar is one variable of an ARG line.
type ArgVar struct {
	Name string
	// Value is the default as written, nil where there is none. In an expanded
	// instruction it is the value that the variable has, nil where it has none.
	Value *string
}

// Maintainer is a MAINTAINER line.
type Maintainer struct {
	origin
	Name string
}
