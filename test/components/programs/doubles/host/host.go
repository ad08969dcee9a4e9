// SPDX-License-Identifier: Apache-2.0

// Package host asks the machine for what both programs need: addresses, systemd's socket, ports.
package host

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Address is the address that the default route's link has, or the first global one.
func Address() string {
	if c, err := net.Dial("udp", "192.0.2.1:9"); err == nil { //nolint:noctx // nothing is sent
		defer c.Close()
		if a, ok := c.LocalAddr().(*net.UDPAddr); ok {
			return a.IP.String()
		}
	}
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return "127.0.0.1"
	}
	for _, a := range addresses {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() && n.IP.To4() != nil {
			return n.IP.String()
		}
	}
	return "127.0.0.1"
}

// Name is the host's name as a node's.
func Name() string {
	name, err := os.Hostname()
	if err != nil {
		return "localhost"
	}
	return strings.ToLower(name)
}

// Ready tells systemd that a service of Type=notify is up.
func Ready() {
	socket := os.Getenv("NOTIFY_SOCKET")
	if socket == "" {
		return
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return
	}
	defer c.Close()
	_, _ = c.Write([]byte("READY=1\n"))
}

// Occupy listens where a kubelet and a container runtime do, and answers as little as possible: /healthz on loopback.
func Occupy(ctx context.Context, runtimeSocket string) error {
	places := []struct{ network, address string }{{"tcp", ":10250"}, {"tcp", "127.0.0.1:10248"}}
	if runtimeSocket != "" {
		if err := os.MkdirAll(filepath.Dir(runtimeSocket), 0o700); err != nil {
			return err
		}
		if err := os.Remove(runtimeSocket); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		places = append(places, struct{ network, address string }{"unix", runtimeSocket})
	}
	answer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/healthz" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = io.WriteString(w, "ok")
	})
	for _, l := range places {
		listener, err := (&net.ListenConfig{}).Listen(ctx, l.network, l.address)
		if err != nil {
			return err
		}
		server := &http.Server{Handler: answer, ReadHeaderTimeout: 10 * time.Second}
		go func() { _ = server.Serve(listener) }()
		context.AfterFunc(ctx, func() { _ = server.Close() })
	}
	return nil
}

// Listening tells whether somebody does, at an address of this host.
func Listening(address string) bool {
	c, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return false
	}
	_ = c.Close()
	return true
}
