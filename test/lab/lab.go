// SPDX-License-Identifier: Apache-2.0

// Package lab sets up what an end-to-end run of sealer needs on one machine:
// real hosts, a real registry that holds a real Kubernetes under its real
// names, and the binaries of this checkout. It drives the binaries only.
package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sealerio/sealer/test/hosts"
	"github.com/sealerio/sealer/test/testregistry"
)

// KubernetesVersion is what test/components builds, PreviousVersion its release before.
const (
	KubernetesVersion = "v1.36.3"
	PreviousVersion   = "v1.35.4"
)

// Options say what to set up.
type Options struct {
	// Hosts is how many machines to make; 0 makes none.
	Hosts int
	// Name tells labs on one machine apart; see hosts.Options.
	Name string
	// OpenRC makes hosts that boot with OpenRC instead of systemd.
	OpenRC bool
	// IPv6 gives them addresses of both families.
	IPv6 bool
	// Out is told what is being done, and gets what sealer prints on stderr. The default is silence.
	Out io.Writer
}

// Lab is everything that was set up. Close takes it down.
type Lab struct {
	// Dir is a folder for this lab; Close removes it.
	Dir string
	// Source is the checkout.
	Source string
	// Registry is host:port of the registry, on loopback: hosts cannot reach it.
	Registry string
	// Components is the folder with bin, cni, manifests and images.txt.
	Components string
	// Hosts are nil where none were asked for.
	Hosts *hosts.Set

	version  string // of Kubernetes
	out      io.Writer
	registry *testregistry.Registry
	borrowed bool // Dir and the registry are another lab's
}

// Open builds and starts everything. The binaries must be in bin (make build).
func Open(ctx context.Context, o Options) (_ *Lab, err error) {
	if o.Out == nil {
		o.Out = io.Discard
	}
	source, err := sourceFolder()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "sealer-lab-")
	if err != nil {
		return nil, fmt.Errorf("making a folder for the lab: %w", err)
	}
	l := &Lab{Dir: dir, Source: source, version: KubernetesVersion, out: o.Out}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Close(ctx))
		}
	}()
	if _, err := os.Stat(l.Sealer()); err != nil {
		return nil, fmt.Errorf("looking for the built sealer (make build makes it): %w", err)
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return l.openRegistry(gctx) })
	if o.Hosts > 0 {
		g.Go(func() error { return l.openHosts(ctx, o) }) // ctx: the hosts live on after the group
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return l, l.writeConfig()
}

// sourceFolder is the checkout that the working directory is in.
func sourceFolder() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("finding the sources: %w", err)
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "rootfs-templates")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("finding the sources: the working directory is not below them")
		}
	}
}

// openRegistry builds the components and starts a registry that holds their images.
func (l *Lab) openRegistry(ctx context.Context) error {
	l.Say("building Kubernetes %s from its Go modules (minutes the first time)", KubernetesVersion)
	began := time.Now()
	out, err := l.components(ctx, "build")
	if err != nil {
		return err
	}
	l.Components = strings.TrimSpace(string(out))
	l.Say("the components are there after %s", time.Since(began).Round(time.Second))
	reg, err := testregistry.Start(ctx, testregistry.Options{Dir: filepath.Join(l.Dir, "registry")})
	if err != nil {
		return err
	}
	l.registry, l.Registry = reg, reg.Address
	_, err = l.components(ctx, "push", "--dir", l.Components, "--to", "http://"+reg.Address)
	return err
}

// Previous is this lab with the Kubernetes of PreviousVersion, whose images its registry holds from then on, too: BuildBase and
// BuildShop make other images than those of l. It is not to be closed.
func (l *Lab) Previous(ctx context.Context) (*Lab, error) {
	l.Say("building Kubernetes %s from its Go modules (minutes the first time)", PreviousVersion)
	began := time.Now()
	out, err := l.components(ctx, "build", "--release", "previous")
	if err != nil {
		return nil, err
	}
	previous := *l
	previous.version, previous.Components = PreviousVersion, strings.TrimSpace(string(out))
	l.Say("the components are there after %s", time.Since(began).Round(time.Second))
	_, err = l.components(ctx, "push", "--dir", previous.Components, "--to", "http://"+l.Registry)
	return &previous, err
}

// With is this lab with hosts of its own, under a name of their own. Close takes down those hosts alone, and is to be called before that of l.
func (l *Lab) With(ctx context.Context, o Options) (*Lab, error) {
	other := *l
	other.borrowed, other.Hosts = true, nil
	return &other, other.openHosts(ctx, o)
}

func (l *Lab) components(ctx context.Context, args ...string) ([]byte, error) {
	module := filepath.Join(l.Source, "test", "components")
	cmd := exec.CommandContext(ctx, "go", append([]string{"run", "./cmd/components"}, args...)...)
	cmd.Dir = module
	cmd.Stderr = l.out
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("running components %s: %w", args[0], err)
	}
	return out, nil
}

func (l *Lab) openHosts(ctx context.Context, o Options) error {
	l.Say("starting %d hosts without a route out", o.Hosts)
	began := time.Now()
	set, err := hosts.Up(ctx, hosts.Options{Name: o.Name, Count: o.Hosts, DefaultRoute: true, OpenRC: o.OpenRC, IPv6: o.IPv6, OwnEngine: o.OpenRC, Log: slog.New(slog.NewTextHandler(l.out, nil))})
	if err != nil {
		return err
	}
	l.Hosts = set
	l.Say("the hosts are up after %s", time.Since(began).Round(time.Second))
	return nil
}

// Domains are the registries that the lab's registry stands for.
func Domains() []string { return []string{"docker.io", "ghcr.io", "quay.io", "registry.k8s.io"} }

// ConfigFile is a configuration of sealer that asks the lab's registry for all Domains.
func (l *Lab) ConfigFile() string { return filepath.Join(l.Dir, "config.yaml") }

func (l *Lab) writeConfig() error {
	var text strings.Builder
	text.WriteString("registryMirrors:\n")
	for _, domain := range Domains() {
		fmt.Fprintf(&text, "  %s: http://%s/%s\n", domain, l.Registry, domain)
	}
	if err := os.WriteFile(l.ConfigFile(), []byte(text.String()), 0o600); err != nil {
		return fmt.Errorf("writing sealer's configuration: %w", err)
	}
	return nil
}

// Say tells what is being done.
func (l *Lab) Say(format string, args ...any) {
	_, _ = fmt.Fprintf(l.out, "\n==> "+format+"\n", args...)
}

// Sealer is the built program.
func (l *Lab) Sealer() string { return filepath.Join(l.Source, "bin", "sealer") }

// AccessLog is what the registry was asked so far, a line for each request.
func (l *Lab) AccessLog() ([]byte, error) { return os.ReadFile(l.registry.AccessLog) }

// Command is sealer with its state in the folder root of the lab.
func (l *Lab) Command(ctx context.Context, root string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, l.Sealer(), args...)
	cmd.Env = append(os.Environ(), "SEALER_ROOT="+filepath.Join(l.Dir, root), "SEALER_CONFIG="+l.ConfigFile())
	cmd.Dir = l.Dir
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = time.Minute
	return cmd
}

// Run runs sealer and returns what it prints on stdout; stderr goes to Out and,
// its end, into the error.
func (l *Lab) Run(ctx context.Context, root string, args ...string) (string, error) {
	l.Say("sealer %s", strings.Join(args, " "))
	cmd := l.Command(ctx, root, args...)
	var tail bytes.Buffer
	cmd.Stderr = io.MultiWriter(l.out, &tail)
	out, err := cmd.Output()
	if err != nil {
		text := tail.Bytes()
		return string(out), fmt.Errorf("running sealer %s: %w\n%s", args[0], err, text[max(0, len(text)-4096):])
	}
	return strings.TrimSpace(string(out)), nil
}

// Close stops and removes everything that Open made. It works with an ended context, too.
func (l *Lab) Close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Minute)
	defer cancel()
	var errs []error
	if l.Hosts != nil {
		errs = append(errs, l.Hosts.Down(ctx))
	}
	if l.borrowed {
		return errors.Join(errs...)
	}
	if l.registry != nil {
		errs = append(errs, l.registry.Close())
	}
	return errors.Join(append(errs, os.RemoveAll(l.Dir))...)
}
