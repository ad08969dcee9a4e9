// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"math"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/log"
	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"github.com/sealerio/sealer/build/engine"
	"github.com/sealerio/sealer/internal/progress"
	"github.com/sealerio/sealer/registry"
	"github.com/sealerio/sealer/store"
)

const (
	systemRoot        = "/var/lib/sealer"
	systemConfig      = "/etc/sealer/config.yaml"
	defaultRootText   = systemRoot + " as root, else $XDG_DATA_HOME/sealer"
	defaultConfigText = systemConfig + " as root, else $XDG_CONFIG_HOME/sealer/config.yaml"
)

// app is what all commands share: the global flags and what they open.
type app struct {
	streams Streams

	root, configFile          string
	progressMode              string
	logLevel, logFile         string
	registryMirrors, insecure []string
	jobs                      int
	config                    config
	log                       *slog.Logger
	logSinks                  []slog.Handler
	closers                   []io.Closer
	display                   *progress.Display
}

// config is sealer's configuration file. Flags add to it and win over it.
type config struct {
	// RegistryMirrors maps a domain to the URL that is asked instead, path prefix included.
	RegistryMirrors map[string]string `yaml:"registryMirrors"`
	// InsecureRegistries are hosts that may be spoken to in plain HTTP.
	InsecureRegistries []string `yaml:"insecureRegistries"`
}

// open reads the configuration and opens the log; it runs before every command.
func (a *app) open(cmd *cobra.Command) error {
	if err := a.openLog(cmd); err != nil {
		return err
	}
	slog.SetDefault(a.log) // what libraries print, Helm's among them, is logged
	if a.root == "" {
		a.root = os.Getenv("SEALER_ROOT")
	}
	if a.root == "" {
		dir, err := userDir(systemRoot, "XDG_DATA_HOME", ".local/share", "sealer")
		if err != nil {
			return err
		}
		a.root = dir
	}
	abs, err := filepath.Abs(a.root)
	if err != nil {
		return fmt.Errorf("finding the folder %q: %w", a.root, err)
	}
	a.root = abs
	return a.readConfig()
}

// userDir is system for root, and below the XDG folder for everybody else.
func userDir(system, env, fallback, name string) (string, error) {
	if os.Geteuid() == 0 && !engine.Rootless() {
		return system, nil
	}
	if dir := os.Getenv(env); filepath.IsAbs(dir) {
		return filepath.Join(dir, name), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("finding the home folder: %w", err)
	}
	return filepath.Join(home, fallback, name), nil
}

func (a *app) openLog(cmd *cobra.Command) error {
	var level slog.Level
	if err := level.UnmarshalText([]byte(a.logLevel)); err != nil {
		return usagef(cmd, "--log-level %q is not one of debug, info, warn, error", a.logLevel)
	}
	// containerd's libraries log through a logger of their own, with warnings
	// that nobody can act on.
	if err := log.SetLevel("error"); err != nil {
		return fmt.Errorf("quieting the libraries' log: %w", err)
	}
	a.logSinks = []slog.Handler{slog.NewTextHandler(a.streams.Err, &slog.HandlerOptions{Level: level})}
	if a.logFile != "" {
		return a.addLogFile(a.logFile)
	}
	a.log = slog.New(a.logSinks[0])
	return nil
}

// addLogFile logs everything to path from here on, too.
func (a *app) addLogFile(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("creating the folder of the log: %w", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("opening the log: %w", err)
	}
	a.closers = append(a.closers, f)
	a.logSinks = append(a.logSinks, slog.NewJSONHandler(f, &slog.HandlerOptions{Level: slog.LevelDebug}))
	a.log = slog.New(slog.NewMultiHandler(a.logSinks...))
	return nil
}

func (a *app) readConfig() error {
	path, asked := a.configFile, a.configFile != ""
	if !asked {
		path = os.Getenv("SEALER_CONFIG")
		asked = path != ""
	}
	if !asked {
		dir, err := userDir(filepath.Dir(systemConfig), "XDG_CONFIG_HOME", ".config", "sealer")
		if err != nil {
			return err
		}
		path = filepath.Join(dir, filepath.Base(systemConfig))
	}
	src, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && !asked {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading the configuration: %w", err)
	}
	if err := yaml.UnmarshalWithOptions(src, &a.config, yaml.DisallowUnknownField()); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("reading the configuration %q:\n%s", path, strings.TrimSpace(yaml.FormatError(err, false, true)))
	}
	return nil
}

// openDisplay starts the progress display; close ends it.
func (a *app) openDisplay(cmd *cobra.Command) error {
	d, err := progress.Open(a.streams.Err, progress.Mode(a.progressMode), a.log)
	if err != nil {
		return usagef(cmd, "--progress: %w", err)
	}
	a.display = d
	return nil
}

// close ends the display and the log. Its error is the command's where there is no other.
func (a *app) close(err *error) {
	closing := a.display.Close()
	for _, c := range a.closers {
		closing = errors.Join(closing, c.Close())
	}
	a.closers = nil
	if *err == nil {
		*err = closing
	}
}

// openWork starts the display and opens the local store, for long work on it.
func (a *app) openWork(cmd *cobra.Command) (*store.Store, error) {
	if err := a.openDisplay(cmd); err != nil {
		return nil, err
	}
	return a.openStore()
}

func (a *app) openStore() (*store.Store, error) { return store.Open(filepath.Join(a.root, "store")) }

// addRegistryFlags declares the flags of commands that talk to registries.
func (a *app) addRegistryFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringArrayVar(&a.registryMirrors, "registry-mirror", nil,
		"ask URL instead of the registry DOMAIN; names stay the original ones (DOMAIN=URL, repeatable)")
	f.StringArrayVar(&a.insecure, "insecure-registry", nil,
		"allow plain HTTP for this HOST[:PORT] (repeatable; loopback is always allowed)")
}

// addJobs declares the flag of commands that are about nothing but transfers.
func (a *app) addJobs(cmd *cobra.Command) {
	numberVar(cmd.Flags(), &a.jobs, "jobs", "j", 8, 1, math.MaxInt, "how many blobs are in transfer at once")
}

// registryOptions joins the configuration file and the flags.
func (a *app) registryOptions(cmd *cobra.Command) (registry.Options, error) {
	mirrors := map[string]string{}
	maps.Copy(mirrors, a.config.RegistryMirrors)
	for _, m := range a.registryMirrors {
		domain, url, ok := strings.Cut(m, "=")
		if !ok || domain == "" || url == "" {
			return registry.Options{}, usagef(cmd, "--registry-mirror %q is not DOMAIN=URL", m)
		}
		mirrors[domain] = url
	}
	return registry.Options{
		Jobs:     a.jobs,
		Mirrors:  mirrors,
		Insecure: append(append([]string(nil), a.config.InsecureRegistries...), a.insecure...),
		Logger:   a.log,
	}, nil
}

// openRegistry makes a client whose transfers show below task; nil is silent.
func (a *app) openRegistry(cmd *cobra.Command, task *progress.Task) (*registry.Client, error) {
	o, err := a.registryOptions(cmd)
	if err != nil {
		return nil, err
	}
	if task != nil {
		o.Track = func(name string, total int64) registry.Tracker { return task.Track(name, total) }
	}
	return registry.NewClient(o)
}
