// SPDX-License-Identifier: Apache-2.0

package node_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/internal/node"
	"github.com/sealerio/sealer/internal/secret"
	"github.com/sealerio/sealer/registry"
	"github.com/sealerio/sealer/store"
	"github.com/sealerio/sealer/test/testregistry"
)

// All that a host's registry has goes to another one, which takes its place: packed images under their domains, and what users have pushed.
func TestRegistryPush(t *testing.T) {
	reg, err := testregistry.Start(t.Context(), testregistry.Options{TLS: true, User: "robot", Password: "pass"})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, reg.Close()) })
	m := newMachine(t)
	useFakeSystemd(t, m)
	st, desc, blobs := clusterImage(t, map[string]string{"a": "b"})
	m.load(st, desc, blobs)
	port := strconv.Itoa(freePort(t))
	own := m.initRegistry("--address", "127.0.0.1", "--port", port, "--writable")
	m.run(nil, "registry", "publish", "--image", desc.Digest.String())
	m.run(nil, "registry", "install", "--timeout", "5m")
	local := "127.0.0.1:" + port
	client, err := registry.NewClient(registry.Options{
		AuthDir: t.TempDir(), CertsDir: t.TempDir(), Authorities: map[string][]byte{local: []byte(own.CA)},
		Logins: []registry.Login{{Host: local, Username: own.Username, Password: secret.Text(own.Password)}},
	})
	require.NoError(t, err)
	defer client.Close()
	pushed := must(store.Open(filepath.Join(t.TempDir(), "user")))
	image := putImage(t, pushed, map[string]string{"own": "of a user"})
	image.Platform = nil
	_, err = client.Push(t.Context(), pushed, image, local+"/team/own:v1")
	require.NoError(t, err)

	untagged := putImage(t, pushed, map[string]string{"own": "without a tag"})
	untagged.Platform = nil
	_, err = client.Push(t.Context(), pushed, untagged, local+"/team/own@"+untagged.Digest.String())
	require.NoError(t, err)

	access := node.RegistryAccess{CA: string(must(os.ReadFile(reg.CAFile))), Username: "robot", Password: "pass"}
	wrong := access
	wrong.Password = "of nobody"
	r := m.try(toJSON(wrong), "registry", "push", "--to", reg.Address, "--prefix", "mirror/all")
	require.Equal(t, 1, r.code)
	require.NotContains(t, r.err, "of nobody")
	for range 2 {
		var moved node.Moved
		require.NoError(t, json.Unmarshal([]byte(m.run(toJSON(access), "registry", "push", "--to", reg.Address, "--prefix", "mirror/all")), &moved))
		require.Equal(t, node.Moved{Images: 1, Others: 1}, moved)
	}
	repositories := filepath.Join(reg.Dir, "docker/registry/v2/repositories/mirror/all")
	require.FileExists(t, filepath.Join(repositories, "docker.io/library/nginx/_manifests/tags/1.27/current/link"))
	require.FileExists(t, filepath.Join(repositories, "team/own/_manifests/tags/v1/current/link"))
	require.FileExists(t, filepath.Join(repositories, "team/own/_manifests/revisions/sha256", untagged.Digest.Encoded(), "link"))
	m.run(nil, "registry", "remove")
	m.run(nil, "registry", "remove")
	require.NoDirExists(t, filepath.Join(m.root, "registry"))
	require.NoFileExists(t, filepath.Join(m.unitDir, node.RegistryUnit))
	require.Contains(t, m.try(toJSON(access), "registry", "push", "--to", reg.Address).err, "finding the registry's configuration")
}
