// SPDX-License-Identifier: Apache-2.0

package clusterimage

import (
	"errors"
	"path"
	"slices"
	"strings"
)

// Application types, the values of Application.Type. Without one an application
// needs Cmds to be launched.
const (
	KubeApp  = "kube"  // manifests, applied one after the other
	HelmApp  = "helm"  // a chart, installed or upgraded under the application's name
	ShellApp = "shell" // scripts, run one after the other
)

// Labels that say what the applications of an image are.
const (
	// LabelKubeVersion holds which versions of Kubernetes the image is for, as in >=1.20.
	LabelKubeVersion = "app.alpha.sealer.io/supported-kube-version"
	labelCNI         = "cluster.alpha.sealer.io/kube-cni-"
	labelCSI         = "cluster.alpha.sealer.io/kube-csi-"
)

// LabelCNI is the label of an image whose application of this name is its network.
func LabelCNI(name string) string { return labelCNI + name }

// LabelCSI is the label of an image whose application of this name is its storage.
func LabelCSI(name string) string { return labelCSI + name }

// ApplicationDir is the folder of an application's files, from the root of the rootfs.
func ApplicationDir(name string) string { return "application/apps/" + name }

// templateSuffix is of files that are rendered on the hosts, to the name without it.
const templateSuffix = ".tmpl"

// ApplicationType tells what an application is by its files, whose paths are
// relative to its folder, and which of them are launched. first are the names of
// files that go before the others, which go by their names. The type is empty
// where the files are of no one kind.
func ApplicationType(files, first []string) (kind string, launched []string) {
	has := map[string]bool{}
	templates := false
	var names []string
	for _, name := range files {
		name = strings.TrimSuffix(name, templateSuffix)
		templates = templates || strings.HasPrefix(name, "templates/")
		if !has[name] {
			names = append(names, name)
		}
		has[name] = true
	}
	if len(names) == 0 {
		return "", nil
	}
	// A chart may leave out its values.
	if has["Chart.yaml"] && (templates || has["values.yaml"]) {
		return HelmApp, []string{"."}
	}
	slices.Sort(names)
	var ordered []string
	for _, name := range first {
		name = strings.TrimSuffix(name, templateSuffix)
		if has[name] && !slices.Contains(ordered, name) {
			ordered = append(ordered, name)
		}
	}
	for _, name := range names {
		if !slices.Contains(ordered, name) {
			ordered = append(ordered, name)
		}
	}
	switch {
	case allEnd(names, ".yaml", ".yml"):
		return KubeApp, ordered
	case allEnd(names, ".sh"):
		return ShellApp, ordered
	default:
		return "", nil
	}
}

func allEnd(names []string, extensions ...string) bool {
	return !slices.ContainsFunc(names, func(name string) bool {
		return !slices.Contains(extensions, strings.ToLower(path.Ext(name)))
	})
}

// ErrNoLaunch says that an application has neither commands nor a type that has some.
var ErrNoLaunch = errors.New("it has no type that says how it is launched, and no APPCMDS")

// LaunchCommand is what launches the application: text for a POSIX shell that
// begins in the application's folder. The next command is run if the one before
// succeeded. The error is ErrNoLaunch.
func (a Application) LaunchCommand() (string, error) {
	cmds := slices.DeleteFunc(slices.Clone(a.Cmds), func(c string) bool { return strings.TrimSpace(c) == "" })
	if len(cmds) == 0 {
		for _, file := range a.Files {
			switch a.Type {
			case KubeApp:
				cmds = append(cmds, "kubectl apply -f "+Quote(file))
			case ShellApp:
				// Scripts of the field are bash's; a host without it has sh.
				cmds = append(cmds, `"$(command -v bash || echo sh)" `+Quote(file))
			case HelmApp:
				cmds = append(cmds, "helm upgrade --install "+Quote(a.Name)+" "+Quote(file))
			}
		}
	}
	switch len(cmds) {
	case 0:
		return "", ErrNoLaunch
	case 1:
		return cmds[0], nil
	}
	if !slices.ContainsFunc(cmds, func(c string) bool { return strings.ContainsAny(c, "\n|;&#<") }) {
		return strings.Join(cmds, " && "), nil
	}
	// A command may be a list of its own, as in a || b: it stays together.
	return "{ " + strings.Join(cmds, "\n} && { ") + "\n}", nil
}

// Quote gives one word of a POSIX shell command.
func Quote(word string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:=@%+,"
	if word != "" && strings.Trim(word, plain) == "" {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// Application finds one by its name.
func (e Extension) Application(name string) (Application, bool) {
	i := slices.IndexFunc(e.Applications, func(a Application) bool { return a.Name == name })
	if i < 0 {
		return Application{}, false
	}
	return e.Applications[i], true
}

// Script is all that is launched, in its order, as text for a POSIX shell that
// begins in the root of the rootfs. Applications that cannot be launched are left out.
func (e Extension) Script() []string {
	var lines []string
	add := func(line string) {
		if strings.HasPrefix(line, "cd ") { // for itself alone
			line = "(" + line + "\n)"
		}
		lines = append(lines, line)
	}
	after := min(max(e.Launch.After, 0), len(e.Launch.Cmds))
	for _, line := range e.Launch.Cmds[:after] {
		add(line)
	}
	for _, name := range e.Launch.AppNames {
		if app, ok := e.Application(name); ok {
			if command, err := app.LaunchCommand(); err == nil {
				add("cd " + Quote(ApplicationDir(name)) + " || exit; " + command)
			}
		}
	}
	for _, line := range e.Launch.Cmds[after:] {
		add(line)
	}
	return lines
}
