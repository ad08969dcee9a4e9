// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

func flag(f func()) option {
	return option{set: func(string) error { f(); return nil }}
}

func ignored(value bool) option {
	return option{value: value, set: func(string) error { return nil }}
}

func text(p *string) option {
	return option{value: true, set: func(v string) error { *p = v; return nil }}
}

func number(p *int) option {
	return option{value: true, set: func(v string) (err error) {
		*p, err = strconv.Atoi(v)
		return err
	}}
}

func seconds(p *time.Duration) option {
	return option{value: true, set: func(v string) error {
		s, err := strconv.ParseFloat(v, 64)
		*p = time.Duration(s * float64(time.Second))
		return err
	}}
}

func header(h http.Header) option {
	return option{value: true, set: func(v string) error {
		name, value, ok := strings.Cut(v, ":")
		if !ok || strings.TrimSpace(name) == "" {
			return fmt.Errorf("%q is not Name: value", v)
		}
		h.Add(strings.TrimSpace(name), strings.TrimSpace(value))
		return nil
	}}
}

// parseWget reads GNU wget's options, https://www.gnu.org/software/wget/manual/.
func parseWget(args []string) ([]job, error) {
	base := job{header: http.Header{}, follow: true, tries: defaultTries}
	var output, prefix string
	opts := map[string]option{
		"-O": text(&output), "--output-document": text(&output),
		"-P": text(&prefix), "--directory-prefix": text(&prefix),
		"-q": flag(func() { base.quiet = true }), "--quiet": flag(func() { base.quiet = true }),
		"-nv": flag(func() {}), "--no-verbose": flag(func() {}), "-nd": ignored(false), "-v": ignored(false), "--verbose": ignored(false),
		"-c": flag(func() { base.resume = true }), "--continue": flag(func() { base.resume = true }),
		"-t": number(&base.tries), "--tries": number(&base.tries),
		"-T": seconds(&base.stall), "--timeout": seconds(&base.stall), "--read-timeout": seconds(&base.stall),
		"-w": ignored(true), "--wait": ignored(true), "--waitretry": ignored(true), "--retry-connrefused": ignored(false),
		"--no-check-certificate": flag(func() { base.insecure = true }), "--ca-certificate": text(&base.caFile),
		"--header": header(base.header), "--show-progress": ignored(false), "--progress": ignored(true), "--no-cache": ignored(false),
		"-U": setHeader(base.header, "User-Agent"), "--user-agent": setHeader(base.header, "User-Agent"),
		"--user": text(&base.user), "--password": text(&base.password), "--no-hsts": ignored(false), "--https-only": flag(func() { base.httpsOnly = true }),
		"-4": ignored(false), "-6": ignored(false), "--no-proxy": flag(func() { base.noProxy = true }),
	}
	urls, err := parse(args, opts)
	if err != nil {
		return nil, err
	}
	var jobs []job
	for _, u := range urls {
		j := base
		j.url = address(u)
		j.output = output
		if output == "" {
			j.output = filepath.Join(prefix, nameOf(j.url, "index.html"))
		}
		j.appendTo = output != "" && len(jobs) > 0 // wget -O joins its documents
		jobs = append(jobs, j)
	}
	return jobs, nil
}

// parseCurl reads curl's options, https://curl.se/docs/manpage.html.
func parseCurl(args []string) ([]job, error) {
	base := job{header: http.Header{}, tries: defaultTries}
	var outputs []string // "" is -O
	var dir, user, resume string
	retries := -1
	opts := map[string]option{
		"-o": {value: true, set: func(v string) error { outputs = append(outputs, v); return nil }},
		"-O": flag(func() { outputs = append(outputs, "") }), "--remote-name": flag(func() { outputs = append(outputs, "") }),
		"--output-dir": text(&dir), "--create-dirs": flag(func() { base.makeDirs = true }),
		"-f": ignored(false), "--fail": ignored(false), "--fail-with-body": ignored(false), "-S": ignored(false), "--show-error": ignored(false),
		"-s": flag(func() { base.quiet = true }), "--silent": flag(func() { base.quiet = true }),
		"-L": flag(func() { base.follow = true }), "--location": flag(func() { base.follow = true }),
		"-k": flag(func() { base.insecure = true }), "--insecure": flag(func() { base.insecure = true }), "--cacert": text(&base.caFile),
		"-H": header(base.header), "--header": header(base.header),
		"-A": setHeader(base.header, "User-Agent"), "--user-agent": setHeader(base.header, "User-Agent"),
		"-e": setHeader(base.header, "Referer"), "--referer": setHeader(base.header, "Referer"),
		"-u": text(&user), "--user": text(&user),
		"--retry": number(&retries), "--retry-delay": ignored(true), "--retry-max-time": ignored(true),
		"--retry-all-errors": ignored(false), "--retry-connrefused": ignored(false),
		"--connect-timeout": ignored(true), "-m": seconds(&base.limit), "--max-time": seconds(&base.limit),
		"-C": text(&resume), "--continue-at": text(&resume), "-I": flag(func() { base.method = http.MethodHead }), "--head": flag(func() { base.method = http.MethodHead }),
		"-X": text(&base.method), "--request": text(&base.method), "-d": text(&base.body), "--data": text(&base.body),
		"--proto": {value: true, set: func(v string) error { base.httpsOnly = v == "=https"; return nil }}, "--proto-redir": ignored(true),
		"--tlsv1.2": ignored(false), "--tlsv1.3": ignored(false), "--tlsv1": ignored(false), "--http1.1": ignored(false), "--http2": ignored(false),
		"-#": ignored(false), "--progress-bar": ignored(false), "--no-progress-meter": ignored(false), "-g": ignored(false), "--globoff": ignored(false),
		"-4": ignored(false), "-6": ignored(false), "-v": ignored(false), "--compressed": ignored(false), "-x": text(&base.proxy), "--proxy": text(&base.proxy),
	}
	opts["--output"] = opts["-o"]
	opts["--url"] = option{value: true, set: func(v string) error { args = append(args, v); return nil }}
	urls, err := parse(args, opts)
	if err != nil {
		return nil, err
	}
	if resume != "" && resume != "-" {
		return nil, &usageError{"option -C: only - is known here"}
	}
	base.resume = resume == "-"
	base.user, base.password, _ = strings.Cut(user, ":")
	if retries >= 0 {
		base.tries = retries + 1
	}
	if base.body != "" && base.method == "" {
		base.method = http.MethodPost
	}
	var jobs []job
	for i, u := range urls {
		j := base
		j.url, j.output = address(u), "-"
		if i < len(outputs) {
			j.output = outputs[i]
			if j.output == "" {
				if j.output = nameOf(j.url, ""); j.output == "" {
					return nil, &usageError{fmt.Sprintf("option -O: %q names no file", u)}
				}
			}
			if j.output != "-" {
				j.output = filepath.Join(dir, j.output)
			}
		}
		jobs = append(jobs, j)
	}
	return jobs, nil
}

func setHeader(h http.Header, name string) option {
	return option{value: true, set: func(v string) error { h.Set(name, v); return nil }}
}

func address(s string) string {
	if strings.Contains(s, "://") {
		return s
	}
	return "http://" + s
}

// nameOf is the last part of the URL's path.
func nameOf(address, otherwise string) string {
	u, err := url.Parse(address)
	if err != nil || u.Path == "" || strings.HasSuffix(u.Path, "/") {
		return otherwise
	}
	return filepath.Base(u.Path)
}
