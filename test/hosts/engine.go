// SPDX-License-Identifier: Apache-2.0

package hosts

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// label marks everything in the engine that belongs to a set; its value is the set's name.
const label = "io.sealer.test.hosts"

const (
	engineStart = 2 * time.Minute
	engineStop  = 30 * time.Second
)

//go:embed recipe/runc.sh
var runcScript string

// MissingError says that the machine lacks a program.
type MissingError struct{ Program string }

func (e *MissingError) Error() string { return "this machine has no " + e.Program }

// Hint tells what the user can do.
func (e *MissingError) Hint() string {
	return "install the Debian packages that test/hosts/apt.txt lists"
}

// engine is a container engine that speaks Docker's protocol: our own, or one that was there before.
type engine struct {
	Own      bool   `json:"own"`
	Client   string `json:"client"`         // path of the docker program
	Endpoint string `json:"endpoint"`       // URL of its socket
	Dir      string `json:"dir,omitempty"`  // own engine: sockets, pid file, state; gone after stop
	Data     string `json:"data,omitempty"` // own engine: images; stays as a cache
}

func ownEngine(name, dir string) engine {
	e := engine{Own: true, Dir: filepath.Join(runDir(name), "engine")}
	if dir != "" {
		e.Data = filepath.Join(dir, "engines", name)
	}
	e.Endpoint = "unix://" + e.socket()
	// The client of the engine's own packages understands it; one that is found on the path may be years apart.
	if e.Client = "/usr/bin/docker"; !executable(e.Client) {
		e.Client, _ = exec.LookPath("docker")
	}
	return e
}

// chooseEngine prefers an engine that already answers. Only a local one will do: the hosts' addresses have to be
// reachable from here.
func chooseEngine(ctx context.Context, o Options) (engine, error) {
	if client, err := exec.LookPath("docker"); err == nil && !o.OwnEngine {
		found := engine{Client: client}
		probe, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		endpoint, err := found.docker(probe, nil, "context", "inspect", "--format", "{{.Endpoints.docker.Host}}")
		found.Endpoint = string(endpoint) // whoever takes the hosts down may have another environment
		if err == nil && strings.HasPrefix(found.Endpoint, "unix://") && found.answers(probe) {
			return found, nil
		}
	}
	own := ownEngine(o.Name, o.Dir)
	if own.Client == "" {
		return engine{}, &MissingError{Program: "docker client"}
	}
	if _, err := lookSystemPath("dockerd"); err != nil {
		return engine{}, &MissingError{Program: "container engine"}
	}
	return own, nil
}

func (e engine) socket() string { return filepath.Join(e.Dir, "docker.sock") }

// docker runs the client and returns what it printed, without the last line break. Its error ends with what the
// client complained of.
func (e engine) docker(ctx context.Context, stdin io.Reader, args ...string) ([]byte, error) {
	var out bytes.Buffer
	err := e.stream(ctx, stdin, &out, io.Discard, args...)
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), err
}

func (e engine) stream(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer, args ...string) error {
	if e.Client == "" {
		return &MissingError{Program: "docker client"}
	}
	var complaint bytes.Buffer
	cmd := exec.CommandContext(ctx, e.Client, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, stdout, io.MultiWriter(stderr, &complaint)
	cmd.WaitDelay = 10 * time.Second
	if e.Endpoint != "" {
		cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "DOCKER_") })
		cmd.Env = append(cmd.Env, "DOCKER_HOST="+e.Endpoint, "DOCKER_CONFIG="+runRoot)
	}
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		if text := strings.TrimSpace(complaint.String()); text != "" {
			return fmt.Errorf("running docker %s: %w: %s", args[0], err, text)
		}
		return fmt.Errorf("running docker %s: %w", args[0], err)
	}
	return nil
}

func (e engine) answers(ctx context.Context) bool {
	if e.Own {
		if _, err := os.Stat(e.socket()); err != nil {
			return false
		}
	}
	kind, err := e.docker(ctx, nil, "version", "--format", "{{.Server.Os}}")
	return err == nil && string(kind) == "linux"
}

// start starts our own engine and waits until it answers. It leaves the machine's packet filter and forwarding alone:
// hosts only need to see one another and this machine, and Docker's rules would outlive it.
func (e engine) start(ctx context.Context, name string) error {
	if !e.Own {
		return nil
	}
	if _, err := e.sweep(ctx, name); err != nil {
		return fmt.Errorf("removing what an earlier engine left: %w", err)
	}
	// An engine that was killed may have left anything in its data; making that again takes seconds.
	inUse := filepath.Join(e.Data, "in-use")
	if _, err := os.Stat(inUse); err == nil {
		if err := os.RemoveAll(e.Data); err != nil {
			return fmt.Errorf("removing the data of an engine that was killed: %w", err)
		}
	}
	for _, dir := range []string{e.Dir, e.Data} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("making the engine's folder: %w", err)
		}
	}
	if err := os.WriteFile(inUse, nil, 0o600); err != nil {
		return fmt.Errorf("marking the engine's data as in use: %w", err)
	}
	args := []string{
		"--data-root", filepath.Join(e.Data, "data"), "--exec-root", filepath.Join(e.Dir, "exec"),
		"--host", e.Endpoint, "--pidfile", filepath.Join(e.Dir, "docker.pid"),
		"--config-file", filepath.Join(e.Dir, "daemon.json"), // the machine's own is not for us
		"--bridge", "none", "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false",
		"--userland-proxy=false",
		"--exec-opt", "native.cgroupdriver=cgroupfs", "--cgroup-parent", "/" + cgroupName(name),
	}
	if err := os.WriteFile(filepath.Join(e.Dir, "daemon.json"), []byte("{}\n"), 0o600); err != nil {
		return fmt.Errorf("configuring the engine: %w", err)
	}
	missing, err := missingCapabilities()
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		runc, err := lookSystemPath("runc")
		if err != nil {
			return &MissingError{Program: "runc"}
		}
		script := strings.NewReplacer("@MISSING@", strings.Join(missing, " "), "@RUNC@", runc).Replace(runcScript)
		wrapper := filepath.Join(e.Dir, "runc")
		if err := os.WriteFile(wrapper, []byte(script), 0o700); err != nil {
			return fmt.Errorf("wrapping runc: %w", err)
		}
		args = append(args, "--add-runtime", "trimmed="+wrapper, "--default-runtime", "trimmed")
	}

	program, err := lookSystemPath("dockerd")
	if err != nil {
		return &MissingError{Program: "container engine"}
	}
	log, err := os.OpenFile(e.logFile(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("opening the engine's log: %w", err)
	}
	defer log.Close()
	// Not bound to ctx: it lives until stop, in a session of its own so that a Ctrl-C for us is none for it.
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), "PATH="+systemPath())
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting the engine: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()

	wait, cancel := context.WithTimeout(ctx, engineStart)
	defer cancel()
	err = poll(wait, 100*time.Millisecond, func(ctx context.Context) error {
		select {
		case err := <-ended:
			return permanent(fmt.Errorf("it ended: %w", errors.Join(err, errors.New(tail(e.logFile(), 1500)))))
		default:
		}
		if !e.answers(ctx) {
			return errors.New("it does not answer")
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("starting the engine: %w", err)
	}
	return nil
}

func (e engine) logFile() string { return filepath.Join(e.Dir, "log") }

// stop ends our own engine with everything that runs in it.
func (e engine) stop(ctx context.Context, name string) error {
	clean := true
	if pid := e.pid(); pid != 0 {
		if err := unix.Kill(pid, unix.SIGTERM); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("stopping the engine: %w", err)
		}
		wait, cancel := context.WithTimeout(ctx, engineStop)
		defer cancel()
		err := poll(wait, 50*time.Millisecond, func(context.Context) error {
			if !ended(pid) {
				return errors.New("it is still there")
			}
			return nil
		})
		clean = err == nil
	}
	left, err := e.sweep(ctx, name)
	if err != nil {
		return fmt.Errorf("removing what the engine left: %w", err)
	}
	if clean && !left && e.Data != "" {
		if err := os.Remove(filepath.Join(e.Data, "in-use")); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("marking the engine's data as clean: %w", err)
		}
	}
	return nil
}

// pid returns the engine's process, or 0 if none runs.
func (e engine) pid() int {
	data, err := os.ReadFile(filepath.Join(e.Dir, "docker.pid"))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || !e.owns(pid) {
		return 0
	}
	return pid
}

// owns tells whether a process is the engine or one of its helpers. Their arguments name the engine's folder; other
// programs that do, such as a pager on its log, are not meant.
func (e engine) owns(pid int) bool {
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
	if err != nil || !bytes.Contains(data, []byte(e.Dir+"/")) {
		return false
	}
	program, _, _ := strings.Cut(string(data), "\x00")
	base := filepath.Base(program)
	return base == "dockerd" || base == "runc" || strings.HasPrefix(base, "containerd")
}

// ended tells whether a process is gone, or only waits for its parent to notice.
func ended(pid int) bool {
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return true
	}
	_, state, _ := strings.Cut(string(data), ") ")
	return strings.HasPrefix(state, "Z") || strings.HasPrefix(state, "X")
}

// sweep removes what an engine that did not end in peace leaves: processes, control groups, mounts. It tells whether
// there were processes or mounts.
func (e engine) sweep(ctx context.Context, name string) (bool, error) {
	var found bool
	wait, cancel := context.WithTimeout(ctx, engineStop)
	defer cancel()
	err := poll(wait, 50*time.Millisecond, func(context.Context) error {
		pids, err := e.processes(name)
		if err != nil {
			return permanent(err)
		}
		for _, pid := range pids {
			found = true
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				return permanent(fmt.Errorf("killing process %d: %w", pid, err))
			}
		}
		if len(pids) > 0 {
			return fmt.Errorf("processes %v do not end", pids)
		}
		return nil
	})
	if err != nil {
		return found, err
	}
	unmounted, err := unmountBelow(e.Dir, e.Data)
	if err != nil {
		return found, err
	}
	return found || unmounted, removeGroups(ctx, name)
}

func (e engine) processes(name string) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("listing processes: %w", err)
	}
	var pids []int
	for _, entry := range entries {
		if pid, err := strconv.Atoi(entry.Name()); err == nil && e.owns(pid) {
			pids = append(pids, pid)
		}
	}
	inGroups, err := groupProcesses(name)
	if err != nil {
		return nil, err
	}
	return append(pids, inGroups...), nil
}

// load makes sure that the engine has the host image, and no older one of this set's.
func (e engine) load(ctx context.Context, image hostImage, log *slog.Logger) error {
	if _, err := e.docker(ctx, nil, "image", "inspect", "--format", "{{.Id}}", image.Tag); err == nil {
		return nil
	}
	log.Info("loading the host image", "tag", image.Tag)
	file, err := os.Open(image.Path)
	if err != nil {
		return fmt.Errorf("loading the host image: %w", err)
	}
	defer file.Close()
	plain, err := zstd.NewReader(file)
	if err != nil {
		return fmt.Errorf("loading the host image: %w", err)
	}
	defer plain.Close()
	if e.Own {
		if _, err := e.docker(ctx, nil, "image", "prune", "--all", "--force"); err != nil {
			return fmt.Errorf("removing older host images: %w", err)
		}
	}
	if _, err := e.docker(ctx, plain, "import", "--change", `CMD ["/sbin/init"]`, "-", image.Tag); err != nil {
		return fmt.Errorf("loading the host image: %w", err)
	}
	return nil
}

// removeLabelled removes the containers, their volumes and the network of a set.
func (e engine) removeLabelled(ctx context.Context, name string) error {
	filter := "label=" + label + "=" + name
	ids, err := e.docker(ctx, nil, "ps", "--all", "--quiet", "--filter", filter)
	if err != nil {
		return fmt.Errorf("listing the containers: %w", err)
	}
	var g errgroup.Group
	g.SetLimit(4)
	for id := range strings.FieldsSeq(string(ids)) {
		g.Go(func() error {
			if _, err := e.docker(ctx, nil, "rm", "--force", "--volumes", id); err != nil {
				return fmt.Errorf("removing container %s: %w", id, err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	ids, err = e.docker(ctx, nil, "network", "ls", "--quiet", "--filter", filter)
	if err != nil {
		return fmt.Errorf("listing the networks: %w", err)
	}
	for id := range strings.FieldsSeq(string(ids)) {
		if _, err := e.docker(ctx, nil, "network", "rm", id); err != nil {
			return fmt.Errorf("removing network %s: %w", id, err)
		}
	}
	return nil
}
