// SPDX-License-Identifier: Apache-2.0

package build

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"

	"github.com/moby/buildkit/client/connhelper/dockercontainer"
	"github.com/moby/buildkit/client/connhelper/kubepod"
)

// BuilderAddressError says that --builder cannot be the address of a BuildKit daemon.
type BuilderAddressError struct {
	Address string
	Err     error
}

func (e *BuilderAddressError) Error() string { return fmt.Sprintf("builder %q: %v", e.Address, e.Err) }
func (e *BuilderAddressError) Unwrap() error { return e.Err }

// Hint shows the forms.
func (*BuilderAddressError) Hint() string {
	return "unix:///run/buildkit/buildkitd.sock, tcp://HOST:PORT, docker-container://NAME and kube-pod://POD?namespace=NAME&container=NAME are known"
}

// CheckBuilder reports what is wrong with the address of a BuildKit daemon, and with the folder of certificates (ca.pem,
// and cert.pem with key.pem where the daemon asks for one) that goes with tcp://. Nothing is connected.
func CheckBuilder(address, certs string) error {
	if address == "" {
		if certs != "" {
			return errors.New("certificates are for a builder at tcp://HOST:PORT, and none is named")
		}
		return nil
	}
	if err := checkAddress(address); err != nil {
		return &BuilderAddressError{Address: address, Err: err}
	}
	if certs == "" {
		return nil
	}
	if u, err := url.Parse(address); err != nil || u.Scheme != "tcp" {
		return &BuilderAddressError{Address: address, Err: errors.New("certificates are for tcp:// only")}
	}
	return checkCertificates(certs)
}

func checkAddress(address string) error {
	u, err := url.Parse(address)
	if err != nil {
		return errors.Unwrap(err) // url.Error would repeat the address
	}
	switch u.Scheme {
	case "unix":
		if !filepath.IsAbs(u.Path) || u.Host != "" {
			return errors.New("a socket is named with three slashes: unix:///path")
		}
	case "tcp":
		if _, port, err := net.SplitHostPort(u.Host); err != nil || port == "" {
			return errors.New("the port is missing: tcp://HOST:PORT")
		}
	case "docker-container":
		_, err = dockercontainer.SpecFromURL(u)
	case "kube-pod":
		_, err = kubepod.SpecFromURL(u)
	case "":
		return errors.New("the scheme is missing")
	default:
		return fmt.Errorf("unknown scheme %q", u.Scheme)
	}
	return err
}

func checkCertificates(dir string) error {
	var errs []error
	has := func(name string) bool {
		_, err := os.Stat(filepath.Join(dir, name))
		return err == nil
	}
	if !has("ca.pem") {
		errs = append(errs, fmt.Errorf("certificates of the builder: %q has no ca.pem", dir))
	}
	if has("cert.pem") != has("key.pem") {
		errs = append(errs, fmt.Errorf("certificates of the builder: %q has one of cert.pem and key.pem, both are needed", dir))
	}
	return errors.Join(errs...)
}
