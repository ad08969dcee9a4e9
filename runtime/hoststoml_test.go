// SPDX-License-Identifier: Apache-2.0

package runtime_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/remotes/docker/config"
	"github.com/stretchr/testify/require"
)

// containerd itself reads the golden files, and asks the hosts that they name in their order, with a login, and may push to none.
func TestHostsTOML_ContainerdReadsIt(t *testing.T) {
	external, err := os.ReadFile("testdata/hosts-external.toml")
	require.NoError(t, err)
	_, first, _ := strings.Cut(string(external), "\n") // == FOLDER
	first, _, _ = strings.Cut(first, "\n== ")
	files := map[string]string{"external": first}
	for name, path := range map[string]string{
		"one": "testdata/hosts.toml", "three": "testdata/hosts-three.toml", "k0s": "k0s/testdata/registry-hosts.toml",
	} {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		files[name] = string(text)
	}
	for name, text := range files {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			ca := filepath.Join(dir, "ca.crt")
			require.NoError(t, os.WriteFile(ca, []byte(authority(t)), 0o600))
			var wanted []string
			for _, m := range regexp.MustCompile(`(?m)^(?:\[host\."https://([^"]+)"\]|server = "https://([^"]+)")$`).FindAllStringSubmatch(text, -1) {
				host, _, _ := strings.Cut(m[1]+m[2], "/")
				wanted = append(wanted, host)
			}
			require.NotEmpty(t, wanted)
			wanted = append(wanted[1:], wanted[0]) // the server is asked last, or alone
			text = regexp.MustCompile(`ca = "[^"]*"`).ReplaceAllString(text, `ca = "`+ca+`"`)
			require.NoError(t, os.Mkdir(filepath.Join(dir, "_default"), 0o700))
			require.NoError(t, os.WriteFile(filepath.Join(dir, "_default", "hosts.toml"), []byte(text), 0o600))
			hosts, err := config.ConfigureHosts(t.Context(), config.HostOptions{HostDir: config.HostDirFromRoot(dir)})("docker.io")
			require.NoError(t, err)
			var asked []string
			for _, h := range hosts {
				asked = append(asked, h.Host)
				require.Equal(t, "https", h.Scheme)
				require.Equal(t, docker.HostCapabilityPull|docker.HostCapabilityResolve, h.Capabilities)
				require.Contains(t, h.Header.Get("Authorization"), "Basic ")
				require.NotNil(t, h.Client)
			}
			require.Equal(t, wanted, asked)
		})
	}
}

// authority is a certificate that signs itself.
func authority(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	text := x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, &text, &text, &key.PublicKey, key)
	require.NoError(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}
