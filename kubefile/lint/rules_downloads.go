// SPDX-License-Identifier: Apache-2.0

package lint

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/sealerio/sealer/kubefile"
)

// downloadRules are about what a build fetches that is no image.
func downloadRules() []Rule {
	return []Rule{
		{
			Name: "download-unchecked", Severity: Warning,
			Summary: "what is downloaded is not compared with a checksum",
			Why:     "Whatever the server sends becomes part of the cluster. Write `ADD --checksum=sha256:… URL`, `APP --checksum=sha256:… NAME URL`, or let RUN compare it with `sha256sum -c`.",
			Bad:     Example{Kubefile: "FROM scratch\nADD https://example.com/flannel.yaml manifests/\n"},
			Good:    Example{Kubefile: "FROM scratch\nADD --checksum=sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 https://example.com/flannel.yaml manifests/\n"},
			check:   checkDownloads,
		},
		{
			Name: "git-unpinned", Severity: Warning,
			Summary: "ADD takes a branch or a tag of a Git repository",
			Why:     "Both can move. Name the commit, with all of its 40 digits, behind #, or with --checksum.",
			Bad:     Example{Kubefile: "FROM scratch\nADD https://example.com/charts.git#main charts\n"},
			Good:    Example{Kubefile: "FROM scratch\nADD https://example.com/charts.git#0123456789abcdef0123456789abcdef01234567 charts\n"},
			check: func(s *subject) {
				s.each(func(_ *stage, line kubefile.Instruction) {
					add, ok := line.(*kubefile.Add)
					if !ok || add.Checksum != "" {
						return
					}
					for _, source := range add.Sources {
						_, ref, _ := strings.Cut(source, "#")
						ref, _, _ = strings.Cut(ref, ":")
						if isGit(source) && !commit.MatchString(ref) {
							s.report(line, source, source+" names no commit: what it leads to can change")
						}
					}
				})
			},
		},
		{
			Name: "pipe-to-shell", Severity: Warning,
			Summary: "RUN gives a downloaded script to a shell, and nothing says which version",
			Why:     "The script is whatever the server sends that day, and it installs whatever is new. Fetch it with ADD --checksum and run the file; where the script itself takes a version, name one: INSTALL_K3S_VERSION=v1.36.3+k3s1.",
			Bad:     Example{Kubefile: "FROM scratch\nRUN curl -sfL https://get.example.com | sh -\n"},
			Good:    Example{Kubefile: "FROM scratch\nADD --checksum=sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 https://get.example.com/install.sh install.sh\nRUN INSTALL_K3S_VERSION=v1.36.3+k3s1 sh install.sh\n"},
			check: func(s *subject) {
				s.eachRun(func(_ *stage, run *kubefile.Run, commands []command) {
					for _, c := range commands {
						address := fetched(c)
						if address != "" && c.pipesToShell() && !c.hasVersion(address) {
							s.report(run, c.program(), fmt.Sprintf("%s goes to a shell unread, in whatever version: fetch it with ADD --checksum and run the file", address))
						}
					}
				})
			},
		},
	}
}

var (
	commit  = regexp.MustCompile(`^[0-9a-f]{40}([0-9a-f]{24})?$`)
	version = regexp.MustCompile(`\bv?\d+\.\d+|\$\{\w*(?i:version|tag|release)\w*\}`)
)

func isURL(source string) bool {
	return strings.HasPrefix(source, "http://") || strings.HasPrefix(source, "https://")
}

func isGit(source string) bool {
	repository, _, _ := strings.Cut(source, "#")
	return strings.HasPrefix(source, "git@") || strings.HasPrefix(source, "git://") || strings.HasPrefix(source, "ssh://") ||
		strings.HasSuffix(repository, ".git")
}

// eachRun calls do for every RUN whose script can be read.
func (s *subject) eachRun(do func(t *stage, run *kubefile.Run, commands []command)) {
	s.each(func(t *stage, line kubefile.Instruction) {
		run, ok := line.(*kubefile.Run)
		if !ok {
			return
		}
		if commands, ok := commandsOf(run); ok {
			do(t, run, commands)
		}
	})
}

func checkDownloads(s *subject) {
	s.each(func(_ *stage, line kubefile.Instruction) {
		switch c := line.(type) {
		case *kubefile.Add:
			for _, source := range c.Sources {
				if c.Checksum == "" && isURL(source) && !isGit(source) {
					s.report(line, source, "nobody checks what "+source+" is: write ADD --checksum=sha256:…")
				}
			}
		case *kubefile.App:
			for _, source := range c.Sources {
				if c.Checksum == "" && isURL(source) {
					s.report(line, source, fmt.Sprintf("nobody checks what %s is: write %s --checksum=sha256:… %s %s", source, c.Word, c.Name, source))
				}
			}
		}
	})
	for _, t := range s.stages {
		s.checkFetches(t)
	}
}

// checkFetches looks at the downloads of a stage's RUN lines. A check anywhere
// behind a download counts: which file it is for is beyond reading.
func (s *subject) checkFetches(t *stage) {
	type fetch struct {
		run     *kubefile.Run
		address string
		mark    string
	}
	var open []fetch
	for _, line := range t.lines {
		run, ok := line.(*kubefile.Run)
		if !ok {
			continue
		}
		commands, ok := commandsOf(run)
		if !ok {
			continue
		}
		for _, c := range commands {
			address := fetched(c)
			switch {
			case verifies(c):
				open = nil
			case address == "", c.pipesToShell() && !c.hasVersion(address): // pipe-to-shell says it
			default:
				open = append(open, fetch{run, address, c.program()})
			}
		}
	}
	for _, one := range open {
		s.report(one.run, one.mark, "nobody checks what "+one.address+" is: compare it with sha256sum -c, or write ADD --checksum=sha256:…")
	}
}

// fetched is the URL that a command downloads; empty: it is no download.
func fetched(c command) string {
	if !slices.Contains([]string{"curl", "wget"}, c.program()) {
		return ""
	}
	for i, word := range c.words[1:] {
		address := strings.Trim(word, `"'`)
		if isURL(address) && !isLoopback(address) && !takesValue(c.words[i]) {
			return address
		}
	}
	return ""
}

// takesValue says whether the next word belongs to a flag and is no download.
func takesValue(flag string) bool {
	return slices.Contains([]string{"-x", "--proxy", "-e", "--referer", "-H", "--header"}, flag)
}

func isLoopback(address string) bool {
	u, err := url.Parse(address)
	return err == nil && (u.Hostname() == "localhost" || strings.HasPrefix(u.Hostname(), "127."))
}

// verifies says whether a command compares content with a checksum or a signature.
func verifies(c command) bool {
	switch c.program() {
	case "sha256sum", "sha512sum", "sha384sum", "sha1sum", "shasum", "gpg", "gpgv", "cosign", "minisign":
		return true
	case "openssl":
		return len(c.words) > 1 && c.words[1] == "dgst"
	default:
		return false
	}
}

// pipesToShell says whether the output of a command is a shell's script.
func (c command) pipesToShell() bool {
	for next := c.pipe; next != nil; next = next.pipe {
		if isShell(*next) {
			return true
		}
	}
	return false
}

func isShell(c command) bool {
	words := c.words
	for len(words) > 0 && (slices.Contains([]string{"sudo", "env", "exec"}, words[0]) || strings.Contains(words[0], "=") || strings.HasPrefix(words[0], "-")) {
		words = words[1:]
	}
	return len(words) > 0 && slices.Contains([]string{"sh", "bash", "ash", "dash", "/bin/sh", "/bin/bash"}, words[0])
}

// hasVersion says whether a script that is piped into a shell is told which
// version to install, or has one in its address.
func (c command) hasVersion(address string) bool {
	if version.MatchString(address) {
		return true
	}
	for next := c.pipe; next != nil; next = next.pipe {
		if slices.ContainsFunc(append(slices.Clone(next.assigned), next.words...), func(word string) bool {
			return strings.Contains(strings.ToUpper(word), "VERSION")
		}) {
			return true
		}
	}
	return false
}
