// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
)

// fetchScript connects to $1, port $2, says the line that comes on standard input, and gives what it is sent to writeScript ($3). bash
// opens connections by itself ("Redirections" in bash(1)), so that a host needs no other program; the first one is tried alone, since
// there is no other way to give up on it early.
const fetchScript = `set -eu
read -r line
timeout 5 bash -c 'exec 3<>"/dev/tcp/$1/$2"' sealer-try "$1" "$2"
exec 3<>"/dev/tcp/$1/$2"
printf '%s\n' "$line" >&3
shift 2
exec sh -c "$1" sealer-write "$2" "$3" "$4" "$5" <&3
`

// Source is where a host gets a file from: a machine that listens there, and that sends the file after the line that Word is.
type Source struct {
	IP   string
	Port int
	Word Secret
}

// Fetch has a host get a file from another machine, to an absolute path, as Upload would bring it: whole or not at all, and checked against
// digest, "sha256:…". What comes over the network is not encrypted. It takes bash on the host; where that is not there, or no connection
// can be made, it is an *ExitError, and what is not the file is a *DigestError.
func Fetch(ctx context.Context, r Runner, from Source, digest, file string, mode fs.FileMode) error {
	sum, ok := strings.CutPrefix(digest, "sha256:")
	if !ok || !path.IsAbs(file) {
		return fmt.Errorf("%s: fetching %q: the digest %q or the path is wrong", r, file, digest)
	}
	err := r.Run(ctx, Command{
		Argv: []string{
			"bash", "-c", fetchScript, "sealer-fetch", from.IP, strconv.Itoa(from.Port), writeScript, file, octal(mode), sum, rand.Text(),
		},
		Stdin:   strings.NewReader(from.Word.Reveal() + "\n"),
		Mutates: true,
	})
	var exit *ExitError
	switch {
	case errors.As(err, &exit) && exit.Code == exitMismatch:
		return &DigestError{Host: r.String(), Path: file, Want: digest, Err: err}
	case errors.As(err, &exit): // the script in the message would help nobody
		return fmt.Errorf("%s: fetching %q from %s: %w", r, file, from.IP, &ExitError{exit.Host, "bash", exit.Code, exit.Signal, exit.Output})
	}
	return err
}
