// SPDX-License-Identifier: Apache-2.0

package hosts

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"github.com/gofrs/flock"
	"golang.org/x/crypto/ssh"
	"golang.org/x/sync/errgroup"
)

// DefaultName is the name of a set for which Options give none.
const DefaultName = "sealer"

// runRoot is one place for the whole machine, because names of sets, bridges and kernel settings are the machine's too.
const runRoot = "/run/sealer-hosts"

const (
	maxCount     = 100
	firstAddress = 11 // the last part of the first host's address; those below are the machine's and for tests to use
	cleanUp      = 3 * time.Minute
	bootTime     = 3 * time.Minute
)

var validName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,28}[a-z0-9])?$`)

// Options say which hosts to make. The zero value makes one host.
type Options struct {
	// Name tells sets apart that live on one machine at the same time: lower-case letters, digits and dashes, at most
	// 30 of them. The default is DefaultName.
	Name string
	// Count is how many hosts to make. The default is 1, the most is 100.
	Count int
	// Dir holds what is worth keeping between runs: the host image and the engine's copy of it, some 250 MB a set. The
	// default is sealer-test/hosts in the user's cache folder.
	Dir string
	// DefaultRoute gives the hosts a default route through an address that nobody has, as machines behind a closed
	// firewall have one. Without it there is none, as on machines that hang on a switch of their own: then routes to
	// addresses that only exist as NAT rules, such as a Kubernetes service network, have to be added by whoever needs them.
	DefaultRoute bool
	// IPv6 gives the hosts a network of IPv6 beside the other, without a default route. Without it IPv6 is off on them.
	IPv6 bool
	// OpenRC makes hosts that boot with OpenRC, and have no systemd at all.
	OpenRC bool
	// OwnEngine starts an engine even where one already answers.
	OwnEngine bool
	// Detached leaves the hosts running when the process ends, for Open to find. Without it the next Up takes hosts
	// whose process is gone for leftovers.
	Detached bool
	// Timeout limits how long Up waits for all hosts to have booted, once their containers run. The default is 3 minutes.
	Timeout time.Duration
	// Log is told what is being done. The default is silence.
	Log *slog.Logger
}

func (o Options) withDefaults() (Options, error) {
	if o.Name == "" {
		o.Name = DefaultName
	}
	if o.Count == 0 {
		o.Count = 1
	}
	if o.Timeout == 0 {
		o.Timeout = bootTime
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return o, fmt.Errorf("choosing a folder for the host image: %w", err)
		}
		o.Dir = filepath.Join(cache, "sealer-test", "hosts")
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return o, fmt.Errorf("choosing a folder for the host image: %w", err)
	}
	o.Dir = dir

	var errs []error
	if !validName.MatchString(o.Name) {
		errs = append(errs, fmt.Errorf("name: %q is not made of lower-case letters, digits and dashes", o.Name))
	}
	if o.Count < 1 || o.Count > maxCount {
		errs = append(errs, fmt.Errorf("count: %d is not between 1 and %d", o.Count, maxCount))
	}
	return o, errors.Join(errs...)
}

// Set is a number of hosts that see one another.
type Set struct {
	Name string `json:"name"`
	// Hosts are in the order of their addresses.
	Hosts []Host `json:"hosts"`
	// Subnet is the hosts' network; Gateway is this machine's address in it, where a test may listen for them.
	Subnet  netip.Prefix `json:"subnet"`
	Gateway netip.Addr   `json:"gateway"`
	// Subnet6 is their network of IPv6, where they have one; the machine has its first address.
	Subnet6 netip.Prefix `json:"subnet6"`
	// KeyFile is the private key that lets root and SudoUser in on every host; its public half lies beside it as .pub.
	KeyFile string `json:"keyFile"`
	// KnownHosts is a known_hosts file with the Ed25519 key of every host, by address. The hosts also have an ECDSA key,
	// which it leaves out: a client that does not ask for the type it knows is found out.
	KnownHosts string `json:"knownHosts"`
	// Password lets root and SudoUser in too.
	Password string `json:"password"`
	// SudoUser may become root without a password.
	SudoUser string `json:"sudoUser"`

	Detached bool      `json:"detached"`
	Started  time.Time `json:"started"`
	Engine   engine    `json:"engine"`

	log  *slog.Logger
	lock *flock.Flock
}

// Host is one machine of a set. A reboot from inside is one; a power-off from inside is a reboot too, so use Stop.
type Host struct {
	// Name is the host name, such as h1.
	Name string `json:"name"`
	// Address is the same after a restart.
	Address netip.Addr `json:"address"`
	// Address6 is that of IPv6; the zero value where there is none.
	Address6 netip.Addr `json:"address6"`
	// HostKey is the Ed25519 key that sshd shows.
	HostKey ssh.PublicKey `json:"-"`

	Container string `json:"container"`
	KeyLine   string `json:"hostKey"` // HostKey as in authorized_keys

	set *Set
}

func (h Host) String() string { return h.Name + " (" + h.Address.String() + ")" }

// BusyError says that another process, or an earlier detached Up, has the set.
type BusyError struct {
	Name  string
	Owner string // what has it
}

func (e *BusyError) Error() string {
	return fmt.Sprintf("test hosts %q are in use by %s", e.Name, e.Owner)
}

// Hint tells what the user can do.
func (e *BusyError) Hint() string {
	return "wait for it, take the hosts down (hosts down --name " + e.Name + "), or choose another name"
}

// runDir is where a set keeps what must not outlive it. It is short, because socket paths may not be long.
func runDir(name string) string { return filepath.Join(runRoot, name) }

// Up makes the hosts and returns when all of them have booted and let in a user with the set's key. It builds the host
// image and starts a container engine where these are not there already. On an error nothing is left behind. The
// caller has to call Down.
func Up(ctx context.Context, o Options) (*Set, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("making test hosts: %w", err)
	}
	if os.Geteuid() != 0 {
		return nil, errors.New("making test hosts: only root can")
	}
	lock, err := lockSet(o.Name)
	if err != nil {
		return nil, fmt.Errorf("making test hosts: %w", err)
	}
	s := &Set{Name: o.Name, SudoUser: "sealer", Detached: o.Detached, Started: time.Now(), log: o.Log, lock: lock}
	if err := removeLeftovers(ctx, o); err != nil {
		return nil, errors.Join(fmt.Errorf("making test hosts: %w", err), lock.Close())
	}
	if err := s.make(ctx, o); err != nil {
		tidy, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUp)
		defer cancel()
		return nil, errors.Join(fmt.Errorf("making test hosts: %w", err), s.remove(tidy), lock.Close())
	}
	if s.Detached {
		if err := lock.Close(); err != nil {
			return nil, fmt.Errorf("making test hosts: %w", err)
		}
	}
	return s, nil
}

func removeLeftovers(ctx context.Context, o Options) error {
	old, err := load(o.Name, o.Log)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil: // written by a process that was killed meanwhile, or by another version of this package
		o.Log.Warn("ignoring what an earlier run wrote", "error", err)
		old = &Set{Name: o.Name, Engine: ownEngine(o.Name, o.Dir), log: o.Log}
	case old.Detached && old.running(ctx):
		return &BusyError{Name: o.Name, Owner: "whoever left them up at " + old.Started.Format(time.DateTime)}
	}
	o.Log.Info("removing what an earlier run left")
	if err := old.remove(ctx); err != nil {
		return fmt.Errorf("removing what an earlier run left: %w", err)
	}
	return nil
}

func (s *Set) make(ctx context.Context, o Options) error {
	image, err := buildImage(ctx, o.Dir, o.OpenRC, o.Log)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(runDir(s.Name), 0o700); err != nil {
		return fmt.Errorf("making the folder of the set: %w", err)
	}
	if s.Engine, err = chooseEngine(ctx, o); err != nil {
		return err
	}
	// From here on the machine changes: first the record of what to undo, then the change.
	if err := s.save(); err != nil {
		return err
	}
	if err := saveSettings(ctx); err != nil {
		return err
	}
	o.Log.Info("starting the container engine", "own", s.Engine.Own)
	if err := s.Engine.start(ctx, s.Name); err != nil {
		return err
	}
	if err := s.Engine.removeLabelled(ctx, s.Name); err != nil {
		return fmt.Errorf("removing what an earlier run left: %w", err)
	}
	if err := s.Engine.load(ctx, image, o.Log); err != nil {
		return err
	}
	if err := s.makeNetwork(ctx, o.IPv6); err != nil {
		return err
	}
	authorized, err := s.makeKeys()
	if err != nil {
		return err
	}
	for i := range o.Count {
		h := Host{Name: "h" + strconv.Itoa(i+1), Address: nth(s.Subnet, firstAddress+i), set: s}
		if o.IPv6 {
			h.Address6 = nth6(s.Subnet6, firstAddress+i)
		}
		h.Container = s.Name + "-" + h.Name
		s.Hosts = append(s.Hosts, h)
	}
	begin := time.Now()
	g, all := errgroup.WithContext(ctx)
	g.SetLimit(4)
	for i := range s.Hosts {
		g.Go(func() error {
			if err := s.makeHost(all, &s.Hosts[i], image.Tag, authorized, o.DefaultRoute); err != nil {
				return fmt.Errorf("making host %s: %w", s.Hosts[i], err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if err := s.writeKnownHosts(); err != nil {
		return err
	}
	if err := s.save(); err != nil {
		return err
	}
	o.Log.Info("waiting for the hosts to boot", "count", len(s.Hosts))
	wait, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	if err := s.wait(wait); err != nil {
		return err
	}
	o.Log.Info("all hosts are up", "took", time.Since(begin).Round(100*time.Millisecond))
	return nil
}

func (s *Set) makeHost(ctx context.Context, h *Host, image string, authorized string, route bool) error {
	own, err := makeHostKeys()
	if err != nil {
		return err
	}
	h.HostKey = own.public
	h.KeyLine = authorizedLine(own.public)
	uuid := newUUID()
	args := []string{"create",
		"--name", h.Container, "--hostname", h.Name, "--label", label + "=" + s.Name,
		// Only a privileged container can be a host for containers; its own cgroup namespace keeps the kubelets of two
		// hosts out of one another's groups.
		"--privileged", "--cgroupns", "private",
		"--network", networkName(s.Name), "--ip", h.Address.String(),
		"--stop-signal", "SIGRTMIN+3", "--restart", "unless-stopped",
		// Without a container_uuid systemd takes the machine's product_uuid for the machine ID of every host.
		"--env", "container=docker", "--env", "container_uuid=" + uuid,
		"--tmpfs", "/run",
		// overlayfs does not stack on the container's own overlayfs, so images need a plain file system below them.
		"--volume", "/var", "--volume", "/tmp",
	}
	if h.Address6.IsValid() {
		args = append(args, "--ip6", h.Address6.String())
	}
	out, err := s.Engine.docker(ctx, nil, append(args, image)...)
	if err != nil {
		return fmt.Errorf("creating the container: %w", err)
	}
	s.log.Debug("created a container", "host", h.Name, "id", string(out))

	env := "HOST_UUID=" + uuid + "\n"
	if route {
		env += "NEXT_HOP=" + nth(s.Subnet, -2).String() + "\n"
	}
	if h.Address6.IsValid() {
		env += "IPV6=true\n"
	}
	files := map[string]string{
		"env":      env,
		"hostname": h.Name + "\n",
		"hosts": "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n" +
			h.Address.String() + "\t" + h.Name + "\n",
		// Nothing listens there, and mostly the kernel says so at once. A loopback address would make a cluster's DNS
		// server ask itself.
		"resolv.conf":          "nameserver " + s.Gateway.String() + "\noptions timeout:1 attempts:1\n",
		"authorized_keys":      authorized,
		"passwords":            "root:" + s.Password + "\n" + s.SudoUser + ":" + s.Password + "\n",
		"ssh_host_ed25519_key": own.ed25519, "ssh_host_ed25519_key.pub": h.KeyLine,
		"ssh_host_ecdsa_key": own.ecdsa, "ssh_host_ecdsa_key.pub": own.ecdsaPublic,
	}
	archive, err := tarOf("etc/testhost", files)
	if err != nil {
		return fmt.Errorf("packing the host's files: %w", err)
	}
	if _, err := s.Engine.docker(ctx, archive, "cp", "-", h.Container+":/"); err != nil {
		return fmt.Errorf("copying the host's files: %w", err)
	}
	if _, err := s.Engine.docker(ctx, nil, "start", h.Container); err != nil {
		return fmt.Errorf("starting the container: %w", err)
	}
	return nil
}

// Open finds hosts that an Up with Detached made. It does not take the set: others may open it too.
func Open(ctx context.Context, name string) (*Set, error) {
	if name == "" {
		name = DefaultName
	}
	s, err := load(name, slog.New(slog.DiscardHandler))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("opening test hosts %q: there are none", name)
	}
	if err != nil {
		return nil, fmt.Errorf("opening test hosts %q: %w", name, err)
	}
	if !s.running(ctx) {
		return nil, fmt.Errorf("opening test hosts %q: their engine does not answer", name)
	}
	return s, nil
}

// Clean removes what is left of a set: one that was left up on purpose, or whose process was killed. It is no error
// if there is nothing. A set that a living process uses is a BusyError.
func Clean(ctx context.Context, name string) error {
	if name == "" {
		name = DefaultName
	}
	if _, err := os.Stat(runDir(name)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	s, err := load(name, slog.New(slog.DiscardHandler))
	if err != nil {
		s = &Set{Name: name, Engine: ownEngine(name, ""), log: slog.New(slog.DiscardHandler)}
	}
	return s.Down(ctx)
}

// Names lists the sets of which there is anything on this machine.
func Names() ([]string, error) {
	files, err := filepath.Glob(filepath.Join(runRoot, "*", recordFile))
	if err != nil {
		return nil, fmt.Errorf("listing test hosts: %w", err)
	}
	names := make([]string, 0, len(files))
	for _, file := range files {
		names = append(names, filepath.Base(filepath.Dir(file)))
	}
	return names, nil
}

// Down removes the hosts with all that is on them, their network, and the engine if Up started it, and sets back the
// kernel settings that hosts change for the whole machine. It goes on after an error and returns all of them.
func (s *Set) Down(ctx context.Context) error {
	if s.lock == nil || !s.lock.Locked() {
		lock, err := lockSet(s.Name)
		if err != nil {
			return fmt.Errorf("removing test hosts: %w", err)
		}
		s.lock = lock
	}
	if err := errors.Join(s.remove(ctx), s.lock.Close()); err != nil {
		return fmt.Errorf("removing test hosts: %w", err)
	}
	return nil
}

func (s *Set) remove(ctx context.Context) error {
	var errs []error
	if s.Engine.answers(ctx) {
		errs = append(errs, s.Engine.removeLabelled(ctx, s.Name))
	}
	if s.Engine.Own {
		errs = append(errs, s.Engine.stop(ctx, s.Name))
		errs = append(errs, removeLink(ctx, bridgeName(s.Name)))
	}
	if err := errors.Join(errs...); err != nil {
		return err // the record stays, so that the next Up tries again
	}
	if err := os.RemoveAll(runDir(s.Name)); err != nil {
		return fmt.Errorf("removing the folder of the set: %w", err)
	}
	return restoreSettings(ctx)
}

func (s *Set) running(ctx context.Context) bool {
	return len(s.Hosts) > 0 && s.Engine.answers(ctx)
}

const recordFile = "set.json"

func (s *Set) save() error {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("recording the set: %w", err)
	}
	if err := writeFile(filepath.Join(runDir(s.Name), recordFile), data, 0o600); err != nil {
		return fmt.Errorf("recording the set: %w", err)
	}
	return nil
}

func load(name string, log *slog.Logger) (*Set, error) {
	if !validName.MatchString(name) {
		return nil, fmt.Errorf("name: %q is not made of lower-case letters, digits and dashes", name)
	}
	data, err := os.ReadFile(filepath.Join(runDir(name), recordFile))
	if err != nil {
		return nil, fmt.Errorf("reading the record of the set: %w", err)
	}
	s := &Set{log: log}
	if err := json.Unmarshal(data, s); err != nil {
		return nil, fmt.Errorf("reading the record of the set: %w", err)
	}
	for i := range s.Hosts {
		h := &s.Hosts[i]
		h.set = s
		if h.HostKey, _, _, _, err = ssh.ParseAuthorizedKey([]byte(h.KeyLine)); err != nil {
			return nil, fmt.Errorf("reading the host key of %s: %w", h.Name, err)
		}
	}
	return s, nil
}

// lockSet takes the set for this process. The kernel gives it back when the process ends, however it ends.
func lockSet(name string) (*flock.Flock, error) {
	if err := os.MkdirAll(runRoot, 0o755); err != nil {
		return nil, fmt.Errorf("locking test hosts %q: %w", name, err)
	}
	path := filepath.Join(runRoot, name+".lock")
	lock := flock.New(path)
	ok, err := lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("locking test hosts %q: %w", name, err)
	}
	if !ok {
		owner, err := os.ReadFile(path)
		if err != nil || len(owner) == 0 {
			owner = []byte("another process")
		}
		return nil, &BusyError{Name: name, Owner: string(owner)}
	}
	who := fmt.Sprintf("process %d (%s) since %s", os.Getpid(), filepath.Base(os.Args[0]), time.Now().Format(time.DateTime))
	if err := os.WriteFile(path, []byte(who), 0o644); err != nil {
		return nil, errors.Join(fmt.Errorf("locking test hosts %q: %w", name, err), lock.Close())
	}
	return lock, nil
}

// newUUID returns a random UUID of version 4.
func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:16])
}
