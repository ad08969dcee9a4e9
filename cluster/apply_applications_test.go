// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/cluster"
	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/host/hosttest"
)

// applicationText is an Application document with an image of its own.
func applicationText(name, image, more string) string {
	return fmt.Sprintf("---\napiVersion: sealer.io/v2\nkind: Application\nmetadata: {name: %s}\nspec: {image: registry.example.com/%s%s}\n", name, image, more)
}

// newApplicationWorld is a world with the images shop:v1, shop:v2 and wiki:v1.
func newApplicationWorld(t *testing.T, text string) *world {
	t.Helper()
	w := newWorld(t, text)
	wiki := clusterimage.Extension{
		Applications: []clusterimage.Application{{Name: "wiki", Type: "kube", Files: []string{"wiki.yaml"}}}, Launch: clusterimage.Launch{AppNames: []string{"wiki"}},
	}
	hand := clusterimage.Extension{
		Applications: []clusterimage.Application{{Name: "hand", Type: "kube", Files: []string{"hand.yaml"}}}, Launch: clusterimage.Launch{AppNames: []string{"hand"}},
	}
	images := map[string]*clusterimage.Image{
		"registry.example.com/team/shop:v1": appImage(t, w.bed, "v1", shopExtension(), nil), "registry.example.com/team/shop:v2": appImage(t, w.bed, "v2", shopExtension(), nil),
		"registry.example.com/wiki:v1": appImage(t, w.bed, "w1", wiki, nil), "registry.example.com/app:v1": w.bed.opts.Image,
		"registry.example.com/hand:v1":   appImage(t, w.bed, "h1", hand, nil),
		"registry.example.com/strict:v1": appImage(t, w.bed, "s1", wiki, map[string]string{clusterimage.LabelKubeVersion: ">=1.40"}),
	}
	w.opts.FindApplication = func(_ context.Context, reference string) (*clusterimage.Image, string, error) {
		if images[reference] == nil {
			return nil, "", fmt.Errorf("no such image: %q", reference)
		}
		return images[reference], reference, nil
	}
	w.opts.ReadyTimeout = 50 * time.Millisecond
	w.api.makes["db.yaml"] = []fakeObject{{version: "v1", kind: "Namespace", name: "shop"}, {version: "apps/v1", kind: "Deployment", namespace: "shop", name: "db"}}
	w.api.makes["web.yaml"] = []fakeObject{{version: "apps/v1", kind: "Deployment", namespace: "shop", name: "web"}, {version: "v1", kind: "ConfigMap", namespace: "shop", name: "web"}}
	w.api.makes["wiki.yaml"] = []fakeObject{{version: "v1", kind: "ConfigMap", namespace: "default", name: "wiki"}}
	w.api.makes["hand.yaml"] = []fakeObject{{version: "v1", kind: "ConfigMap", namespace: "default", name: "hand"}}
	return w
}

// Application images come, change and go as the Clusterfile says; what somebody has run by hand stays his.
func TestApply_Applications(t *testing.T) {
	w := newApplicationWorld(t, small)
	var told strings.Builder
	step := func(what, text string) {
		t.Helper()
		w.want(small + text)
		before, count := w.newly(), len(started(w.bed))
		w.opts.DryRun = true
		require.NoError(t, w.apply())
		planned := w.plan.String()
		require.Empty(t, w.touched(before), "a dry run changes nothing")
		w.opts.DryRun = false
		require.NoError(t, w.apply())
		require.Equal(t, planned, w.plan.String())
		fmt.Fprintf(&told, "# %s\n%s", what, planned)
		for _, line := range started(w.bed)[count:] {
			told.WriteString(line + "\n")
		}
		before = w.newly()
		require.NoError(t, w.apply())
		require.True(t, w.plan.Nothing(), w.plan.String())
		require.Empty(t, w.touched(before))
	}
	status := func(desired bool) []string {
		t.Helper()
		v, err := cluster.Open(t.Context(), cluster.ViewOptions{Clusterfile: w.opts.Clusterfile, Dial: w.opts.Dial, Distributions: w.opts.Distributions, Desired: desired})
		require.NoError(t, err)
		s, err := v.Status(t.Context())
		require.NoError(t, err)
		require.NoError(t, v.Close())
		return s.Drift
	}
	wiki := applicationText("wiki", "wiki:v1", "")
	step("with the cluster", wiki)
	shopV1 := applicationText("shop", "team/shop:v1", ", env: [TOKEN=very-secret, COLOUR=red], configs: [{name: web, env: [REPLICAS=3], files: [{path: site.yaml, data: 'a: 1'}]}]")
	step("another one", wiki+shopV1)
	require.Contains(t, filesOf(w.hosts["10.0.0.1"]), "application/apps/web/site.yaml: a: 1")
	step("its settings", wiki+applicationText("shop", "team/shop:v1", ", env: [TOKEN=more-secret, SIZE=2], launchApps: [web]"))
	require.NotContains(t, told.String(), "-secret")
	require.NotContains(t, w.api.objects, "Deployment/shop/db", "it is launched no more")
	require.Contains(t, w.api.objects, "Deployment/shop/web")
	require.Contains(t, w.api.objects, "Namespace//shop")
	step("both again, in another order", wiki+applicationText("shop", "team/shop:v1", ", launchApps: [web, db]"))
	require.Contains(t, w.api.objects, "Deployment/shop/db")
	step("the last one goes", wiki+applicationText("shop", "team/shop:v1", ", launchApps: [web]"))
	require.NotContains(t, w.api.objects, "Deployment/shop/db")
	step("and comes back", wiki+applicationText("shop", "team/shop:v1", ", launchApps: [web, db]"))
	require.Contains(t, w.api.objects, "Deployment/shop/db")
	shopV2 := applicationText("shop", "team/shop:v2", "")
	require.Empty(t, status(false))
	w.want(small + wiki + shopV2)
	require.Equal(t, []string{"the application shop is registry.example.com/team/shop:v1, not registry.example.com/team/shop:v2"}, status(true))
	step("another image of it", wiki+shopV2)
	require.Empty(t, status(true))

	delete(w.api.objects, "ConfigMap/shop/web")
	require.Equal(t, []string{"the application shop: configmap shop/web is gone"}, status(false))
	require.Equal(t, status(false), status(true))
	step("something of it is gone", wiki+shopV2)
	require.Contains(t, w.api.objects, "ConfigMap/shop/web")

	hand := cluster.ApplicationOptions{RunOptions: w.opts.RunOptions, Name: "mine", Settings: &clusterfile.File{Env: map[string]string{"A": "b"}}}
	hand.Image, hand.ImageName, _ = w.opts.FindApplication(t.Context(), "registry.example.com/hand:v1")
	require.NoError(t, cluster.RunApplication(t.Context(), hand))
	step("one goes, and one was run by hand", shopV2)
	require.NotContains(t, w.api.objects, "ConfigMap/default/wiki")
	w.want(small + shopV2 + applicationText("mine", "hand:v1", ""))
	require.Equal(t, []string{"the application mine: env A; it was run by hand, and is the Clusterfile's from now on"}, status(true))
	w.opts.Prune = true
	step("with prune", "")
	require.Empty(t, w.api.objects)
	w.opts.Prune = false
	require.NoError(t, cluster.RunApplication(t.Context(), hand))
	step("taken over", applicationText("mine", "hand:v1", ""))
	step("and taken away", "")
	require.Empty(t, applicationsOf(t, w.bed))
	golden(t, "testdata/apply-applications.txt", told.String())
}

// One that was cut is gone on with.
func TestApply_ApplicationsContinue(t *testing.T) {
	w := newApplicationWorld(t, small)
	both := small + applicationText("shop", "team/shop:v1", "") + applicationText("wiki", "wiki:v1", "")
	w.want(both)
	w.hosts["10.0.0.1"].On("web.yaml", hosttest.Answer{Err: &host.LostError{Host: "10.0.0.1"}, Times: 1})
	require.Error(t, w.apply())
	require.NoError(t, w.apply())
	require.Equal(t, "cluster \"prod\" of registry.example.com/app:v1 (v1.36.3): 1 to add, 1 to change\n 1. applications\n"+
		"    ~ application shop (its launch has not come to its end)\n    + application wiki: registry.example.com/wiki:v1\n", w.plan.String())
	require.Equal(t, []string{"10.0.0.1 kubectl apply -f db.yaml", "10.0.0.1 kubectl apply -f web.yaml", "10.0.0.1 kubectl apply -f web.yaml", "10.0.0.1 kubectl apply -f wiki.yaml"}, started(w.bed))
	require.NoError(t, w.apply())
	require.True(t, w.plan.Nothing(), w.plan.String())

	// A deletion, too; an application that is wanted again meanwhile is made anew.
	w.want(small + applicationText("wiki", "wiki:v1", ""))
	w.hosts["10.0.0.1"].On("^kubectl delete --filename", hosttest.Answer{Err: &host.LostError{Host: "10.0.0.1"}, Times: 1})
	require.Error(t, w.apply())
	w.want(both)
	require.NoError(t, w.apply())
	require.Equal(t, "cluster \"prod\" of registry.example.com/app:v1 (v1.36.3): 1 to add, 1 to remove\n 1. applications\n"+
		"    - application shop: registry.example.com/team/shop:v1 (its deletion is continued)\n    + application shop: registry.example.com/team/shop:v1\n", w.plan.String())
	require.True(t, applicationsOf(t, w.bed)[0].Ready)
	require.NoError(t, w.apply())
	require.True(t, w.plan.Nothing(), w.plan.String())
}

// What cannot be is said before anything is touched, also where the cluster is only to be made.
func TestApply_ApplicationsRefused(t *testing.T) {
	w := newApplicationWorld(t, small)
	for _, fresh := range []bool{true, false} {
		before := w.newly()
		for text, want := range map[string]string{
			applicationText("x", "nowhere:v1", ""):                           `finding the image of the application "x": no such image: "registry.example.com/nowhere:v1"`,
			applicationText("x", "app:v1", ""):                               `the application "x" of the Clusterfile: the image "registry.example.com/app:v1" holds a whole cluster`,
			applicationText("x", "team/shop:v1", ", launchApps: [webb]"):     "no application of this name; it has db, web",
			applicationText("x", "team/shop:v1", ", configs: [{name: nix}]"): `cannot launch "nix"`,
			applicationText("x", "team/shop:v1", ", launchApps: []"):         "launches nothing",
			applicationText("x", "strict:v1", ""):                            ">=1.40",
		} {
			w.want(small + text)
			require.ErrorContains(t, w.apply(), want)
		}
		require.Empty(t, w.touched(before))
		if fresh {
			w.want(small)
			require.NoError(t, w.apply())
		}
	}
}

// filesOf are the files of a host in its rootfs, each with what is in it.
func filesOf(h *fakeHost) string {
	var b strings.Builder
	for path, f := range h.Files() {
		fmt.Fprintf(&b, "%s: %s\n", path, f.Data)
	}
	return b.String()
}
