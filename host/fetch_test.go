// SPDX-License-Identifier: Apache-2.0

package host_test

import (
	"bufio"
	"bytes"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/host"
)

// sender gives data to those who say the word; the port is closed afterwards.
func sender(t *testing.T, word string, data []byte) host.Source {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if line, err := bufio.NewReader(c).ReadString('\n'); err == nil && line == word+"\n" {
				_, _ = c.Write(data)
			}
			_ = c.Close()
		}
	}()
	_, port, err := net.SplitHostPort(l.Addr().String())
	require.NoError(t, err)
	number, err := strconv.Atoi(port)
	require.NoError(t, err)
	return host.Source{IP: "127.0.0.1", Port: number, Word: host.Secret(word)}
}

func TestFetch(t *testing.T) {
	r, err := host.NewLocal(t.Context(), host.LocalConfig{})
	require.NoError(t, err)
	data := bytes.Repeat([]byte("a program\x00\n"), 200_000)
	from := sender(t, "open sesame", data)
	file := filepath.Join(t.TempDir(), "bin", "program")
	sum := digest.FromBytes(data).String()

	require.NoError(t, host.Fetch(t.Context(), r, from, sum, file, 0o755))
	got, err := os.ReadFile(file)
	require.NoError(t, err)
	require.True(t, bytes.Equal(data, got))
	info, err := os.Stat(file)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o755), info.Mode().Perm())

	// What is not the file leaves the old one as it was, and nothing beside it.
	var mismatch *host.DigestError
	require.ErrorAs(t, host.Fetch(t.Context(), r, sender(t, "open sesame", data[:len(data)-1]), sum, file, 0o755), &mismatch)
	wrong := from
	wrong.Word = "please"
	require.ErrorAs(t, host.Fetch(t.Context(), r, wrong, sum, file, 0o755), &mismatch)
	var exit *host.ExitError
	nobody := from
	nobody.Port = 1
	err = host.Fetch(t.Context(), r, nobody, sum, file, 0o755)
	require.ErrorAs(t, err, &exit)
	require.NotContains(t, err.Error(), "open sesame")
	entries, err := os.ReadDir(filepath.Dir(file))
	require.NoError(t, err)
	require.Len(t, entries, 1)
	require.Error(t, host.Fetch(t.Context(), r, from, "md5:1", file, 0o755))
}
