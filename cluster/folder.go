// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bufio"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gofrs/flock"

	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/internal/atomicfile"
	"github.com/sealerio/sealer/runtime"
)

// ClusterfilePath is where what is known of a cluster is kept: a Clusterfile without secrets.
func ClusterfilePath(stateDir, name string) string {
	return filepath.Join(stateDir, name, "Clusterfile")
}

// folder is what this machine keeps of one cluster: Clusterfile, id, journal. It is locked while it is open.
type folder struct {
	dir     string
	lock    *flock.Flock
	self    Holder
	journal *journal
	gone    bool
	held    map[string]bool // addresses of the hosts that are held now
}

// Holder is who works on a cluster.
type Holder struct {
	PID     int       `json:"pid"`
	Machine string    `json:"machine"`
	User    string    `json:"user"`
	Command string    `json:"command"`
	Since   time.Time `json:"since"`
}

func (h Holder) String() string {
	return fmt.Sprintf("%s on %s (process %d, %s), since %s", h.User, h.Machine, h.PID, h.Command, h.Since.Local().Format(time.DateTime))
}

// readHolder reads who signed; a signature that is only being written is someone's.
func readHolder(data []byte) Holder {
	var h Holder
	if json.Unmarshal(data, &h) != nil {
		return Holder{User: "someone", Machine: "a machine", Command: "unknown"}
	}
	return h
}

// BusyError is a cluster that someone else is working on.
type BusyError struct {
	Cluster string
	Holder  Holder
}

func (e *BusyError) Error() string {
	return fmt.Sprintf("the cluster %q is being worked on by %s", e.Cluster, e.Holder)
}

// Hint is to wait.
func (e *BusyError) Hint() string { return "wait until it is done, then run the same command again" }

func openFolder(stateDir, name string) (_ *folder, err error) {
	f := &folder{dir: filepath.Join(stateDir, name), held: map[string]bool{}}
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		return nil, fmt.Errorf("keeping the cluster's state: %w", err)
	}
	f.lock = flock.New(filepath.Join(f.dir, "lock"))
	locked, err := f.lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("locking the cluster %q: %w", name, err)
	}
	if !locked {
		return nil, &BusyError{Cluster: name, Holder: f.holder()}
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.lock.Unlock())
		}
	}()
	if err := f.sign(); err != nil {
		return nil, err
	}
	f.journal, err = openJournal(filepath.Join(f.dir, journalName))
	return f, err
}

func (f *folder) sign() error {
	f.self = Holder{PID: os.Getpid(), User: "?", Machine: "?", Command: strings.Join(commandWords(os.Args), " "), Since: time.Now().UTC()}
	if u, err := user.Current(); err == nil {
		f.self.User = u.Username
	}
	if name, err := os.Hostname(); err == nil {
		f.self.Machine = name
	}
	data, err := json.Marshal(f.self)
	if err != nil {
		return fmt.Errorf("signing the lock: %w", err)
	}
	return atomicfile.Write(filepath.Join(f.dir, "holder.json"), data, 0o600)
}

// commandWords are the program's name and its verb: more could hold a password.
func commandWords(args []string) []string {
	words := []string{filepath.Base(args[0])}
	if len(args) > 1 && !strings.HasPrefix(args[1], "-") {
		words = append(words, args[1])
	}
	return words
}

func (f *folder) holder() Holder {
	data, err := os.ReadFile(filepath.Join(f.dir, "holder.json"))
	if err != nil {
		data = nil // signed a moment later
	}
	return readHolder(data)
}

// operatorFile stands beside the clusters' folders, and outlives them.
const operatorFile = ".operator"

// operator is what tells us from other operators on the hosts. It is the same for every run with this folder, also when the cluster was
// forgotten meanwhile: the lock lets only one at a time use it, and the next one after a run that was killed need not wait.
func (f *folder) operator() (string, error) {
	path := filepath.Join(filepath.Dir(f.dir), operatorFile)
	seed, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("reading the operator's id: %w", err)
	}
	if len(seed) == 0 {
		seed = []byte(rand.Text())
		if err := atomicfile.Write(path, seed, 0o600); err != nil {
			return "", err
		}
	}
	sum := sha256.Sum256(append(seed, "\n"+filepath.Base(f.dir)...))
	return hex.EncodeToString(sum[:16]), nil
}

// clusterID tells clusters of the same name apart. It is made once, and kept by save; where this
// machine has lost it, the hosts have it.
func (f *folder) clusterID(name string, hosts []*runtime.Host) (string, error) {
	if id, err := readID(f.dir); err != nil || id != "" {
		return id, err
	}
	raw := make([]byte, 16)
	if _, err := rand.Read(raw); err != nil {
		return "", fmt.Errorf("making an id for the cluster: %w", err)
	}
	for _, h := range hosts {
		if s := h.Facts.State; s != nil && s.Cluster == name && s.ClusterID != "" {
			return s.ClusterID, nil
		}
	}
	return hex.EncodeToString(raw), nil
}

// known is the inventory of a cluster that was made before; nil where there is none.
func (f *folder) known() (*clusterfile.File, error) {
	path := filepath.Join(f.dir, "Clusterfile")
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading what is known of the cluster: %w", err)
	}
	return clusterfile.Parse(path, data)
}

// grown is a Clusterfile with the hosts that the cluster has and it does not name: nothing is taken out of
// a cluster by leaving it out. The order is that of the cluster, new hosts after it.
func (f *folder) grown(file *clusterfile.File) (*clusterfile.File, error) {
	known, err := f.known()
	if err != nil || known == nil || len(known.Hosts) == 0 || len(file.Hosts) == 0 {
		return file, err
	}
	at := func(list []clusterfile.Host, address string) int {
		return slices.IndexFunc(list, func(h clusterfile.Host) bool { return h.Address == address })
	}
	grown := *file
	grown.Hosts = nil
	for _, h := range known.Hosts {
		if i := at(file.Hosts, h.Address); i >= 0 {
			h = file.Hosts[i]
		}
		grown.Hosts = append(grown.Hosts, h)
	}
	for _, h := range file.Hosts {
		if at(known.Hosts, h.Address) < 0 {
			grown.Hosts = append(grown.Hosts, h)
		}
	}
	return &grown, nil
}

// save keeps which hosts the cluster has, before the first of them is touched.
func (f *folder) save(c *clusterfile.File, id string) error {
	data, err := c.Inventory()
	if err != nil {
		return err
	}
	if err := atomicfile.Write(filepath.Join(f.dir, "id"), []byte(id+"\n"), 0o600); err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(f.dir, "Clusterfile"), data, 0o600)
}

// remove forgets the cluster.
func (f *folder) remove() error {
	f.gone = true
	// First what makes it known: of a removal that is cut nothing is left that could be taken for a cluster, without who works on it.
	if err := os.Remove(filepath.Join(f.dir, "Clusterfile")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forgetting the cluster: %w", err)
	}
	if err := os.RemoveAll(f.dir); err != nil {
		return fmt.Errorf("forgetting the cluster: %w", err)
	}
	return nil
}

// close unlocks the folder. Where no cluster came of it, it leaves none behind.
func (f *folder) close() error {
	errs := []error{f.journal.close()}
	if _, err := os.Stat(filepath.Join(f.dir, "Clusterfile")); errors.Is(err, fs.ErrNotExist) && !f.gone {
		errs = append(errs, f.remove())
	}
	if !f.gone {
		if err := os.Remove(filepath.Join(f.dir, "holder.json")); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, f.lock.Unlock())...)
}

// Event is a line of the journal: a step on a host.
type Event struct {
	Time    time.Time `json:"time"`
	Host    string    `json:"host"`
	Step    string    `json:"step"`
	Event   string    `json:"event"` // started, done, failed
	Seconds float64   `json:"seconds,omitempty"`
	Error   string    `json:"error,omitempty"`
}

// ReadJournal reads what was done to the hosts of a cluster, in order. A last line that was cut is left out.
func ReadJournal(stateDir, name string) (_ []Event, err error) {
	f, err := os.Open(filepath.Join(filepath.Dir(ClusterfilePath(stateDir, name)), journalName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading the journal: this machine knows no cluster %q", name)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the journal: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	var events []Event
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		var e Event
		if json.Unmarshal(lines.Bytes(), &e) == nil {
			events = append(events, e)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("reading the journal: %w", err)
	}
	return events, nil
}

const journalName = "journal.jsonl"

// journal is what was done to hosts, in order; it is only added to.
type journal struct {
	mu   sync.Mutex
	file *os.File
	err  error // the first failure: close reports it
}

func openJournal(path string) (*journal, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the journal: %w", err)
	}
	return &journal{file: f}, nil
}

func (j *journal) write(e Event) {
	e.Time = time.Now().UTC()
	line, err := json.Marshal(e)
	j.mu.Lock()
	defer j.mu.Unlock()
	if err == nil {
		_, err = j.file.Write(append(line, '\n')) // one write: lines of two hosts never mix
	}
	if j.err == nil {
		j.err = err
	}
}

func (j *journal) close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := errors.Join(j.err, j.file.Sync(), j.file.Close()); err != nil {
		return fmt.Errorf("writing the journal: %w", err)
	}
	return nil
}
