// SPDX-License-Identifier: Apache-2.0

package host

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"regexp"
	"strings"
)

// Exit statuses of the scripts below, outside of what tools use.
const (
	exitMismatch  = 65
	exitNotThere  = 66
	exitIsFolder  = 67
	lookFirstSize = 256 << 10 // a file as big as this is worth a look whether the host has it
)

// writeScript puts standard input at $1 with mode $2 if its SHA-256 is $3; $4 makes the name of the temporary file,
// which is known before the file is there, so that no signal can come between. Besides POSIX it takes
// sha256sum and sync, which coreutils and busybox both have; busybox' sync may know no arguments.
const writeScript = `set -euC
d=$(dirname -- "$1")
(umask 022; mkdir -p -- "$d")
[ ! -d "$1" ] || { echo "$1 is a folder" >&2; exit 67; }
umask 077
t=$d/.sealer.$4
trap 'rm -f -- "$t"' EXIT
trap 'exit 1' HUP INT TERM
cat >"$t"
got=$(sha256sum <"$t")
[ "${got%% *}" = "$3" ] || exit 65
chmod "$2" "$t"
sync "$t" 2>/dev/null || sync
mv -f -- "$t" "$1"
`

const readScript = `[ -e "$1" ] || exit 66; cat -- "$1"`

// WriteFile puts data at an absolute path on the host: whole or not at all, on disk when it returns. Missing
// folders are made with mode 0755. A symbolic link at path is replaced, not followed.
func WriteFile(ctx context.Context, r Runner, file string, data []byte, mode fs.FileMode) error {
	sum := sha256.Sum256(data)
	return write(ctx, r, bytes.NewReader(data), hex.EncodeToString(sum[:]), file, mode)
}

// Upload streams size bytes of rd to an absolute path on the host, as WriteFile does. digest is "sha256:…"; the host checks
// what arrived against it, and *DigestError is what it says when they differ. A host
// that has the very file already is sent nothing; rd is then not read.
func Upload(ctx context.Context, r Runner, rd io.Reader, size int64, digest, file string, mode fs.FileMode) error {
	sum, ok := strings.CutPrefix(digest, "sha256:")
	if !ok || !regexp.MustCompile(`^[0-9a-f]{64}$`).MatchString(sum) {
		return fmt.Errorf("%s: writing %q: %q is not a SHA-256 digest", r, file, digest)
	}
	if size >= lookFirstSize {
		same := Command{Argv: []string{"sh", "-c", `[ -f "$1" ] && [ ! -L "$1" ] && s=$(sha256sum <"$1") && [ "${s%% *}" = "$2" ]`, "sealer-same", file, sum}}
		if r.Run(ctx, same) == nil {
			return r.Run(ctx, Command{Argv: []string{"chmod", octal(mode), "--", file}, Mutates: true})
		}
	}
	return write(ctx, r, &exactReader{r: rd, left: size}, sum, file, mode)
}

func write(ctx context.Context, r Runner, rd io.Reader, sum, file string, mode fs.FileMode) error {
	if !path.IsAbs(file) {
		return fmt.Errorf("%s: writing %q: the path is not absolute", r, file)
	}
	err := r.Run(ctx, Command{
		Argv:    []string{"sh", "-c", writeScript, "sealer-write", file, octal(mode), sum, rand.Text()},
		Stdin:   rd,
		Mutates: true,
	})
	var exit *ExitError
	var lost *LostError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &lost):
		return fmt.Errorf("writing %q: %w", file, &LostError{lost.Host, "sh", lost.Err})
	case errors.As(err, &exit) && exit.Code == exitMismatch:
		return &DigestError{Host: r.String(), Path: file, Want: "sha256:" + sum, Err: err}
	case errors.As(err, &exit) && exit.Code == exitIsFolder:
		return fmt.Errorf("%s: writing %q: it is a folder", r, file)
	case errors.As(err, &exit): // the script in the message would help nobody
		return fmt.Errorf("%s: writing %q: %w", r, file, &ExitError{exit.Host, "sh", exit.Code, exit.Signal, exit.Output})
	default:
		return fmt.Errorf("writing %q: %w", file, err)
	}
}

// ReadFile returns the file at an absolute path on the host, at most 64 MiB; fs.ErrNotExist where there is none.
func ReadFile(ctx context.Context, r Runner, file string) ([]byte, error) {
	data, err := Output(ctx, r, Command{Argv: []string{"sh", "-c", readScript, "sealer-read", file}})
	var exit *ExitError
	if errors.As(err, &exit) && exit.Code == exitNotThere {
		return nil, fmt.Errorf("%s: %w", r, &fs.PathError{Op: "reading", Path: file, Err: fs.ErrNotExist})
	}
	return data, err
}

func octal(mode fs.FileMode) string { return fmt.Sprintf("%04o", mode.Perm()) }

// exactReader fails where the source has more or fewer bytes than it should.
type exactReader struct {
	r    io.Reader
	left int64
}

func (e *exactReader) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	e.left -= int64(n)
	switch {
	case e.left < 0:
		return 0, errors.New("the source is longer than its descriptor says")
	case errors.Is(err, io.EOF) && e.left > 0:
		return n, fmt.Errorf("the source ended %d bytes early: %w", e.left, io.ErrUnexpectedEOF)
	}
	return n, err
}
