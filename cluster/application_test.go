// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/cluster"
	"github.com/sealerio/sealer/cluster/application"
	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/host/hosttest"
	"github.com/sealerio/sealer/internal/progress"
	"github.com/sealerio/sealer/runtime"
	"github.com/sealerio/sealer/store"
)

// appImage is an application image whose packed image and files are called after version.
func appImage(t *testing.T, b *bed, version string, ext clusterimage.Extension, labels map[string]string, arch ...string) *clusterimage.Image {
	t.Helper()
	return appImageOf(t, b, version, "", ext, labels, arch...)
}

// appImageOf is appImage with more in its packed image.
func appImageOf(t *testing.T, b *bed, version, more string, ext clusterimage.Extension, labels map[string]string, arch ...string) *clusterimage.Image {
	t.Helper()
	cs := b.opts.Content.(content.Store)
	in := clusterimage.Composition{}
	for _, a := range append([]string{"amd64"}, arch...) {
		p := ocispec.Platform{OS: "linux", Architecture: a}
		config := ocispec.Image{Platform: p}
		ext.Type = clusterimage.AppInstaller
		config.Config.Labels = map[string]string{clusterimage.LabelExtension: string(ext.Marshal())}
		maps.Copy(config.Config.Labels, labels)
		d := putImage(t, cs, config, "files of "+version+a)
		d.Platform = &p
		in.Rootfs = append(in.Rootfs, d)
		in.Images = append(in.Images, clusterimage.PackedImage{
			Name: "docker.io/team/shop:" + version, Platform: "linux/" + a,
			Manifest: putImage(t, cs, ocispec.Image{Platform: p}, "layer of "+version+a+more), Size: 1000,
		})
	}
	desc, err := clusterimage.Compose(t.Context(), cs, in)
	require.NoError(t, err)
	img, err := clusterimage.Read(t.Context(), cs, desc)
	require.NoError(t, err)
	return img
}

func shopExtension() clusterimage.Extension {
	return clusterimage.Extension{
		Applications: []clusterimage.Application{
			{Name: "db", Type: "kube", Files: []string{"db.yaml"}},
			{Name: "web", Type: "kube", Files: []string{"web.yaml"}, Env: map[string]string{"REPLICAS": "2"}},
		},
		Launch: clusterimage.Launch{AppNames: []string{"db", "web"}},
	}
}

const twoPlanes = "spec:\n  hosts: [{ips: [10.0.0.1, 10.0.0.2], roles: [master]}, {ips: [10.0.0.3], roles: [node]}]\n"

// shop is a cluster that runs, and an application for it.
func shop(t *testing.T) (*bed, cluster.ApplicationOptions) {
	t.Helper()
	b := newBed(t, twoPlanes)
	require.NoError(t, b.run(t))
	b.out.Reset()
	b.api.makes["db.yaml"] = []fakeObject{
		{version: "v1", kind: "Namespace", name: "shop"}, {version: "v1", kind: "ConfigMap", namespace: "kube-system", name: "theirs"},
		{version: "apps/v1", kind: "Deployment", namespace: "shop", name: "db"},
	}
	b.api.makes["web.yaml"] = []fakeObject{{version: "apps/v1", kind: "Deployment", namespace: "shop", name: "web"}, {version: "example.com/v1", kind: "Widget", namespace: "shop", name: "w"}}
	b.api.objects["ConfigMap/kube-system/theirs"] = fakeObject{version: "v1", kind: "ConfigMap", namespace: "kube-system", name: "theirs", created: b.api.clock.Add(-time.Hour)}
	o := cluster.ApplicationOptions{RunOptions: b.opts}
	o.Image, o.ImageName, o.ReadyTimeout = appImage(t, b, "v1", shopExtension(), nil), "registry.example.com/team/shop:v1", 50*time.Millisecond
	return b, o
}

// started are the launched commands, in order, on all hosts.
func started(b *bed) []string {
	var list []string
	for _, name := range []string{"10.0.0.1", "10.0.0.2", "10.0.0.3"} {
		if b.hosts[name] == nil {
			continue
		}
		for _, c := range b.hosts[name].Calls() {
			if text := strings.Join(c.Argv, " "); strings.HasPrefix(text, inRootfs) && c.Mutates && strings.Contains(c.Dir, "application/apps") {
				list = append(list, name+" "+strings.TrimPrefix(text, inRootfs))
			}
		}
	}
	return list
}

func applicationsOf(t *testing.T, b *bed) []cluster.ApplicationStatus {
	t.Helper()
	list, err := b.view(t).Applications(t.Context())
	require.NoError(t, err)
	return list
}

func (b *bed) deleteApplication(name string) cluster.DeleteApplicationOptions {
	return cluster.DeleteApplicationOptions{
		Operator: b.opts.Operator, Clusterfile: b.opts.Clusterfile, Name: name,
	}
}

func TestApplicationName(t *testing.T) {
	for image, want := range map[string]string{
		"registry.example.com:5000/team/shop:v1": "shop", "redis": "redis", "a/my_app.x@sha256:" + strings.Repeat("0", 64): "my-app-x", "UPPER": "UPPER",
	} {
		require.Equal(t, want, cluster.ApplicationName(image))
	}
}

// The control planes get it, one of them launches it, and the cluster keeps what it made.
func TestRunApplication(t *testing.T) {
	b, o := shop(t)
	dry := o
	dry.DryRun = true
	require.NoError(t, cluster.RunApplication(t.Context(), dry))
	golden(t, "testdata/application-plan.txt", b.out.String())
	require.Empty(t, started(b))
	b.out.Reset()

	before := map[string]int{}
	for name, h := range b.hosts {
		before[name] = len(h.blobs)
	}
	o.Settings = &clusterfile.File{Env: map[string]string{"TOKEN": "very-secret-token"}, Applications: []clusterfile.Application{{Name: "web", Env: map[string]string{"REPLICAS": "3"}}}}
	require.NoError(t, cluster.RunApplication(t.Context(), o))
	require.Equal(t, "application \"shop\" of registry.example.com/team/shop:v1 is ready on cluster \"prod\"\n", b.out.String())
	require.Equal(t, []string{"10.0.0.1 kubectl apply -f db.yaml", "10.0.0.1 kubectl apply -f web.yaml"}, started(b))
	for _, c := range b.hosts["10.0.0.1"].Calls() {
		if strings.Contains(c.String(), "web.yaml") {
			require.Subset(t, c.Env, []string{"REPLICAS=3", "TOKEN=very-secret-token", "KubeVersion=v1.36.3"})
		}
		require.NotContains(t, c.String(), "very-secret-token")
	}
	require.Greater(t, len(b.hosts["10.0.0.1"].blobs), before["10.0.0.1"])
	require.Greater(t, len(b.hosts["10.0.0.2"].blobs), before["10.0.0.2"])
	require.Len(t, b.hosts["10.0.0.3"].blobs, before["10.0.0.3"], "workers pull")
	require.Contains(t, strings.Join(b.hosts["10.0.0.2"].did(), "\n"), "registry publish --image "+o.Image.Descriptor.Digest.String())

	list := applicationsOf(t, b)
	require.Len(t, list, 1)
	require.True(t, list[0].Ready, list[0].Why)
	require.Equal(t, []string{"db", "web"}, list[0].Applications)
	require.Equal(t, o.Image.Descriptor.Digest.String(), list[0].Digest)
	require.Equal(t, application.OriginImage, list[0].Origin)

	// Again: nothing, from another machine and without what was said then.
	b.out.Reset()
	o.Settings, o.StateDir = nil, t.TempDir()
	require.NoError(t, cluster.RunApplication(t.Context(), o))
	require.Contains(t, b.out.String(), "nothing to change")
	require.Len(t, started(b), 2)
	// The cluster's own run has as little to do.
	require.NoError(t, b.run(t))
	require.Contains(t, b.out.String(), "nothing to change")

	// Other settings launch it again, under them.
	o.Settings = &clusterfile.File{Env: map[string]string{"TOKEN": "another"}}
	require.NoError(t, cluster.RunApplication(t.Context(), o))
	require.Len(t, started(b), 4)

	// What a run leaves out stays; an upgrade, which says all, takes it away.
	o.Settings = &clusterfile.File{Apps: []string{"web"}}
	require.NoError(t, cluster.RunApplication(t.Context(), o))
	require.Contains(t, b.api.objects, "Deployment/shop/db")
	require.Equal(t, []string{"db", "web"}, applicationsOf(t, b)[0].Applications)
	o.Upgrade = true
	require.NoError(t, cluster.RunApplication(t.Context(), o))
	require.NotContains(t, b.api.objects, "Deployment/shop/db")
	require.Contains(t, b.api.objects, "Deployment/shop/web")
	require.Contains(t, b.api.objects, "ConfigMap/kube-system/theirs", "it was there before")
	require.Equal(t, []string{"web"}, applicationsOf(t, b)[0].Applications)
	b.out.Reset()
	require.NoError(t, cluster.RunApplication(t.Context(), o))
	require.Contains(t, b.out.String(), "nothing to change")
}

// What is launched no more may be a chart, which is uninstalled in the rootfs, and last, so that nothing is launched for it.
func TestRunApplication_DropsReleases(t *testing.T) {
	b, o := shop(t)
	b.api.makes["web.yaml"] = append(b.api.makes["web.yaml"], fakeObject{kind: "release", namespace: "shop", name: "chart"})
	require.NoError(t, cluster.RunApplication(t.Context(), o))
	require.True(t, b.api.releases["chart"])
	count := len(started(b))
	o.Settings, o.Upgrade = &clusterfile.File{Apps: []string{"db"}}, true
	require.NoError(t, cluster.RunApplication(t.Context(), o))
	require.Len(t, started(b), count)
	require.Equal(t, []string{"release chart", "Widget/shop/w", "Deployment/shop/web"}, b.api.order)
	for _, c := range b.hosts["10.0.0.1"].Calls() {
		if strings.Contains(c.String(), "helm uninstall") {
			require.NotContains(t, c.Env, "CLUSTER_ROOTFS=")
		}
	}
	b.out.Reset()
	require.NoError(t, cluster.RunApplication(t.Context(), o))
	require.Contains(t, b.out.String(), "nothing to change")
}

// The operator sends an application once; control planes give it to one another.
func TestRunApplication_Shares(t *testing.T) {
	b := newShareBed(t, "127.0.0.11-127.0.0.13", "127.0.0.14")
	require.NoError(t, b.run(t))
	before := b.total()
	layer := make([]byte, layerSize)
	_, _ = rand.NewChaCha8([32]byte{2}).Read(layer)
	o := cluster.ApplicationOptions{RunOptions: b.opts}
	o.Image, o.ImageName = appImageOf(t, b.bed, "v1", string(layer), shopExtension(), nil), "registry.example.com/team/shop:v1"
	b.api.makes["db.yaml"] = []fakeObject{{version: "v1", kind: "ConfigMap", namespace: "default", name: "db"}}
	display, err := progress.Open(&b.log, progress.Plain, nil)
	require.NoError(t, err)
	o.Display = display
	require.NoError(t, cluster.RunApplication(t.Context(), o))
	require.NoError(t, display.Close())
	require.Less(t, float64(b.total()-before), 1.1*layerSize, "%s", &b.log)
	require.Contains(t, b.log.String(), "content: 22 MiB from here, 43 MiB from host to host")
	want, err := o.Image.Descriptors(t.Context(), b.opts.Content, []ocispec.Platform{{OS: "linux", Architecture: "amd64"}})
	require.NoError(t, err)
	for i, s := range b.sharers {
		st, err := store.Open(filepath.Join(s.root, "store"))
		require.NoError(t, err)
		for _, d := range want {
			data, err := os.ReadFile(st.BlobPath(d.Digest))
			if i == 3 {
				require.ErrorIs(t, err, fs.ErrNotExist, "workers pull")
				continue
			}
			require.NoError(t, err)
			require.Equal(t, d.Digest, digest.FromBytes(data))
		}
	}
}

// One that was cut is gone on with, wherever it was.
func TestRunApplication_Resumes(t *testing.T) {
	b, o := shop(t)
	b.hosts["10.0.0.1"].On("web.yaml", hosttest.Answer{Err: &host.LostError{Host: "10.0.0.1"}, Times: 1})
	require.Error(t, cluster.RunApplication(t.Context(), o))
	require.Equal(t, []string{"its launch has not come to its end; the same command goes on with it"}, applicationsOf(t, b)[0].Why)
	b.hosts["10.0.0.1"].unreachable = errors.New("no route to host") // and then the host is gone
	require.NoError(t, cluster.RunApplication(t.Context(), o))
	require.Equal(t, []string{"10.0.0.1 kubectl apply -f db.yaml", "10.0.0.1 kubectl apply -f web.yaml", "10.0.0.2 kubectl apply -f web.yaml"}, started(b))
	require.Contains(t, b.out.String(), "could not be reached, and do not have its images yet; their registries fetch them when they are back: 10.0.0.1\n")
	require.True(t, applicationsOf(t, b)[0].Ready)
}

func TestRunApplication_NotReady(t *testing.T) {
	b, o := shop(t)
	b.api.broken["db"] = true
	b.api.events = `{"reason":"Old","message":"old","lastTimestamp":"2026-01-01T00:00:01Z","involvedObject":{"kind":"Pod","name":"db-1-x"}},
{"reason":"BackOff","message":"restarting","lastTimestamp":"2026-01-01T00:00:09Z","involvedObject":{"kind":"Pod","name":"db-1-x"}},
{"reason":"BackOff","message":"another's","lastTimestamp":"2026-01-01T00:00:09Z","involvedObject":{"kind":"Pod","name":"database"}}`
	pod := `{"items":[{"metadata":{"name":"db-1-x","namespace":"shop","labels":{"app":"db"}},"status":{"phase":"Pending","containerStatuses":[{"image":"%s","state":{"waiting":{"reason":"%s","message":"for 10s"}}}]}}]}`
	b.hosts["10.0.0.1"].pods = strings.Replace(strings.Replace(pod, "%s", "docker.io/team/shop:v1", 1), "%s", "CrashLoopBackOff", 1)
	err := cluster.RunApplication(t.Context(), o)
	var unready *application.NotReadyError
	require.ErrorAs(t, err, &unready)
	require.Equal(t, []string{"deployment shop/db: 0 of 1 pods are available (pod db-1-x: CrashLoopBackOff: for 10s)"}, unready.Parts)
	require.Equal(t, []string{"00:00:09 pod db-1-x: BackOff: restarting", "00:00:01 pod db-1-x: Old: old"}, unready.Events)
	require.Equal(t, []string{"10.0.0.1 kubectl apply -f db.yaml"}, started(b), "what comes after waits for it")
	require.Equal(t, "deployment shop/db: 0 of 1 pods are available", applicationsOf(t, b)[0].Why[1])

	// An image that nobody packed is said at once.
	o.ReadyTimeout = time.Hour
	b.hosts["10.0.0.1"].pods = strings.Replace(strings.Replace(pod, "%s", "quay.io/x/y:1", 1), "%s", "ErrImagePull", 1)
	b.hosts["10.0.0.1"].On("registry lacks", hosttest.Answer{Stdout: `["quay.io/x/y:1"]`})
	require.ErrorAs(t, cluster.RunApplication(t.Context(), o), &unready)
	require.Equal(t, []string{"the pod shop/db-1-x wants the image quay.io/x/y:1, which nobody packed"}, unready.Parts)
	require.Contains(t, unready.Hint(), "imageList")

	b.api.broken["db"] = false
	require.NoError(t, cluster.RunApplication(t.Context(), o))
	require.Len(t, started(b), 2)

	// A Job that has failed does not come right by waiting.
	b.api.makes["web.yaml"] = append(b.api.makes["web.yaml"], fakeObject{version: "batch/v1", kind: "Job", namespace: "shop", name: "fill"})
	b.api.broken["fill"] = true
	o.Settings = &clusterfile.File{Env: map[string]string{"A": "b"}}
	require.ErrorContains(t, cluster.RunApplication(t.Context(), o), "it will not become ready: job shop/fill: it failed: Job has reached the specified backoff limit")
}

func TestRunApplication_Refuses(t *testing.T) {
	b, o := shop(t)
	run := func(change func(*cluster.ApplicationOptions)) string {
		t.Helper()
		o := o
		change(&o)
		err := cluster.RunApplication(t.Context(), o)
		require.Error(t, err)
		return err.Error()
	}
	launch := func(ext clusterimage.Extension, labels map[string]string) func(*cluster.ApplicationOptions) {
		return func(o *cluster.ApplicationOptions) { o.Image = appImage(t, b, "other", ext, labels) }
	}
	nothing := shopExtension()
	nothing.Launch = clusterimage.Launch{}
	for want, change := range map[string]func(*cluster.ApplicationOptions){
		`the image "registry.example.com/team/shop:v1" holds a whole cluster, and is no application image`: func(o *cluster.ApplicationOptions) { o.Image = b.opts.Image },
		`the image "registry.example.com/team/shop:v1" cannot launch "webb": the image has no application of this name; it has db, web`: func(o *cluster.ApplicationOptions) {
			o.Settings = &clusterfile.File{Apps: []string{"webb"}}
		},
		`the image "registry.example.com/team/shop:v1" launches nothing`:                                      launch(nothing, nil),
		`checking the image "registry.example.com/team/shop:v1": it is for Kubernetes <1.30, not for v1.36.3`: launch(shopExtension(), map[string]string{clusterimage.LabelKubeVersion: "<1.30"}),
		`"Shop" is no name for an application: small letters, digits and dashes, 53 at most`:                  func(o *cluster.ApplicationOptions) { o.Name = "Shop" },
		`the cluster "prod" has no application "shop"`:                                                        func(o *cluster.ApplicationOptions) { o.Upgrade = true },
		`10.0.0.1: it belongs to the cluster "prod", not to "other"`: func(o *cluster.ApplicationOptions) {
			f := *o.Clusterfile
			f.Name = "other"
			o.Clusterfile = &f
		},
	} {
		require.Equal(t, want, run(change))
	}
	for name, h := range b.hosts {
		for _, c := range h.Calls() {
			require.NotContains(t, c.String(), "application.sealer.local", name)
		}
	}
	bare := newBed(t, twoPlanes)
	o2 := o
	o2.Dial, o2.StateDir = bare.opts.Dial, bare.opts.StateDir
	require.EqualError(t, cluster.RunApplication(t.Context(), o2),
		`the image "registry.example.com/team/shop:v1" holds applications and no cluster, and none of the hosts holds anything of the cluster "prod"`)

	b.hosts["10.0.0.3"].On("^sh -s -- ", hosttest.Answer{Stdout: "time=" + "0\nuid=0\narch=aarch64\nhostname=h3\ninit=systemd\nstate=" +
		strings.ReplaceAll(string(b.hosts["10.0.0.3"].Files()[runtime.StateFile].Data), "\n", "") + "\nend=1\n"})
	require.Contains(t, run(func(*cluster.ApplicationOptions) {}), "10.0.0.3: the image \"registry.example.com/team/shop:v1\" cannot run here")
}

func TestUpgradeApplication(t *testing.T) {
	b, o := shop(t)
	require.NoError(t, cluster.RunApplication(t.Context(), o))
	first := o
	o.Image, o.ImageName = appImage(t, b, "v2", shopExtension(), nil), "registry.example.com/team/shop:v2"
	require.EqualError(t, cluster.RunApplication(t.Context(), o),
		`the application "shop" is there already, of the image "registry.example.com/team/shop:v1" (`+first.Image.Descriptor.Digest.String()+")")
	o.Upgrade = true

	// It fails: what is there is told, and the way back.
	b.api.broken["web"] = true
	err := cluster.RunApplication(t.Context(), o)
	var failed *cluster.UpgradeFailedError
	require.ErrorAs(t, err, &failed)
	require.Contains(t, failed.Hint(), "to go back: sealer app upgrade shop registry.example.com/team/shop:v1")
	require.Contains(t, applicationsOf(t, b)[0].Why[0], "its upgrade from registry.example.com/team/shop:v1 has not come to its end")
	dropped := func(o cluster.ApplicationOptions) bool {
		return slices.ContainsFunc(b.hosts["10.0.0.2"].did(), func(line string) bool {
			return strings.Contains(line, "registry unpublish --image "+o.Image.Descriptor.Digest.String())
		})
	}
	require.False(t, dropped(first))

	// Back again, and then forth: what only the image before had goes.
	b.api.broken["web"] = false
	back := first
	back.Upgrade = true
	require.NoError(t, cluster.RunApplication(t.Context(), back))
	require.True(t, dropped(o))
	require.False(t, dropped(first))
	b.api.makes["web.yaml"] = b.api.makes["web.yaml"][:1]
	require.NoError(t, cluster.RunApplication(t.Context(), o))
	require.True(t, dropped(first))
	require.Equal(t, []string{"Widget/shop/w"}, b.api.order)
	list := applicationsOf(t, b)
	require.Len(t, list, 1)
	require.True(t, list[0].Ready, list[0].Why)
	require.Equal(t, "registry.example.com/team/shop:v2", list[0].Image)
}

func TestDeleteApplication(t *testing.T) {
	b, o := shop(t)
	b.api.makes["web.yaml"] = append(b.api.makes["web.yaml"], fakeObject{kind: "release", namespace: "shop", name: "chart"})
	require.NoError(t, cluster.RunApplication(t.Context(), o))
	second := o
	second.Name = "second"
	second.Image = appImage(t, b, "second", clusterimage.Extension{
		Applications: []clusterimage.Application{{Name: "db", Type: "kube", Files: []string{"other.yaml"}}}, Launch: clusterimage.Launch{AppNames: []string{"db"}},
	}, nil)
	b.api.makes["other.yaml"] = []fakeObject{{version: "apps/v1", kind: "Deployment", namespace: "shop", name: "db"}}
	require.NoError(t, cluster.RunApplication(t.Context(), second))

	d := b.deleteApplication("shop")
	d.Confirm = func(plan string) error {
		golden(t, "testdata/application-delete.txt", plan)
		return errors.New("no")
	}
	require.EqualError(t, cluster.DeleteApplication(t.Context(), d), "no")
	require.Empty(t, b.api.order)

	// Cut in the middle, it goes on.
	d.Confirm = nil
	b.hosts["10.0.0.1"].On("^kubectl delete --filename", hosttest.Answer{Err: &host.LostError{Host: "10.0.0.1"}, Times: 1})
	require.Error(t, cluster.DeleteApplication(t.Context(), d))
	require.ErrorContains(t, cluster.RunApplication(t.Context(), o), `the application "shop" is being deleted`)
	require.NoError(t, cluster.DeleteApplication(t.Context(), d))
	require.Equal(t, []string{"release chart", "Widget/shop/w", "Deployment/shop/web"}, b.api.order)
	require.Contains(t, b.api.objects, "Namespace//shop", "it has something of the other one in it")
	require.Contains(t, b.api.objects, "ConfigMap/kube-system/theirs", "it was there before")
	require.Contains(t, b.api.objects, "Deployment/shop/db", "the other one has it as well")
	names := []string{}
	for _, s := range applicationsOf(t, b) {
		names = append(names, s.Name)
	}
	require.Equal(t, []string{"second"}, names)
	for _, h := range []string{"10.0.0.1", "10.0.0.2"} {
		require.Contains(t, strings.Join(b.hosts[h].did(), "\n"), "registry unpublish --image "+o.Image.Descriptor.Digest.String())
		var state runtime.HostState
		require.NoError(t, json.Unmarshal(b.hosts[h].Files()[runtime.StateFile].Data, &state))
		for step := range state.Steps {
			require.False(t, strings.HasPrefix(step, "shop: "), step)
		}
	}
	var unknown *cluster.UnknownApplicationError
	require.ErrorAs(t, cluster.DeleteApplication(t.Context(), d), &unknown)
	require.Equal(t, "it has second", unknown.Hint())
}

// What the cluster's own image launches is listed, and changes with that image.
func TestApplications_OfTheCluster(t *testing.T) {
	b := newBedOf(t, oneHost, applications(), nil)
	b.api.makes["c.yaml"] = []fakeObject{{version: "apps/v1", kind: "Deployment", namespace: "default", name: "db"}}
	require.NoError(t, b.run(t))
	var names []string
	for _, s := range applicationsOf(t, b) {
		require.True(t, s.Ready, s.Why)
		require.Equal(t, application.OriginCluster, s.Origin)
		require.Equal(t, "registry.example.com/app:v1", s.Image)
		names = append(names, s.Name)
	}
	require.Equal(t, []string{"calico", "db", "own", "web"}, names)
	b.api.broken["db"] = true
	require.Equal(t, []string{"deployment default/db: 0 of 1 pods are available"}, applicationsOf(t, b)[1].Why)
	require.EqualError(t, cluster.DeleteApplication(t.Context(), b.deleteApplication("db")), `the application "db" of the cluster "prod" came with the cluster's own image`)
}
