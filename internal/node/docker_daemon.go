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
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"
)

// DockerError is a docker daemon that does not answer.
type DockerError struct {
	Socket string
	Err    error
}

func (e *DockerError) Error() string {
	return fmt.Sprintf("asking docker at %s: %v", e.Socket, e.Err)
}
func (e *DockerError) Unwrap() error { return e.Err }

// Hint says what to look at.
func (e *DockerError) Hint() string {
	return "docker runs the cluster's containers on this host: systemctl status docker"
}

// docker is the host's daemon, asked by its own protocol (docs.docker.com/reference/api/engine).
type docker struct {
	socket string
	client *http.Client
}

func (n *Node) docker() *docker {
	dialer := &net.Dialer{}
	return &docker{socket: n.dockerSocket, client: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", n.dockerSocket)
		},
	}}}
}

func (d *docker) close() { d.client.CloseIdleConnections() }

// maxAnswer bounds what docker says in one answer, and in one line of a pull.
const maxAnswer = 8 << 20

// ask sends a request and gives its answer back, which the caller closes. Statuses other than of success and in of allowed are errors.
func (d *docker) ask(ctx context.Context, method, path string, header http.Header, allowed ...int) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://docker"+path, nil)
	if err != nil {
		return nil, &DockerError{d.socket, err}
	}
	maps.Copy(req.Header, header)
	resp, err := d.client.Do(req)
	if err != nil {
		if ue, ok := errors.AsType[*url.Error](err); ok {
			err = ue.Err
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, &DockerError{d.socket, err}
	}
	if resp.StatusCode < 300 || slices.Contains(allowed, resp.StatusCode) {
		return resp, nil
	}
	defer resp.Body.Close()
	var said struct{ Message string }
	data, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err == nil && json.Unmarshal(data, &said) == nil && said.Message != "" {
		return nil, errors.New("docker: " + said.Message)
	}
	return nil, errors.New("docker: " + resp.Status)
}

// id is what a name or id stands for; empty where docker has no such image.
func (d *docker) id(ctx context.Context, name string) (string, error) {
	resp, err := d.ask(ctx, http.MethodGet, "/images/"+familiar(name)+"/json", nil, http.StatusNotFound)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNotFound {
		return "", nil
	}
	var said struct{ ID string }
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err == nil {
		err = json.Unmarshal(data, &said)
	}
	if err != nil || said.ID == "" {
		return "", &DockerError{d.socket, fmt.Errorf("reading what it says of %s: %w", name, errors.Join(err, errNoID))}
	}
	return said.ID, nil
}

var errNoID = errors.New("there is no id")

// familiar is the name as docker shows it: docker.io/library/x is x there. Ids stay as they are.
func familiar(name string) string {
	if strings.HasPrefix(name, "sha256:") {
		return name
	}
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return name
	}
	return reference.FamiliarString(named)
}

const (
	hostsAge   = 5 * time.Second // for so long docker, as all programs in Go, holds on to what it has read of /etc/hosts (cacheMaxAge in Go's net/hosts.go)
	hostsRetry = 500 * time.Millisecond
)

// pullNamed is pull from a registry whose name may have been written to /etc/hosts a moment ago.
func (d *docker) pullNamed(ctx context.Context, a DockerAccess, name string) error {
	domain, _, _ := strings.Cut(a.Registry, ":")
	for began := time.Now(); ; {
		fresh := time.Since(began) > hostsAge
		err := d.pull(ctx, a, name)
		if err == nil || fresh || !strings.Contains(err.Error(), "lookup "+domain) {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(hostsRetry):
		}
	}
}

// pull fetches what a name with a digest stands for. The login goes in a header.
func (d *docker) pull(ctx context.Context, a DockerAccess, name string) error {
	header := http.Header{}
	if a.Username != "" {
		login, err := json.Marshal(map[string]string{"username": a.Username, "password": a.Password, "serveraddress": a.Registry})
		if err != nil {
			return fmt.Errorf("pulling: %w", err)
		}
		header.Set("X-Registry-Auth", base64.URLEncoding.EncodeToString(login))
	}
	repository, id, _ := strings.Cut(name, "@")
	query := url.Values{"fromImage": {repository}, "tag": {id}}
	resp, err := d.ask(ctx, http.MethodPost, "/images/create?"+query.Encode(), header)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	// An error comes in the middle of what is told of the pull; the pull is over when the answer is.
	lines := json.NewDecoder(&perLine{r: resp.Body})
	for {
		var said struct{ Error string }
		if err := lines.Decode(&said); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return &DockerError{d.socket, fmt.Errorf("pulling %s: %w", name, err)}
		}
		if said.Error != "" {
			return errors.New("docker: " + said.Error)
		}
	}
}

// perLine refuses lines that do not end.
type perLine struct {
	r io.Reader
	n int // since the last line's end
}

func (p *perLine) Read(buf []byte) (int, error) {
	n, err := p.r.Read(buf)
	if i := bytes.LastIndexByte(buf[:n], '\n'); i >= 0 {
		p.n = n - i - 1
	} else if p.n += n; p.n > maxAnswer {
		return 0, errors.New("its answer has a line without an end")
	}
	return n, err
}

// tag lets a name stand for an image.
func (d *docker) tag(ctx context.Context, id, name string) error {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return fmt.Errorf("naming %s %q: %w", id, name, err)
	}
	tagged, ok := named.(reference.Tagged)
	if !ok {
		return fmt.Errorf("naming %s %q: it has no tag", id, name)
	}
	query := url.Values{"repo": {reference.FamiliarName(named)}, "tag": {tagged.Tag()}}
	resp, err := d.ask(ctx, http.MethodPost, "/images/"+id+"/tag?"+query.Encode(), nil)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// remove takes a name away, and the image with its last one. One that is not there is fine.
func (d *docker) remove(ctx context.Context, name string) error {
	resp, err := d.ask(ctx, http.MethodDelete, "/images/"+familiar(name), nil, http.StatusNotFound)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// leave is remove, but for what containers use: that is kept.
func (d *docker) leave(ctx context.Context, name string) (kept bool, err error) {
	resp, err := d.ask(ctx, http.MethodDelete, "/images/"+familiar(name), nil, http.StatusNotFound, http.StatusConflict)
	if err != nil {
		return false, err
	}
	return resp.StatusCode == http.StatusConflict, resp.Body.Close()
}
