// SPDX-License-Identifier: Apache-2.0

package kubefile

import "strings"

// App is an APP, CNI or CSI line: an application that the image can launch by
// its name.
type App struct {
	origin
	Word    string   // APP, CNI or CSI
	Name    string   // takes no variable
	Sources []string // local://PATH of the context, http://… or https://…; at least one
	// Checksum is of the one source that is a URL, as sha256:…; empty: unchecked.
	Checksum string
}

// AppCmds is an APPCMDS line: what launches an application, in place of what
// its type would do.
type AppCmds struct {
	origin
	Name string
	Cmds []string // shell command lines, run one after the other while they succeed
}

// AppEnv is an APPENV line: variables of one application.
type AppEnv struct {
	origin
	Name string
	Vars []KeyValue
}

// KubeVersion is a KUBEVERSION line: which versions of Kubernetes the image is
// for.
type KubeVersion struct {
	origin
	Constraint string // as in >=1.20, see https://github.com/Masterminds/semver#checking-version-constraints
}

// Launch is a LAUNCH line: the applications that are started once the cluster
// is up, in this order. Those of the base may be among them.
type Launch struct {
	origin
	Apps []string // names, each once
}

// Cmds is a CMDS line: commands that are run once the cluster is up, on its
// first control plane.
type Cmds struct {
	origin
	Cmds []string // shell command lines
}

// Workdir is a WORKDIR line: where relative destinations of COPY and ADD are,
// and where RUN and CMD begin.
type Workdir struct {
	origin
	Path string // relative to the WORKDIR before it; absolute: to the root of the cluster's files
}

// User is a USER line: who the RUN lines below it run as.
type User struct {
	origin
	User string // user[:group], names or numbers
}

// Shell is a SHELL line: what runs the RUN and CMD lines below it that are no
// JSON arrays.
type Shell struct {
	origin
	Args []string // a program and its arguments; the command line comes behind them
}

// AppDir is the folder below the root of the cluster's files that holds the
// files of an application.
func AppDir(name string) string { return "application/apps/" + name }

// LocalSource returns the path in the build context that a source of an APP
// names, or that it names none, but a URL.
func LocalSource(source string) (path string, ok bool) {
	return strings.CutPrefix(source, localScheme)
}
