// SPDX-License-Identifier: Apache-2.0

package contexts

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"
)

const (
	fetchTime = 30 * time.Second
	maxFetch  = 4 << 20
)

var sum = regexp.MustCompile(`^[0-9a-f]{64}$`)

// sumLine is one of a file as sha256sum writes it.
type sumLine struct{ sum, name string }

// parseSums reads lines of a checksum and a name, or one checksum alone.
func parseSums(from, text string) ([]sumLine, error) {
	var lines []sumLine
	var errs []error
	scanner := bufio.NewScanner(strings.NewReader(text))
	for n := 1; scanner.Scan(); n++ {
		fields := strings.Fields(scanner.Text())
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		digest := strings.ToLower(fields[0])
		if !sum.MatchString(digest) || len(fields) > 2 {
			errs = append(errs, fmt.Errorf("%s:%d: no checksum as sha256sum writes them", from, n))
			continue
		}
		line := sumLine{sum: digest}
		if len(fields) == 2 {
			line.name = strings.TrimPrefix(strings.TrimPrefix(fields[1], "*"), "./")
		}
		lines = append(lines, line)
	}
	return lines, errors.Join(append(errs, scanner.Err())...)
}

// named finds the checksum of what a URL leads to, among lines whose names are ends of URLs.
func named(lines []sumLine, address string) (string, error) {
	plain, err := url.PathUnescape(address)
	if err != nil {
		return "", fmt.Errorf("reading the URL %q: %w", address, err)
	}
	found := ""
	for _, line := range lines {
		if line.name == "" || !strings.HasSuffix(plain, "/"+line.name) {
			continue
		}
		if found != "" && found != line.sum {
			return "", fmt.Errorf("two checksums fit %s: name them with more of the URL, such as amd64/%s", address, line.name)
		}
		found = line.sum
	}
	return found, nil
}

// checksums fills in the checksums of all assets, from files that were given or from the release. Without a network they
// stay empty: the build compares then.
func (p *plan) checksums(ctx context.Context, stages []stage) error {
	var given []sumLine
	var errs []error
	for _, file := range p.o.Checksums {
		text, err := readBounded(file)
		if err == nil {
			var lines []sumLine
			lines, err = parseSums(file, text)
			given = append(given, lines...)
		}
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("reading checksums: %w", err)
	}
	fetched := map[string][]sumLine{}
	unreachable := false
	without := map[string]bool{} // files that are done without
	for _, s := range stages {
		for i := range s.Assets {
			a := &s.Assets[i]
			digest, err := named(given, a.URL)
			a.URL, a.Sums = p.mirrored(a.URL), p.mirrored(a.Sums)
			if err == nil && digest == "" {
				switch {
				case len(p.o.Checksums) > 0:
					err = fmt.Errorf("%s has no checksum of %s", strings.Join(p.o.Checksums, ", "), a.URL)
				case !unreachable:
					digest, err = p.released(ctx, *a, fetched)
				}
			}
			switch {
			case isUnreachable(err):
				unreachable = true
				p.note("the releases' checksums cannot be fetched from here, so the build compares with them: %v", err)
			case err != nil && a.Optional:
				if !without[a.URL] {
					p.note("%s is left out, and sealer does without: %v", path.Base(a.Dest), err)
				}
				without[a.URL] = true
			default:
				errs = append(errs, err)
			}
			if digest != "" {
				a.Checksum = "sha256:" + digest
			}
		}
	}
	for i := range stages {
		stages[i].Assets = slices.DeleteFunc(stages[i].Assets, func(a asset) bool { return without[a.URL] })
	}
	if unreachable { // all or none, so that nobody takes one for the other
		for _, s := range stages {
			for i := range s.Assets {
				s.Assets[i].Checksum = ""
			}
		}
	}
	return errors.Join(errs...)
}

// released asks the release for the checksum of a file.
func (p *plan) released(ctx context.Context, a asset, fetched map[string][]sumLine) (string, error) {
	lines, ok := fetched[a.Sums]
	if !ok {
		text, err := p.fetch(ctx, a.Sums)
		if err == nil {
			lines, err = parseSums(a.Sums, text)
		}
		if err != nil {
			return "", fmt.Errorf("fetching the checksum of %s: %w", a.URL, err)
		}
		fetched[a.Sums] = lines
	}
	for _, line := range lines {
		if line.name == a.Listed || line.name == "" && len(lines) == 1 {
			return line.sum, nil
		}
	}
	return "", fmt.Errorf("%s has no checksum of %s", a.Sums, a.Listed)
}

func (p *plan) mirrored(address string) string {
	if p.o.Mirror == "" {
		return address
	}
	return strings.TrimSuffix(p.o.Mirror, "/") + "/" + strings.TrimPrefix(address, "https://")
}

// unreachableError says that a server gave no answer at all.
type unreachableError struct{ err error }

func (e *unreachableError) Error() string { return e.err.Error() }
func (e *unreachableError) Unwrap() error { return e.err }

func isUnreachable(err error) bool {
	_, ok := errors.AsType[*unreachableError](err)
	return ok
}

// StatusError says that a server has no such file.
type StatusError struct{ URL, Status string }

func (e *StatusError) Error() string { return fmt.Sprintf("%s: %s", e.URL, e.Status) }

// Hint says what may be wrong.
func (*StatusError) Hint() string {
	return "is this a version that was released, for this architecture? --checksums FILE asks nobody"
}

// fetch reads a small file. What is not reachable is an *unreachableError.
func (p *plan) fetch(ctx context.Context, address string) (string, error) {
	client := p.o.HTTP
	if client == nil {
		client = &http.Client{Timeout: fetchTime}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		return "", &unreachableError{err}
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return "", &StatusError{URL: address, Status: resp.Status}
	}
	return readAll(address, resp.Body)
}

func readBounded(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	return readAll(file, f)
}

func readAll(name string, r io.Reader) (string, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxFetch+1))
	if err == nil && len(data) > maxFetch {
		err = fmt.Errorf("it is larger than %d bytes", maxFetch)
	}
	if err != nil {
		return "", fmt.Errorf("reading %q: %w", name, err)
	}
	return string(data), nil
}
