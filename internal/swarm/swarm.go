// SPDX-License-Identifier: Apache-2.0

// Package swarm decides who gets which part of which blob from whom, while
// content spreads from one place to many hosts. It does no input or output and
// knows no time: what happens is told to it, and it says what may begin. So
// the same decisions drive real hosts and a simulation of a thousand.
//
// Blobs come in parts, and every host takes the parts of a blob in order: what
// it has of a blob is one number, and the running digest tells at every part
// whether its bytes are right. A host gives on what it has from the first part
// on. Of every part as many copies are on their way as there are hosts that have it, so
// that their number doubles; a source is one of those with the least to do.
package swarm

// PartSize is the size in bytes of all parts of a blob but the last.
const PartSize = 4 << 20

// Limits of what is on its way at once.
const (
	maxDownloads = 6        // assignments of one host
	maxUploads   = 6        // assignments from one host
	maxAhead     = 2        // assignments for one blob of one host
	maxSends     = 6        // assignments from the operator to one host
	smallPart    = 1 << 20  // bytes: up to that, parts of several blobs make one assignment
	maxBatch     = 64       // of them
	maxBatchSize = PartSize // bytes
	maxStrikes   = 3        // connections that broke, until a source is asked no more
)

// HostID names a host; those given by the caller are greater than Operator.
type HostID int

// Operator is where everything is, and whence as little as possible should come.
const Operator HostID = 0

// Part is a range of a blob, in bytes.
type Part struct {
	Blob           int
	Offset, Length int64
}

// End is the first byte after the part.
func (p Part) End() int64 { return p.Offset + p.Length }

// Assignment is a transfer that may begin.
type Assignment struct {
	ID       int
	To, From HostID
	Parts    []Part
}

// Nothing of a blob is there. An empty blob that is there has a size of 0.
const Nothing = int64(-1)

// Reason is why a transfer failed.
type Reason string

// Reasons for failures.
const (
	Unreachable Reason = "unreachable" // no connection to the source
	Cut         Reason = "cut"         // the connection broke
	Slow        Reason = "slow"        // nothing came for too long
	Wrong       Reason = "wrong"       // the bytes are not what they should be
	Absent      Reason = "absent"      // the source does not have it any more
	Leftover    Reason = "leftover"    // what was there before the part is not what it should be, and is gone: nothing is said of the source
	Dropped     Reason = "dropped"     // it came after one for the same blob that failed, and was not begun
)

// Joining is a host that takes part.
type Joining struct {
	// Have is, by blob, how many bytes the host is known to have right; all of them where it is the blob's size, Nothing where the blob is
	// not there.
	Have []int64
	// Begun is, by blob, how many bytes are there that nobody has checked yet; fewer than all. Default: none.
	Begun []int64
	// Needs are the blobs that it is to get.
	Needs []bool
	// Serves: others may ask it.
	Serves bool
}

type host struct {
	id       HostID
	serves   bool
	needs    []bool
	have     []int64         // right, and given on
	at       []int64         // where the next assignment begins
	pending  []int           // assignments on their way, by blob
	broken   []bool          // one of them failed: none is added until all have ended
	left     int             // blobs needed and not whole
	down, up int             // assignments
	sent     int             // assignments from the operator to it
	served   int64           // bytes given to others, for balance
	gave     bool            // somebody got something from it
	strikes  map[HostID]int  // what it has against sources
	refused  map[HostID]bool // those that could not reach it
}

// Swarm is the state of a spreading. It is not safe for concurrent use.
type Swarm struct {
	sizes   []int64
	hosts   []*host // in the order of joining
	byID    map[HostID]*host
	holders [][]int // by blob and part: hosts that serve it
	flying  [][]int // by blob and part: copies on their way
	flights map[int]*Assignment
	lastID  int
	turn    int
}

// New is the spreading of blobs of these sizes in bytes.
func New(sizes []int64) *Swarm {
	s := &Swarm{sizes: sizes, byID: map[HostID]*host{}, flights: map[int]*Assignment{}}
	for _, size := range sizes {
		parts := max(1, (size+PartSize-1)/PartSize)
		s.holders = append(s.holders, make([]int, parts))
		s.flying = append(s.flying, make([]int, parts))
	}
	return s
}

// Join adds a host. One that joined before takes the place of what it was.
func (s *Swarm) Join(id HostID, j Joining) {
	s.Leave(id)
	n := len(s.sizes)
	h := &host{
		id: id, serves: j.Serves, needs: j.Needs, have: make([]int64, n), at: make([]int64, n), pending: make([]int, n), broken: make([]bool, n),
		strikes: map[HostID]int{}, refused: map[HostID]bool{},
	}
	s.hosts = append(s.hosts, h)
	s.byID[id] = h
	for b := range s.sizes {
		if h.needs[b] {
			h.left++
		}
		h.have[b] = Nothing
		if j.Have[b] < s.sizes[b] {
			h.at[b] = max(0, j.Have[b], begun(j, b))
		}
		s.set(h, b, j.Have[b])
	}
}

func begun(j Joining, b int) int64 {
	if b < len(j.Begun) {
		return j.Begun[b]
	}
	return 0
}

// Needs says that a host is to get more blobs than it was to get when it joined.
func (s *Swarm) Needs(id HostID, needs []bool) {
	h := s.byID[id]
	if h == nil {
		return
	}
	h.needs, h.left = needs, 0
	for b, need := range needs {
		if need && h.have[b] < s.sizes[b] {
			h.left++
		}
	}
}

// Leave takes a host out. What it was to give has to be reported as failed by those that were to get it.
func (s *Swarm) Leave(id HostID) {
	h := s.byID[id]
	if h == nil {
		return
	}
	s.hide(h)
	delete(s.byID, id)
	for i, o := range s.hosts {
		if o == h {
			s.hosts = append(s.hosts[:i:i], s.hosts[i+1:]...)
			break
		}
	}
	for fid, f := range s.flights {
		if f.To == id {
			s.end(fid)
		}
	}
	for _, o := range s.hosts { // what comes back under this name is another
		delete(o.strikes, id)
		delete(o.refused, id)
	}
}

// hide takes away what a host gives to others.
func (s *Swarm) hide(h *host) {
	if !h.serves {
		return
	}
	for b := range s.sizes {
		s.count(h, b, h.have[b], -1)
	}
	h.serves = false
}

// Drop takes from a host what it gives to others; it goes on to get.
func (s *Swarm) Drop(id HostID) {
	if h := s.byID[id]; h != nil {
		s.hide(h)
	}
}

// count adds n to the holders of the parts that offset covers.
func (s *Swarm) count(h *host, b int, offset int64, n int) {
	if !h.serves || offset == Nothing {
		return
	}
	parts := int(offset / PartSize)
	if offset == s.sizes[b] {
		parts = len(s.holders[b])
	}
	for i := range parts {
		s.holders[b][i] += n
	}
}

// set notes what a host has of a blob.
func (s *Swarm) set(h *host, b int, offset int64) {
	whole := h.have[b] == s.sizes[b]
	s.count(h, b, h.have[b], -1)
	h.have[b] = offset
	s.count(h, b, offset, 1)
	switch {
	case offset == s.sizes[b] && !whole && h.needs[b]:
		h.left--
	case offset < s.sizes[b] && whole && h.needs[b]:
		h.left++
	}
	if offset == s.sizes[b] || h.at[b] < offset {
		h.at[b] = offset
	}
}

// Have says what a host has of a blob, in bytes; its size where it is whole and kept.
func (s *Swarm) Have(id HostID, blob int, offset int64) {
	if h := s.byID[id]; h != nil {
		s.set(h, blob, offset)
	}
}

// Left is how many blobs a host still needs.
func (s *Swarm) Left(id HostID) int {
	if h := s.byID[id]; h != nil {
		return h.left
	}
	return 0
}

// Done says that an assignment has ended well.
func (s *Swarm) Done(id int) {
	f := s.flights[id]
	if f == nil {
		return
	}
	if from := s.byID[f.From]; from != nil {
		from.gave = true
		if to := s.byID[f.To]; to != nil {
			delete(to.strikes, f.From) // only what comes in a row counts
		}
	}
	s.end(id)
}

// Failure is an assignment that ended otherwise.
type Failure struct {
	ID     int
	Reason Reason
	// At is, by blob of the assignment, from which byte on the host goes on.
	At map[int]int64
}

// Failed notes a failure. It returns the source where that is not asked by anybody any more; else Operator.
func (s *Swarm) Failed(fail Failure) HostID {
	f := s.flights[fail.ID]
	if f == nil {
		return Operator
	}
	to, from := s.byID[f.To], s.byID[f.From]
	for _, p := range f.Parts {
		to.broken[p.Blob] = true
		at, told := fail.At[p.Blob]
		if told && at < to.have[p.Blob] {
			s.set(to, p.Blob, Nothing)
		}
		if told {
			to.at[p.Blob] = at
		} else {
			to.at[p.Blob] = max(0, to.have[p.Blob])
		}
	}
	s.end(fail.ID)
	if from == nil {
		return Operator
	}
	switch fail.Reason {
	case Dropped, Leftover:
		return Operator
	case Absent:
		to.strikes[from.id] = maxStrikes
		return Operator
	case Wrong:
		s.hide(from)
		return from.id
	case Cut:
		to.strikes[from.id]++
	default:
		to.strikes[from.id] = maxStrikes
	}
	if to.strikes[from.id] < maxStrikes {
		return Operator
	}
	from.refused[to.id] = true
	if from.serves && len(from.refused) > 1 && (!from.gave || 2*len(from.refused) > len(s.hosts)) {
		s.hide(from)
		return from.id
	}
	return Operator
}

// shuns tells whether a host asks a source no more.
func (h *host) shuns(o *host) bool { return h.strikes[o.id] >= maxStrikes }

// end takes an assignment off the books.
func (s *Swarm) end(id int) {
	f := s.flights[id]
	delete(s.flights, id)
	for _, p := range f.Parts {
		s.flying[p.Blob][index(p)]--
		if to := s.byID[f.To]; to != nil {
			to.pending[p.Blob]--
			if to.pending[p.Blob] == 0 {
				to.broken[p.Blob] = false
			}
		}
	}
	if to := s.byID[f.To]; to != nil {
		to.down--
		if f.From == Operator {
			to.sent--
		}
	}
	if from := s.byID[f.From]; from != nil {
		from.up--
	}
}

// index is the number of a part within its blob.
func index(p Part) int { return int(p.Offset / PartSize) }

// start is where the part begins that a byte lies in.
func start(offset int64) int64 { return offset - offset%PartSize }

// Alone tells whether a host shuns all others that serve, so that only the operator is left to it.
func (s *Swarm) Alone(id HostID) bool {
	h := s.byID[id]
	if h == nil {
		return false
	}
	for _, o := range s.hosts {
		if o != h && o.serves && !h.shuns(o) {
			return false
		}
	}
	return true
}
