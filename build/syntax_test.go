// SPDX-License-Identifier: Apache-2.0

package build_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/build"
)

func TestCheckBuilder(t *testing.T) {
	t.Parallel()
	for _, address := range []string{
		"", "unix:///run/buildkit/buildkitd.sock", "tcp://10.0.0.1:1234", "docker-container://builder", "docker-container://builder?context=remote",
		"kube-pod://buildkitd-0?namespace=ci&container=buildkitd&context=prod",
	} {
		require.NoError(t, build.CheckBuilder(address, ""), address)
	}
	for address, want := range map[string]string{
		"unix://run/sock":          `builder "unix://run/sock": a socket is named with three slashes: unix:///path`,
		"tcp://10.0.0.1":           `builder "tcp://10.0.0.1": the port is missing: tcp://HOST:PORT`,
		"/run/buildkitd.sock":      `builder "/run/buildkitd.sock": the scheme is missing`,
		"ftp://x":                  `builder "ftp://x": unknown scheme "ftp"`,
		"docker-container://":      `builder "docker-container://": url lacks container name`,
		"kube-pod://":              `builder "kube-pod://": url lacks pod name`,
		"kube-pod://a?namespace=B": `builder "kube-pod://a?namespace=B": unsupported namespace name: "B"`,
		"tcp://[::1":               `builder "tcp://[::1": missing ']' in host`,
	} {
		require.EqualError(t, build.CheckBuilder(address, ""), want)
	}
	require.ErrorContains(t, build.CheckBuilder("", "/certs"), "none is named")
	require.ErrorContains(t, build.CheckBuilder("unix:///x", "/certs"), "tcp:// only")
	require.ErrorContains(t, build.CheckBuilder("tcp://x:1", t.TempDir()), "has no ca.pem")
}

func TestParseCache(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]build.Cache{
		"reg.example/a:1":                        {Type: "registry", Attrs: map[string]string{"ref": "reg.example/a:1"}},
		"type=registry,ref=a:1,mode=max":         {Type: "registry", Attrs: map[string]string{"ref": "a:1", "mode": "max"}},
		`type=local,"dest=/with,comma",Mode=max`: {Type: "local", Attrs: map[string]string{"dest": "/with,comma", "mode": "max"}},
		"type=inline":                            {Type: "inline", Attrs: map[string]string{}},
	} {
		got, err := build.ParseCache(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got)
	}
	for text, want := range map[string]string{
		"type=local,dest":        `cache "type=local,dest": "dest" is not KEY=VALUE`,
		"type=local,type=inline": `cache "type=local,type=inline": type is given twice`,
	} {
		_, err := build.ParseCache(text)
		require.EqualError(t, err, want)
	}
}

func TestParseSecret(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]build.Secret{
		"id=a":                 {ID: "a"},
		"id=a,src=/f":          {ID: "a", File: "/f"},
		"id=a,source=/f":       {ID: "a", File: "/f"},
		"type=env,id=a,src=F":  {ID: "a", Env: "F"},
		"type=file,id=a,src=F": {ID: "a", File: "F"},
		"id=a,env=E":           {ID: "a", Env: "E"},
	} {
		got, err := build.ParseSecret(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got)
	}
	for text, want := range map[string]string{
		"src=/f":             "secret: id= is missing",
		"id=a,src=/f,env=E":  `secret "a": it is either a file (src=) or a variable (env=)`,
		"id=a,value=x":       `secret "a": unknown key "value": id, src and env are known`,
		"id=a,type=password": `secret "a": unknown type "password": file and env are known`,
	} {
		_, err := build.ParseSecret(text)
		require.EqualError(t, err, want)
	}
}

func TestParseAnnotation(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "=x", "key", "index:key", "layer:a=b", "manifest[:a=b", "manifest[x y]:a=b"} {
		_, err := build.ParseAnnotation(text)
		require.ErrorContains(t, err, "annotation ", text)
	}
}
