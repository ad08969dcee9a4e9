// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/bcrypt"

	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/internal/node"
	"github.com/sealerio/sealer/runtime"
)

// rotationBed is a cluster whose control planes have real registries' files, and whose hosts have a login and CAs.
type rotationBed struct {
	*bed
	t     *testing.T
	roots map[string]string // of sealer-node, by control plane

	mu      sync.Mutex
	pointed map[string]runtime.Registry // what hosts have, by host
	steps   []string
	left    int // steps until a cut; negative: there is none
}

// pointing is a distribution that tells hosts of the registry at every run.
type pointing struct {
	distribution
	b *rotationBed
}

const pointedCA = "/etc/fake/ca.crt"

func (p pointing) RegistryCAFile() string { return pointedCA }

func (p pointing) Install(c *runtime.Cluster, h *runtime.Host) []runtime.Step {
	return append(p.distribution.Install(c, h), runtime.Step{Name: "pointing", Do: func(ctx context.Context, _ io.Writer) error {
		if err := p.b.step("point " + h.String()); err != nil {
			return err
		}
		if err := host.WriteFile(ctx, h.Runner, pointedCA, c.Registry.CA, 0o644); err != nil {
			return err
		}
		p.b.mu.Lock()
		defer p.b.mu.Unlock()
		p.b.pointed[h.String()] = c.Registry
		return nil
	}})
}

var errCut = errors.New("cut")

// step counts what changes a registry or a host, and makes sure that nobody is refused before it.
func (b *rotationBed) step(name string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.nobodyIsRefused(name)
	if b.left == 0 {
		return errCut
	}
	b.left--
	b.steps = append(b.steps, name)
	return nil
}

// rotatingHost runs the registry's commands of sealer-node in this process.
type rotatingHost struct {
	*fakeHost
	b *rotationBed
}

func (h rotatingHost) Run(ctx context.Context, c host.Command) error {
	root, line := h.b.roots[h.String()], strings.Join(c.Argv, " ")
	switch {
	case root == "":
	case strings.HasPrefix(line, "test ! -e") && strings.HasSuffix(line, "/registry/trusted.crt"):
		if _, err := os.Stat(filepath.Join(root, "registry", "trusted.crt")); err == nil {
			return &host.ExitError{Host: h.String(), Command: line, Code: 1}
		}
		return nil
	case len(c.Argv) > 2 && c.Argv[1] == "registry" && slices.Contains([]string{"init", "accept", "leave"}, c.Argv[2]):
		if err := h.b.step(c.Argv[2] + " " + h.String()); err != nil {
			return err
		}
		var in, out, said bytes.Buffer
		if c.Stdin != nil {
			if _, err := in.ReadFrom(c.Stdin); err != nil {
				return err
			}
		}
		if strings.Contains(line, "password") {
			return errors.New("a secret is in the arguments")
		}
		if code := node.Run(ctx, append([]string{"--root", root}, c.Argv[1:]...), node.Streams{In: &in, Out: &out, Err: &said}); code != 0 {
			return &host.ExitError{Host: h.String(), Command: line, Code: code, Output: said.String()}
		}
		if c.Stdout == nil {
			return nil
		}
		_, err := out.WriteTo(c.Stdout)
		return err
	}
	return h.fakeHost.Run(ctx, c)
}

// nobodyIsRefused asks each registry that there is with what each host has.
func (b *rotationBed) nobodyIsRefused(when string) {
	for h, has := range b.pointed {
		ca := b.hosts[h].Files()[pointedCA].Data
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(ca)
		for control, root := range b.roots {
			registry := filepath.Join(root, "registry")
			require.True(b.t, b.accepts(control, has.Username, has.Password.Reveal()), "%s does not take the login of %s before %q; %q", control, h, when, b.steps)
			data, err := os.ReadFile(filepath.Join(registry, "server.crt"))
			require.NoError(b.t, err)
			block, _ := pem.Decode(data)
			cert, err := x509.ParseCertificate(block.Bytes)
			require.NoError(b.t, err)
			_, err = cert.Verify(x509.VerifyOptions{Roots: roots})
			require.NoError(b.t, err, "%s does not trust %s before %q; %q", h, control, when, b.steps)
		}
	}
}

func (b *rotationBed) accepts(control, username, password string) bool {
	data, err := os.ReadFile(filepath.Join(b.roots[control], "registry", "htpasswd"))
	require.NoError(b.t, err)
	return slices.ContainsFunc(strings.Fields(string(data)), func(line string) bool {
		user, hash, _ := strings.Cut(line, ":")
		return user == username && bcrypt.CompareHashAndPassword([]byte(hash), []byte(password)) == nil
	})
}

func newAuthority(t *testing.T, name string) (ca string, key clusterfile.Secret) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	require.NoError(t, err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	require.NoError(t, err)
	text := func(kind string, data []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: data}))
	}
	return text("CERTIFICATE", der), clusterfile.Secret(text("PRIVATE KEY", pkcs8))
}

func newRotationBed(t *testing.T) *rotationBed {
	t.Helper()
	b := &rotationBed{bed: newBed(t, three), t: t, roots: map[string]string{}, pointed: map[string]runtime.Registry{}, left: -1}
	for _, control := range []string{"10.0.0.1", "10.0.0.2"} {
		b.roots[control] = filepath.Join(t.TempDir(), "node")
	}
	b.opts.Distributions = runtime.Distributions{"fake": pointing{b: b}}
	b.opts.Dial = func(_ context.Context, m clusterfile.Host) (host.Runner, error) {
		return rotatingHost{b.hosts[m.String()], b}, nil
	}
	require.NoError(t, b.run(t))
	return b
}

// wants has the Clusterfile say another login and CA.
func (b *rotationBed) wants(username, password, ca string, key clusterfile.Secret) {
	f := *b.opts.Clusterfile
	f.Registry.Username, f.Registry.Password, f.Registry.CA, f.Registry.CAKey = username, clusterfile.Secret(password), ca, key
	b.opts.Clusterfile = &f
}

// changed makes sure that all have the new login and CA, and nothing else.
func (b *rotationBed) changed(username, password, ca string) {
	require.Len(b.t, b.pointed, 4)
	for h, has := range b.pointed {
		require.Equal(b.t, username, has.Username)
		require.Equal(b.t, password, has.Password.Reveal())
		require.Equal(b.t, ca, string(b.hosts[h].Files()[pointedCA].Data), h)
	}
	for control, root := range b.roots {
		data, err := os.ReadFile(filepath.Join(root, "registry", "htpasswd"))
		require.NoError(b.t, err)
		require.Len(b.t, strings.Fields(string(data)), 1, control)
		require.True(b.t, b.accepts(control, username, password))
		data, err = os.ReadFile(filepath.Join(root, "registry", "ca.crt"))
		require.NoError(b.t, err)
		require.Equal(b.t, ca, string(data))
		require.NoFileExists(b.t, filepath.Join(root, "registry", "trusted.crt"))
	}
}

// While the login and the CA of the registries change no host is refused by any of them, nor where that is cut at any step, and the same run
// brings it to its end.
func TestRun_RegistryLoginChanges(t *testing.T) {
	for _, cut := range []int{-1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11} { // -1: there is none
		b := newRotationBed(t)
		first, firstKey := newAuthority(t, "first")
		b.wants("team", "the first one", first, firstKey)
		require.NoError(t, b.run(t))
		b.changed("team", "the first one", first)

		second, secondKey := newAuthority(t, "second")
		b.wants("team", "the second one", second, secondKey)
		b.left, b.steps = cut, nil
		err := b.run(t)
		if cut < 0 {
			require.NoError(t, err)
			require.Equal(t, []string{"init 10.0.0.1", "init 10.0.0.2", "accept", "accept", "point", "point", "point", "point", "init 10.0.0.1", "init 10.0.0.2", "leave", "leave"},
				slices.Collect(func(yield func(string) bool) {
					for _, s := range b.steps {
						if verb, _, _ := strings.Cut(s, " "); verb != "init" {
							s = verb
						}
						if !yield(s) {
							return
						}
					}
				}))
		}
		if cut >= 0 {
			require.ErrorIs(t, err, errCut)
			b.left = -1
			require.NoError(t, b.run(t), "after %q", b.steps)
		}
		require.NoError(t, b.step("the end"))
		b.changed("team", "the second one", second)
	}
}

// A change that was cut and is taken back is brought to its end, too: the login that was to come is not left behind.
func TestRun_RegistryLoginTakenBack(t *testing.T) {
	for _, cut := range []int{4, 8, 9} { // when all accept it; when all hosts have it; when one registry has it
		t.Run(fmt.Sprint(cut), func(t *testing.T) {
			b := newRotationBed(t)
			first, firstKey := newAuthority(t, "first")
			b.wants("team", "the first one", first, firstKey)
			require.NoError(t, b.run(t))
			second, secondKey := newAuthority(t, "second")
			b.wants("team", "the second one", second, secondKey)
			b.left = cut
			require.ErrorIs(t, b.run(t), errCut)
			b.left = -1
			b.wants("team", "the first one", first, firstKey)
			require.NoError(t, b.run(t))
			require.NoError(t, b.step("the end"))
			b.changed("team", "the first one", first)
		})
	}
}

// An upgrade in the same apply goes with the login before: the new one comes when its turn is.
func TestApply_RegistryLoginAfterUpgrade(t *testing.T) {
	w := newWorld(t, small)
	require.NoError(t, w.apply())
	w.opts.Image, w.opts.ImageName = imageOf(t, w.bed.opts.Content.(content.Store), "v1.37.1"), "registry.example.com/app:v2"
	w.want(strings.Replace(small, "  env:", "  registry: {localRegistry: {username: team, password: very-new}}\n  env:", 1))
	before := len(w.hosts["10.0.0.1"].Calls())
	require.NoError(t, w.apply())
	var did []string
	for _, c := range w.hosts["10.0.0.1"].Calls()[before:] {
		switch line := strings.Join(c.Argv, " "); {
		case strings.Contains(line, "upgrade-running"):
			did = append(did, "upgrade")
		case strings.Contains(line, "registry init") && bytes.Contains(c.Stdin, []byte("very-new")):
			did = append(did, "change")
		case strings.Contains(line, "registry accept"), strings.Contains(line, "registry leave"):
			did = append(did, c.Argv[2])
		}
	}
	require.Equal(t, []string{"upgrade", "accept", "change", "leave"}, did)
}
