// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/distribution/reference"
)

// defaultDaemon is where docker listens unless $DOCKER_HOST says otherwise.
const defaultDaemon = "unix:///var/run/docker.sock"

// DaemonError says that a Docker daemon did not give an image.
type DaemonError struct {
	Host string
	Err  error
}

func (e *DaemonError) Error() string {
	return fmt.Sprintf("asking the docker daemon at %s: %v", e.Host, e.Err)
}
func (e *DaemonError) Unwrap() error { return e.Err }

// Hint tells the user what to do.
func (e *DaemonError) Hint() string {
	return "start docker where it does not run; DOCKER_HOST names another daemon (unix:// or tcp://, without TLS); docker save -o FILE and docker-archive:FILE need none"
}

// OpenDaemon saves an image of a Docker daemon, as docker save does, and lists it. host is $DOCKER_HOST; "" is the local
// socket. The saved image lies in a file without a name in dir until Close.
// See https://docs.docker.com/reference/api/engine/version/v1.48/#tag/Image/operation/ImageGetAll
func OpenDaemon(ctx context.Context, host, image, dir string) (_ *Archive, err error) {
	name := "docker-daemon:" + image
	f, err := save(ctx, host, image, dir)
	if err != nil {
		return nil, &Error{Source: name, Err: err}
	}
	info, err := f.Stat()
	if err != nil {
		return nil, &Error{Source: name, Err: errors.Join(err, f.Close())}
	}
	open := func() (io.ReadCloser, error) {
		return sectionFile{io.NewSectionReader(f, 0, info.Size())}, nil
	}
	return list(ctx, name, "", &tarball{open: open}, f.Close)
}

// sectionFile reads a file from its start, however often.
type sectionFile struct{ *io.SectionReader }

func (sectionFile) Close() error { return nil }

func save(ctx context.Context, host, image, dir string) (_ *os.File, err error) {
	if host == "" {
		host = defaultDaemon
	}
	client, base, err := daemonClient(host)
	if err != nil {
		return nil, &DaemonError{Host: host, Err: err}
	}
	defer client.CloseIdleConnections()
	u := base + "/images/get?names=" + url.QueryEscape(daemonName(image))
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return nil, &DaemonError{Host: host, Err: err}
	}
	resp, err := client.Do(req)
	if err != nil {
		if ue, ok := errors.AsType[*url.Error](err); ok {
			err = ue.Err
		}
		return nil, &DaemonError{Host: host, Err: err}
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, &DaemonError{Host: host, Err: daemonMessage(resp)}
	}
	f, err := os.CreateTemp(dir, "docker-save-")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if _, err := io.Copy(f, resp.Body); err != nil {
		return nil, errors.Join(&DaemonError{Host: host, Err: err}, f.Close())
	}
	return f, nil
}

// daemonName is the name as docker shows it: docker.io/library/x is x there.
func daemonName(image string) string {
	named, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return image
	}
	return reference.FamiliarString(named)
}

func daemonClient(host string) (*http.Client, string, error) {
	scheme, address, ok := strings.Cut(host, "://")
	dialer := &net.Dialer{}
	switch {
	case ok && scheme == "unix" && address != "":
		return &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", address)
		}}}, "http://docker", nil
	case ok && (scheme == "tcp" || scheme == "http") && address != "":
		return &http.Client{Transport: &http.Transport{DialContext: dialer.DialContext}}, "http://" + strings.TrimSuffix(address, "/"), nil
	}
	return nil, "", errors.New("it is neither unix://PATH nor tcp://HOST:PORT")
}

func daemonMessage(resp *http.Response) error {
	var said struct{ Message string }
	if err := json.NewDecoder(io.LimitReader(resp.Body, 64<<10)).Decode(&said); err == nil && said.Message != "" {
		return errors.New(said.Message)
	}
	return errors.New(resp.Status)
}
