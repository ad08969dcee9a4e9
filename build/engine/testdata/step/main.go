// SPDX-License-Identifier: Apache-2.0

// Command step is what the tests' RUN steps run, in a root that holds nothing else.
package main

import (
	"fmt"
	"net"
	"os"
	"strings"
	"time"
)

func main() {
	switch os.Args[1] {
	case "write": // path, words
		check(os.WriteFile(os.Args[2], []byte(strings.Join(os.Args[3:], " ")), 0o644))
	case "look": // what a step sees, into a file
		var b strings.Builder
		wd, _ := os.Getwd()
		links, err := net.Interfaces()
		check(err)
		for _, l := range links {
			if l.Flags&net.FlagUp != 0 {
				fmt.Fprintf(&b, "link %s\n", l.Name)
			}
		}
		status, err := os.ReadFile("/proc/self/status")
		check(err)
		for line := range strings.Lines(string(status)) {
			for _, key := range []string{"NoNewPrivs:", "CapEff:", "CapBnd:"} {
				if strings.HasPrefix(line, key) {
					b.WriteString(strings.Join(strings.Fields(line), " ") + "\n")
				}
			}
		}
		fmt.Fprintf(&b, "pid %d\nwd %s\nFOO %s\n", os.Getpid(), wd, os.Getenv("FOO"))
		_, err = os.Stat("/dev/null")
		fmt.Fprintf(&b, "null %v\n", err == nil)
		_, err = os.Stat("/etc/shadow")
		fmt.Fprintf(&b, "shadow %v\n", err == nil)
		check(os.WriteFile(os.Args[2], []byte(b.String()), 0o644))
	case "sleep":
		fmt.Println("sleeping")
		time.Sleep(time.Hour)
	case "exit":
		os.Exit(3)
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
