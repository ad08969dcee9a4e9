// SPDX-License-Identifier: Apache-2.0

//go:build linux

package build_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/sys/mountinfo"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/build"
)

func TestRun(t *testing.T) {
	t.Parallel()
	needToolbox(t)
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprint(w, "from ", r.URL.Path)
		// Another wget, such as busybox's own, checks no certificates.
		assert.Equal(t, "sealer-fetch", r.UserAgent(), r.URL.Path)
	}))
	t.Cleanup(site.Close)
	for _, isolation := range []string{"chroot", "runc"} {
		t.Run(isolation, func(t *testing.T) {
			t.Parallel()
			if _, err := exec.LookPath("runc"); err != nil && isolation == "runc" {
				t.Skip("there is no runc here")
			}
			b := newBench(t, map[string]string{"Kubefile": `FROM scratch
ARG SITE
ENV WHO=world
COPY f .
RUN wget -q $SITE/a -O a && curl -fsSL $SITE/b -o sub && echo "hello $WHO" > greeting
RUN timeout 9 wget -q -O /tmp/1 $SITE/1; env wget -q -O /tmp/2 $SITE/2; echo $SITE/3 | xargs wget -q -O /tmp/3; find . -name f -exec wget -q -O /tmp/4 $SITE/4 \;
RUN ["/bin/sh", "-c", "mv greeting moved"]
RUN <<EOF
mkdir -p bin
tar -czf f.tgz f
rm f
EOF
RUN <<EOF
#!/usr/bin/awk -f
BEGIN { print "awk" > "by-awk" }
EOF
RUN --network=none ! wget -q -t 1 $SITE/a -O nothing
RUN --mount=type=cache,target=/cache --mount=type=bind,target=/ctx --mount=type=tmpfs,target=/t cat /ctx/f > bound; touch /cache/x /t/x
RUN --mount=type=secret,id=token,required=true cat /run/secrets/token | sha256sum | cut -c 1-8 > sum
`, "f": "file"})
			secret := filepath.Join(t.TempDir(), "token")
			require.NoError(t, os.WriteFile(secret, []byte("t0ken"), 0o600))
			img := b.mustBuild(func(o *build.Options) {
				o.Isolation = isolation
				o.BuildArgs = map[string]string{"SITE": site.URL}
				o.Secrets = []build.Secret{{ID: "token", File: secret}}
			})
			files := b.files(img, 0)
			require.Equal(t, "from /a", files["a"].text)
			require.Equal(t, "from /b", files["sub"].text)
			require.Equal(t, "hello world\n", files["moved"].text)
			require.Equal(t, "awk\n", files["by-awk"].text)
			require.Equal(t, "file", files["bound"].text)
			sum := sha256.Sum256([]byte("t0ken"))
			require.Equal(t, hex.EncodeToString(sum[:4])+"\n", files["sum"].text)
			require.Equal(t, []string{".wh.f", ".wh.greeting", "Metadata", "a", "bound", "by-awk", "f", "f.tgz", "greeting", "moved", "sub", "sum"}, names(files))
			for name, f := range files {
				if !strings.HasPrefix(filepath.Base(name), ".wh.") {
					require.True(t, f.time.Equal(time.Unix(0, 0)), "%s: %s", name, f.time)
				}
			}
		})
	}
}

func TestRun_InRootfsNeedsAShell(t *testing.T) {
	t.Parallel()
	b := newBench(t, map[string]string{"Kubefile": "FROM scratch\nCOPY f .\nRUN --in-rootfs true\n", "f": "x"})
	_, err := b.build(func(o *build.Options) { o.Isolation = "chroot" })
	require.ErrorContains(t, err, "Kubefile:3: ")
	require.ErrorContains(t, err, "/bin/sh")
}

func TestStages(t *testing.T) {
	t.Parallel()
	needToolbox(t)
	b := newBench(t, map[string]string{"Kubefile": `ARG BASE=one
FROM scratch AS one
ARG WORD=unset
ENV E=$WORD
COPY f /one
CMD first
FROM scratch AS unused
RUN exit 1
FROM ${BASE}
RUN test "$E" = given && echo $WORD > word
COPY --from=one /one two
COPY --from=0 /one three
CMD second
`, "f": "x"})
	img := b.mustBuild(func(o *build.Options) { o.BuildArgs = map[string]string{"WORD": "given", "LOST": "1"} })
	require.Equal(t, []string{"Metadata", "one", "three", "two", "word"}, names(b.files(img, 0)))
	require.Equal(t, []string{"first", "second"}, img.Rootfs[0].Extension.Launch.Cmds)
	require.Contains(t, strings.Join(b.warned, "\n"), "build argument LOST is not used")
}

func TestTwoAtOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t, map[string]string{"Kubefile": "FROM scratch\nCOPY f .\n", "f": "x"})
	var wg sync.WaitGroup
	results := make([]build.Result, 3)
	errs := make([]error, len(results))
	for i := range results {
		wg.Go(func() {
			results[i], errs[i] = b.build(func(o *build.Options) { o.Tag = fmt.Sprintf("test/one:%d", i) })
		})
	}
	wg.Wait()
	for i := range results {
		require.NoError(t, errs[i])
		require.Equal(t, results[0].Descriptor.Digest, results[i].Descriptor.Digest)
	}
	require.Contains(t, strings.Join(b.warned, "\n"), "waiting for another build in "+b.state)
}

func TestCancel(t *testing.T) {
	t.Parallel()
	needToolbox(t)
	b := newBench(t, map[string]string{"Kubefile": "FROM scratch\nARG SITE\nCOPY f .\nRUN wget -q -O x $SITE && sleep 600\n", "f": "x"})
	ctx, cancel := context.WithCancelCause(t.Context())
	stopped := errors.New("stopped by the test")
	site := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { cancel(stopped) }))
	defer site.Close()
	o := b.options()
	o.BuildArgs = map[string]string{"SITE": site.URL}
	_, err := build.Run(ctx, o)
	require.ErrorIs(t, err, stopped)
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(b.state))
	require.NoError(t, err)
	require.Empty(t, mounts)
	tags, err := b.store.List(t.Context())
	require.NoError(t, err)
	require.Empty(t, tags)

	b.write(map[string]string{"Kubefile": "FROM scratch\nCOPY f .\n"})
	b.mustBuild()
}
