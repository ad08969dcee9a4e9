// SPDX-License-Identifier: Apache-2.0

package node_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/internal/goldenfile"
	"github.com/sealerio/sealer/internal/node"
)

func (m *machine) initRegistry(args ...string) (a node.RegistryAccess) {
	m.t.Helper()
	require.NoError(m.t, json.Unmarshal([]byte(m.run(nil, append([]string{"registry", "init"}, args...)...)), &a))
	return a
}

func readCert(t *testing.T, file string) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(must(os.ReadFile(file)))
	return must(x509.ParseCertificate(block.Bytes))
}

func TestRegistryInit(t *testing.T) {
	m := newMachine(t)
	args := []string{"--name", "sea.hub", "--address", "10.0.0.7", "--address", "fd00::7", "--port", "5443"}
	first := m.initRegistry(args...)
	require.Equal(t, first, m.initRegistry(args...), "what is there is kept")
	require.Equal(t, "sealer", first.Username)
	require.GreaterOrEqual(t, len(first.Password), 43) // 32 bytes
	require.NotEqual(t, first.Password, newMachine(t).initRegistry(args...).Password)

	dir := filepath.Join(m.root, "registry")
	ca := readCert(t, filepath.Join(dir, "ca.crt"))
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM([]byte(first.CA)))
	require.True(t, ca.IsCA)
	require.Greater(t, time.Until(ca.NotAfter), 9*365*24*time.Hour)
	server := readCert(t, filepath.Join(dir, "server.crt"))
	for _, name := range []string{"sea.hub", "10.0.0.7", "fd00::7", "localhost", "127.0.0.1"} {
		_, err := server.Verify(x509.VerifyOptions{Roots: roots, DNSName: name})
		require.NoError(t, err, name)
	}
	_, err := server.Verify(x509.VerifyOptions{Roots: roots, DNSName: "10.0.0.8"})
	require.Error(t, err)
	for _, secret := range []string{"ca.key", "server.key", "htpasswd", "credentials.json", "config.json"} {
		require.Equal(t, fs.FileMode(0o600), must(os.Stat(filepath.Join(dir, secret))).Mode(), secret)
	}
	require.NotContains(t, string(must(os.ReadFile(filepath.Join(dir, "htpasswd")))), first.Password)

	moved := m.initRegistry("--name", "sea.hub", "--address", "10.0.0.8")
	require.Equal(t, first, moved, "another address: another certificate of the same CA")
	_, err = readCert(t, filepath.Join(dir, "server.crt")).Verify(x509.VerifyOptions{Roots: roots, DNSName: "10.0.0.8"})
	require.NoError(t, err)

	// Cut between key and certificate: the half pair counts as none.
	require.NoError(t, os.Remove(filepath.Join(dir, "server.crt")))
	m.initRegistry(args...)
	_, err = tls.LoadX509KeyPair(filepath.Join(dir, "server.crt"), filepath.Join(dir, "server.key"))
	require.NoError(t, err)
}

// Two hosts serve as one: the same CA and credentials, a certificate for each.
func TestRegistryInit_Adopt(t *testing.T) {
	one, two := newMachine(t), newMachine(t)
	shared := one.initRegistry("--address", "10.0.0.1", "--peer", "10.0.0.2", "--share")
	require.Contains(t, shared.CAKey, "PRIVATE KEY")
	require.Empty(t, one.initRegistry("--address", "10.0.0.1").CAKey, "it is told where it is asked for only")
	two.initRegistry("--address", "10.0.0.2") // of its own, first
	var got node.RegistryAccess
	args := []string{"registry", "init", "--address", "10.0.0.2", "--peer", "10.0.0.1", "--adopt"}
	require.NoError(t, json.Unmarshal([]byte(two.run(toJSON(shared), args...)), &got))
	require.Equal(t, node.RegistryAccess{CA: shared.CA, Username: shared.Username, Password: shared.Password, Changed: true}, got)
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM([]byte(shared.CA)))
	_, err := readCert(t, filepath.Join(two.root, "registry", "server.crt")).Verify(x509.VerifyOptions{Roots: roots, DNSName: "10.0.0.2"})
	require.NoError(t, err)
	before := must(os.Stat(filepath.Join(two.root, "registry", "config.json")))
	require.NotContains(t, two.run(toJSON(shared), args...), "changed")
	require.Equal(t, before.ModTime(), must(os.Stat(filepath.Join(two.root, "registry", "config.json"))).ModTime(), "nothing is new: nothing has to start again")

	broken := shared
	broken.CAKey = newMachine(t).initRegistry("--address", "10.0.0.3", "--share").CAKey
	require.Contains(t, two.try(toJSON(broken), args...).err, "its key is another's")
}

func TestRegistryInit_Refuses(t *testing.T) {
	r := newMachine(t).try(nil, "registry", "init", "--name", "", "--address", "ten", "--port", "70000")
	require.Equal(t, 1, r.code)
	for _, want := range []string{"name: it is empty", `"ten" is no IP address`, "70000"} {
		require.Contains(t, r.err, want)
	}
}

// stopPID is stop of the fakes of systemd and OpenRC: like the real ones it waits for what it stops (nothing may have taken
// its status yet: a zombie has ended), and kills what does not stop.
const stopPID = `
stop() {
  [ -f "$d/pid" ] || return 0
  p=$(cat "$d/pid"); rm "$d/pid"; kill "$p" 2>/dev/null; i=0
  while [ $i -lt 1200 ] && grep -q '^State:[[:space:]]*[^ZX]' "/proc/$p/status" 2>/dev/null; do
    i=$((i + 1)); [ $i -lt 600 ] || kill -9 "$p" 2>/dev/null
    sleep 0.05
  done
}
`

// fakeSystemd is systemctl and journalctl as far as they matter here; units run for real.
const fakeSystemd = `#!/bin/sh
d=$SYSTEMD_DIR; u=$SYSTEMD_UNITS/${SYSTEMD_UNIT:-sealer-registry.service}
echo "$*" >>"$d/log"` + stopPID + `case "$1" in
daemon-reload|enable|reset-failed) ;;
restart)
  stop
  if [ -n "$SYSTEMD_NO_SANDBOX" ] && grep -q ProtectSystem "$u"; then echo 226 >"$d/status"; exit 0; fi
  echo 0 >"$d/status"
  eval "exec $(sed -n 's/^ExecStart=//p' "$u")" >"$d/out" 2>&1 </dev/null &
  echo $! >"$d/pid" ;;
disable) stop ;;
show)
  case "$3" in MainPID) cat "$d/pid" 2>/dev/null || echo 0 ;; ExecMainStatus) cat "$d/status" 2>/dev/null ;;
  NRestarts) if kill -0 "$(cat "$d/pid")" 2>/dev/null; then echo 0; else echo 3; fi ;; esac ;;
*) exit 1 ;;
esac
`

func useFakeSystemd(t *testing.T, m *machine) (dir string) {
	t.Helper()
	dir = t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "systemctl"), []byte(fakeSystemd), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "journalctl"), []byte("#!/bin/sh\ncat \"$SYSTEMD_DIR/out\"\n"), 0o755))
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	t.Setenv("SYSTEMD_DIR", dir)
	t.Setenv("SYSTEMD_UNITS", m.unitDir)
	t.Cleanup(func() { m.run(nil, "registry", "uninstall") })
	return dir
}

// freePort is one that connections of other tests do not get by chance while nobody listens on it: it is below Linux'
// ephemeral ports.
func freePort(t *testing.T) int {
	t.Helper()
	for range 100 {
		port := 20000 + rand.IntN(10000)
		if l, err := net.Listen("tcp", net.JoinHostPort("", strconv.Itoa(port))); err == nil {
			require.NoError(t, l.Close())
			return port
		}
	}
	require.Fail(t, "no port is free")
	return 0
}

// get asks the registry as containerd would.
func get(t *testing.T, a node.RegistryAccess, url string, auth bool) (int, []byte) {
	t.Helper()
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM([]byte(a.CA)))
	req := must(http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody))
	if auth {
		req.SetBasicAuth(a.Username, a.Password)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true}
	res, err := (&http.Client{Transport: transport}).Do(req)
	require.NoError(t, err)
	body := must(io.ReadAll(res.Body))
	require.NoError(t, res.Body.Close())
	return res.StatusCode, body
}

func TestRegistry_InstallServesWhatWasPublished(t *testing.T) {
	m := newMachine(t)
	dir := useFakeSystemd(t, m)
	st, desc, blobs := clusterImage(t, map[string]string{"a": "b"})
	m.load(st, desc, blobs)
	port := freePort(t)
	access := m.initRegistry("--address", "127.0.0.1", "--port", strconv.Itoa(port))
	m.run(nil, "registry", "install", "--timeout", "5m")
	base := fmt.Sprintf("https://127.0.0.1:%d/v2/", port)
	code, _ := get(t, access, base, false)
	require.Equal(t, 401, code)

	m.run(nil, "registry", "publish", "--image", desc.Digest.String()) // while it serves
	code, manifest := get(t, access, base+"library/nginx/manifests/1.27?ns=docker.io", true)
	require.Equal(t, 200, code, string(manifest))
	var doc struct{ Layers []struct{ Digest string } }
	require.NoError(t, json.Unmarshal(manifest, &doc))
	code, blob := get(t, access, base+"library/nginx/blobs/"+doc.Layers[0].Digest+"?ns=docker.io", true)
	require.Equal(t, 200, code)
	require.True(t, bytes.Equal(must(os.ReadFile(filepath.Join(m.root, "store/blobs", strings.Replace(doc.Layers[0].Digest, ":", "/", 1)))), blob))

	restarts := func() int { return strings.Count(string(must(os.ReadFile(filepath.Join(dir, "log")))), "restart") }
	require.Equal(t, 1, restarts())
	m.run(nil, "registry", "install")
	require.Equal(t, 1, restarts(), "one that runs and has nothing new is left alone")
	unit := string(must(os.ReadFile(filepath.Join(m.unitDir, node.RegistryUnit))))
	goldenfile.Equal(t, "testdata/sealer-registry.service", strings.NewReplacer(m.root, "ROOT", must(os.Executable()), "PROGRAM").Replace(unit))

	m.run(nil, "registry", "uninstall")
	m.run(nil, "registry", "uninstall")
	require.NoFileExists(t, filepath.Join(m.unitDir, node.RegistryUnit))
	_, err := net.DialTimeout("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), time.Second)
	require.Error(t, err)
}

func TestRegistry_InstallWithoutSandbox(t *testing.T) {
	m := newMachine(t)
	useFakeSystemd(t, m)
	t.Setenv("SYSTEMD_NO_SANDBOX", "1")
	m.initRegistry("--address", "127.0.0.1", "--port", strconv.Itoa(freePort(t)))
	m.run(nil, "registry", "install", "--timeout", "5m")
	require.NotContains(t, string(must(os.ReadFile(filepath.Join(m.unitDir, node.RegistryUnit)))), "ProtectSystem")
}

func TestRegistry_InstallSaysWhyItDoesNotAnswer(t *testing.T) {
	m := newMachine(t)
	useFakeSystemd(t, m)
	taken := must(net.Listen("tcp", ":0"))
	defer func() { require.NoError(t, taken.Close()) }()
	port := taken.Addr().(*net.TCPAddr).Port
	m.initRegistry("--address", "127.0.0.1", "--port", strconv.Itoa(port))
	r := m.try(nil, "registry", "install", "--timeout", "5m")
	require.Equal(t, 1, r.code)
	require.Contains(t, r.err, "it has ended 3 times")
	require.Contains(t, r.err, "address already in use")
	require.Contains(t, r.err, "hint: look at `journalctl -u sealer-registry.service`")
}

func TestRegistry_InstallBeforeInit(t *testing.T) {
	m := newMachine(t)
	require.Contains(t, m.try(nil, "registry", "install").err, "run `sealer-node registry init` first")
}

// Another login is taken beside the registry's own, by one that runs, too, until it is left; the password is kept nowhere but as a hash.
func TestRegistryAccept(t *testing.T) {
	m, other := newMachine(t), newMachine(t)
	useFakeSystemd(t, m)
	port := freePort(t)
	args := []string{"--address", "127.0.0.1", "--port", strconv.Itoa(port)}
	own := m.initRegistry(args...)
	m.run(nil, "registry", "install", "--timeout", "5m")
	next := other.initRegistry(append(args, "--share")...)
	next.Password = "another-password"
	url := fmt.Sprintf("https://127.0.0.1:%d/v2/", port)
	code := func(a node.RegistryAccess, password string) int {
		a.Password = password
		status, _ := get(t, a, url, true)
		return status
	}
	require.Equal(t, 401, code(own, next.Password))
	accept := node.RegistryAccess{CA: next.CA, Username: next.Username, Password: next.Password}
	for range 2 {
		m.run(toJSON(accept), "registry", "accept")
		require.Equal(t, own, m.initRegistry(args...), "its own stays")
		require.Equal(t, 200, code(own, own.Password))
		require.Equal(t, 200, code(own, next.Password))
		require.Equal(t, 401, code(own, "neither"))
	}
	dir := filepath.Join(m.root, "registry")
	for _, file := range must(filepath.Glob(filepath.Join(dir, "*"))) {
		if data, err := os.ReadFile(file); err == nil {
			require.NotContains(t, string(data), next.Password, file)
		}
	}

	// It takes over: the certificate is the new CA's at once, and both logins go on.
	m.run(toJSON(next), append([]string{"registry", "init", "--adopt"}, args...)...)
	require.Equal(t, 200, code(next, own.Password))
	require.Equal(t, 200, code(next, next.Password))
	trusted := string(must(os.ReadFile(filepath.Join(dir, "trusted.crt"))))
	m.run(toJSON(accept), "registry", "accept")
	require.Equal(t, trusted, string(must(os.ReadFile(filepath.Join(dir, "trusted.crt")))), "the one before is trusted still")
	require.Contains(t, trusted, own.CA)
	for range 2 {
		m.run(nil, "registry", "leave")
		require.Equal(t, 401, code(next, own.Password))
		require.Equal(t, 200, code(next, next.Password))
		require.NoFileExists(t, filepath.Join(dir, "trusted.crt"))
	}
	require.Contains(t, m.try(toJSON(node.RegistryAccess{CA: next.CA}), "registry", "accept").err, "the user or the password is missing")
}
