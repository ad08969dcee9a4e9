// SPDX-License-Identifier: Apache-2.0

// Package testregistry gives tests a registry that is not the product's own: Debian's docker-registry, and a proxy that
// injects faults in front of it, or of any other registry.
package testregistry

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/crypto/bcrypt"
)

const (
	ready = time.Minute
	grace = 5 * time.Second
)

// Options say how a registry runs. The zero value is an open one on a free loopback port.
type Options struct {
	// Address is where it listens. The default is 127.0.0.1:0; port 0 is any free one.
	Address string
	// Dir holds the content; a second registry may be started on it after the first one. The default is a folder that
	// Close removes.
	Dir string
	// User and Password close the registry to others, by basic authentication.
	User, Password string
	// TLS makes it serve HTTPS, with a certificate that Registry.CAFile verifies.
	TLS bool
	// Name is a host name in that certificate, besides its address.
	Name string
}

// Registry is a registry that runs. Close stops it.
type Registry struct {
	// Address is its host and port, as in image references.
	Address string
	// URL is how to reach it.
	URL string
	// Dir holds the content, laid out as distribution does it.
	Dir string
	// AccessLog is a file with a line for each request, as web servers write them.
	AccessLog string
	// CAFile is a certificate in PEM to trust, if it serves HTTPS.
	CAFile string

	work    string // removed by Close
	process *os.Process
	ended   chan struct{}
}

// Start starts docker-registry and waits until it answers. It ends with this process at the latest.
func Start(ctx context.Context, o Options) (*Registry, error) {
	program, err := exec.LookPath("docker-registry")
	if err != nil {
		return nil, fmt.Errorf("starting a registry: %w (install the Debian package docker-registry)", err)
	}
	if o.Address == "" {
		o.Address = "127.0.0.1:0"
	}
	work, err := os.MkdirTemp("", "testregistry-")
	if err != nil {
		return nil, fmt.Errorf("starting a registry: %w", err)
	}
	r := &Registry{Dir: o.Dir, work: work, AccessLog: filepath.Join(work, "access.log"), ended: make(chan struct{})}
	if r.Dir == "" {
		r.Dir = filepath.Join(work, "content")
	}
	if err := r.start(ctx, program, o); err != nil {
		return nil, errors.Join(fmt.Errorf("starting a registry: %w", err), r.Close())
	}
	return r, nil
}

func (r *Registry) start(ctx context.Context, program string, o Options) error {
	address, err := freeAddress(ctx, o.Address)
	if err != nil {
		return err
	}
	r.Address, r.URL = address, "http://"+address
	var auth, secure string
	if o.User != "" {
		hash, err := bcrypt.GenerateFromPassword([]byte(o.Password), bcrypt.MinCost)
		if err != nil {
			return fmt.Errorf("hashing the password: %w", err)
		}
		file := filepath.Join(r.work, "htpasswd")
		if err := os.WriteFile(file, []byte(o.User+":"+string(hash)+"\n"), 0o600); err != nil {
			return err
		}
		auth = fmt.Sprintf("auth: {htpasswd: {realm: test, path: %s}}\n", strconv.Quote(file))
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	if o.TLS {
		certificate, key, err := SelfSigned(address, o.Name)
		if err != nil {
			return err
		}
		r.CAFile = filepath.Join(r.work, "ca.crt")
		keyFile := filepath.Join(r.work, "key")
		if err := errors.Join(os.WriteFile(r.CAFile, certificate, 0o644), os.WriteFile(keyFile, key, 0o600)); err != nil {
			return err
		}
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(certificate)
		client.Transport = &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: pool}}
		secure = fmt.Sprintf("  tls: {certificate: %s, key: %s}\n", strconv.Quote(r.CAFile), strconv.Quote(keyFile))
		r.URL = "https://" + address
	}
	// Relative upload addresses keep a client behind a proxy; the secret keeps uploads valid over a restart.
	config := "version: 0.1\nlog: {level: warn}\n" + auth +
		fmt.Sprintf("storage:\n  filesystem: {rootdirectory: %s}\n  delete: {enabled: true}\n", strconv.Quote(r.Dir)) +
		fmt.Sprintf("http:\n  addr: %s\n  relativeurls: true\n  secret: test\n", strconv.Quote(address)) + secure
	configFile := filepath.Join(r.work, "config.yml")
	if err := os.WriteFile(configFile, []byte(config), 0o600); err != nil {
		return err
	}
	if err := os.MkdirAll(r.Dir, 0o755); err != nil {
		return err
	}
	if err := r.run(exec.Command(program, "serve", configFile)); err != nil {
		return err
	}
	wait, cancel := context.WithTimeout(ctx, ready)
	defer cancel()
	return r.wait(wait, client)
}

// run starts the program from a thread that lives as long as it does: the kernel ends the program with that thread,
// and so with this process, even if it is killed.
func (r *Registry) run(cmd *exec.Cmd) error {
	access, err := os.Create(r.AccessLog)
	if err != nil {
		return err
	}
	defer access.Close()
	messages, err := os.Create(r.messages())
	if err != nil {
		return err
	}
	defer messages.Close()
	cmd.Stdout, cmd.Stderr = access, messages
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "OTEL_TRACES_EXPORTER=none"} // REGISTRY_… would change the configuration
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended, the messages tell
		}
		close(r.ended)
	}()
	if err := <-started; err != nil {
		return err
	}
	r.process = cmd.Process
	return nil
}

func (r *Registry) messages() string { return filepath.Join(r.work, "messages") }

func (r *Registry) wait(ctx context.Context, client *http.Client) error {
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := answers(ctx, client, r.URL+"/v2/")
		if err == nil {
			return nil
		}
		select {
		case <-r.ended:
			said, _ := os.ReadFile(r.messages()) // nothing more to say without them
			return fmt.Errorf("it ended: %s", strings.TrimSpace(string(said)))
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		case <-ticker.C:
		}
	}
}

func answers(ctx context.Context, client *http.Client, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, response.Body) // only the status matters
	if response.StatusCode != http.StatusOK && response.StatusCode != http.StatusUnauthorized {
		return fmt.Errorf("it answers %s", response.Status)
	}
	return nil
}

// Close stops the registry and removes its logs, and its content if that was in no folder of the caller's.
func (r *Registry) Close() error {
	if r.process != nil {
		if err := r.process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("stopping the registry: %w", err)
		}
		limit := time.NewTimer(grace)
		defer limit.Stop()
		select {
		case <-r.ended:
		case <-limit.C:
			if err := r.process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
				return fmt.Errorf("stopping the registry: %w", err)
			}
			<-r.ended
		}
	}
	if err := os.RemoveAll(r.work); err != nil {
		return fmt.Errorf("removing what the registry left: %w", err)
	}
	return nil
}

func freeAddress(ctx context.Context, address string) (string, error) {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return "", err
	}
	address = listener.Addr().String()
	return address, listener.Close()
}

// SelfSigned makes a certificate for an address, and a name where one is given, that is its own authority, and its key, both in PEM.
func SelfSigned(address, name string) (certificate, key []byte, err error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, nil, err
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("making a key: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "test registry"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:    []string{"localhost"},
	}
	if ip := net.ParseIP(host); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = append(template.DNSNames, host)
	}
	if name != "" {
		template.DNSNames = append(template.DNSNames, name)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		return nil, nil, fmt.Errorf("making a certificate: %w", err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, fmt.Errorf("making a key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), nil
}
