// SPDX-License-Identifier: Apache-2.0

package node

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/sealerio/sealer/test/components/programs/doubles/journal"
	"github.com/sealerio/sealer/test/components/programs/doubles/mirror"
)

// Docker is the host's own docker, asked as cri-dockerd asks it: for images by their names, and to pull them with the logins in the
// kubelet's config.json. An image's own registry is not asked, as everywhere here: that it would be is noted.
type Docker struct {
	client *http.Client
	logins string
}

// NewDocker is the daemon at a socket.
func NewDocker(socket, logins string) *Docker {
	dialer := &net.Dialer{}
	return &Docker{logins: logins, client: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", socket)
		},
	}}}
}

func (d *Docker) ask(ctx context.Context, method, path string, header http.Header) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://docker"+path, nil)
	if err != nil {
		return 0, nil, err
	}
	for k, v := range header {
		req.Header[k] = v
	}
	resp, err := d.client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, 8<<20))
	return resp.StatusCode, text, errors.Join(err, resp.Body.Close())
}

// Version is the daemon's; without a daemon cri-dockerd does not start.
func (d *Docker) Version(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	status, text, err := d.ask(ctx, http.MethodGet, "/version", nil)
	var said struct{ Version string }
	if err == nil {
		err = json.Unmarshal(text, &said)
	}
	if err != nil || status != http.StatusOK {
		return "", fmt.Errorf("failed to start cri-dockerd: failed to get docker version from dockerd: Cannot connect to the Docker daemon. Is the docker daemon running? (%d %w)", status, err)
	}
	return said.Version, nil
}

// short is the name as docker writes it.
func short(r mirror.Reference) string {
	return strings.TrimPrefix(strings.TrimPrefix(r.String(), "docker.io/"), "library/")
}

func (d *Docker) has(ctx context.Context, image string) (bool, error) {
	status, text, err := d.ask(ctx, http.MethodGet, "/images/"+short(mirror.Parse(image))+"/json", nil)
	if err == nil && status != http.StatusOK && status != http.StatusNotFound {
		err = fmt.Errorf("inspecting %s: %d %s", image, status, text)
	}
	return status == http.StatusOK, err
}

func (d *Docker) ensure(ctx context.Context, image string, always bool, j *journal.Journal) error {
	if has, err := d.has(ctx, image); err != nil || has && !always {
		return err
	}
	ref := mirror.Parse(image)
	var file struct {
		Auths map[string]struct{ Auth string }
	}
	if text, err := os.ReadFile(d.logins); err == nil {
		if err := json.Unmarshal(text, &file); err != nil {
			return err
		}
	}
	login, known := file.Auths[ref.Registry]
	if !known {
		j.Add(journal.Entry{Event: "upstream", Text: ref.String()})
		return &mirror.UpstreamError{Reference: ref}
	}
	plain, err := base64.StdEncoding.DecodeString(login.Auth)
	if err != nil {
		return err
	}
	user, password, _ := strings.Cut(string(plain), ":")
	auth, err := json.Marshal(map[string]string{"username": user, "password": password, "serveraddress": ref.Registry})
	if err != nil {
		return err
	}
	header := http.Header{}
	header.Set("X-Registry-Auth", base64.URLEncoding.EncodeToString(auth))
	tag := ref.Tag
	if ref.Digest != "" {
		tag = ref.Digest
	}
	query := url.Values{"fromImage": {ref.Registry + "/" + ref.Repository}, "tag": {tag}}
	status, text, err := d.ask(ctx, http.MethodPost, "/images/create?"+query.Encode(), header)
	if err == nil && (status != http.StatusOK || bytes.Contains(text, []byte(`"error"`))) {
		err = fmt.Errorf("pulling %s: %d %s", image, status, text)
	}
	if err == nil {
		j.Add(journal.Entry{Event: "pulled", Text: ref.String() + " by docker"})
	}
	return err
}
