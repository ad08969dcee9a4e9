// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"context"
	"io"

	"github.com/sealerio/sealer/host"
)

// The last 32 bytes of a snapshot of etcd are the SHA-256 of all before them (etcd, etcdutl/snapshot); pages are of 512 bytes or more.
const checkEtcdSnapshot = `set -eu
[ -s "$1" ] || { echo "there is no snapshot $1" >&2; exit 1; }
size=$(stat -c %s "$1")
[ $((size % 512)) = 32 ] || { echo "$1 is no snapshot of etcd, or was cut" >&2; exit 1; }
want=$(tail -c 32 "$1" | od -An -v -tx1 | tr -d ' \n')
have=$(head -c "$((size - 32))" "$1" | sha256sum)
[ "$want" = "${have%% *}" ] || { echo "$1 is damaged: its checksum is another" >&2; exit 1; }
`

// CheckEtcdSnapshot compares all of a snapshot on h with the checksum at its end. etcd's own "snapshot status" does not: what it reads
// may be whole where the rest is not.
func CheckEtcdSnapshot(ctx context.Context, h *Host, file string, log io.Writer) error {
	return h.Runner.Run(ctx, host.Command{Argv: []string{"sh", "-c", checkEtcdSnapshot, "sh", file}, Stdout: log, Stderr: log})
}
