// SPDX-License-Identifier: Apache-2.0

package swarm

import "slices"

// Next are the transfers that may begin now; without operator, those between hosts alone. Each of them ends with Done, Failed, or Leave of the
// host that was to get it.
func (s *Swarm) Next(operator bool) []Assignment {
	var list []Assignment
	n := len(s.hosts)
	s.turn++
	asking := make([]*host, 0, n)
	for i := range n {
		asking = append(asking, s.hosts[(i+s.turn)%n]) // another one first each time
	}
	for len(asking) > 0 {
		got := asking[:0] // one that gets nothing now is not asked again
		for _, h := range asking {
			if a, ok := s.fromPeers(h); ok {
				list, got = append(list, a), append(got, h)
			}
		}
		asking = got
	}
	for more := operator; more; {
		more = false
		for _, h := range s.hosts { // always the first one first: it is to get everything that nobody has
			if a, ok := s.fromOperator(h, len(s.flights) == 0); ok {
				list, more = append(list, a), true
			}
		}
	}
	return list
}

// next is the part that a host needs next of a blob, unless so many are on their way already.
func (s *Swarm) next(h *host, b, ahead int) (Part, bool) {
	if !h.needs[b] || h.broken[b] || h.pending[b] >= ahead || h.have[b] == s.sizes[b] {
		return Part{}, false
	}
	at := h.at[b]
	if at >= s.sizes[b] && (at > 0 || h.pending[b] > 0) {
		return Part{}, false
	}
	return Part{Blob: b, Offset: at, Length: min(start(at)+PartSize, s.sizes[b]) - at}, true
}

// fromPeers finds a host the rarest part that it needs and may have now, and someone who gives it.
func (s *Swarm) fromPeers(h *host) (Assignment, bool) {
	if h.left == 0 || h.down >= maxDownloads {
		return Assignment{}, false
	}
	best, ok := s.rarest(h)
	if !ok {
		return Assignment{}, false
	}
	from := s.source(h, best)
	if from == nil {
		return Assignment{}, false
	}
	a := Assignment{To: h.id, From: from.id, Parts: []Part{best}}
	if best.Length <= smallPart && best.End() == s.sizes[best.Blob] && best.Offset == 0 {
		a.Parts = s.batch(h, a.Parts, func(p Part) bool {
			there := s.holders[p.Blob][0]
			return there > 0 && s.flying[p.Blob][0] < copies(there) && from.have[p.Blob] == s.sizes[p.Blob]
		})
	}
	return s.begin(h, from, a), true
}

// rarest is the part that a host needs and that the fewest have; it may be given once more, and a source is free.
func (s *Swarm) rarest(h *host) (best Part, found bool) {
	least, n := 0, len(s.sizes)
	for i := range n {
		b := (i + int(h.id)*7) % n // another order on every host
		if s.holders[b][0] == 0 {
			continue // nobody has its first part, let alone another
		}
		p, ok := s.next(h, b, maxAhead)
		if !ok {
			continue
		}
		at := index(p)
		there := s.holders[b][at]
		if there == 0 || s.flying[b][at] >= copies(there) || found && there >= least {
			continue
		}
		if s.source(h, p) != nil {
			best, least, found = p, there, true
		}
	}
	return best, found
}

// batch adds other small blobs to an assignment of one.
func (s *Swarm) batch(h *host, parts []Part, may func(Part) bool) []Part {
	total := parts[0].Length
	n := len(s.sizes)
	for i := range n {
		b := (parts[0].Blob + 1 + i) % n
		if len(parts) >= maxBatch || total >= maxBatchSize {
			break
		}
		p, ok := s.next(h, b, 1)
		if !ok || b == parts[0].Blob || p.Offset != 0 || p.Length > smallPart || p.End() != s.sizes[b] || !may(p) {
			continue
		}
		parts = append(parts, p)
		total += p.Length
	}
	return parts
}

// source is the host that may give the part and has the least to do; of several, the one that has given the least.
func (s *Swarm) source(h *host, p Part) *host {
	var best *host
	for _, o := range s.hosts {
		if o == h || !o.serves || o.up >= maxUploads || o.have[p.Blob] < p.End() || h.shuns(o) {
			continue
		}
		if best == nil || o.up < best.up || o.up == best.up && o.served < best.served {
			best = o
		}
	}
	return best
}

// fromOperator is for what nobody has or is about to get: it goes to the first host that needs it, and to those that reach
// nobody who has it.
func (s *Swarm) fromOperator(h *host, stuck bool) (Assignment, bool) {
	if h.left == 0 || h.sent >= maxSends {
		return Assignment{}, false
	}
	may := func(p Part) bool { return stuck || !s.expected(h, p) }
	for b := range s.sizes {
		p, ok := s.next(h, b, maxSends)
		if !ok || !may(p) {
			continue
		}
		a := Assignment{To: h.id, From: Operator, Parts: []Part{p}}
		if p.Length <= smallPart && p.End() == s.sizes[b] && p.Offset == 0 {
			a.Parts = s.batch(h, a.Parts, may)
		}
		return s.begin(h, nil, a), true
	}
	return Assignment{}, false
}

// expected tells whether a host may hope for a part from another: one that it reaches has it, is getting it, or comes
// before this one among those that need it.
func (s *Swarm) expected(h *host, p Part) bool {
	before := true
	for _, o := range s.hosts {
		if o == h {
			before = false
			continue
		}
		if !o.serves || h.shuns(o) {
			continue
		}
		if o.have[p.Blob] >= p.End() || o.at[p.Blob] > p.Offset && o.pending[p.Blob] > 0 || before && o.needs[p.Blob] {
			return true
		}
	}
	return false
}

func (s *Swarm) begin(h, from *host, a Assignment) Assignment {
	s.lastID++
	a.ID = s.lastID
	s.flights[a.ID] = &Assignment{ID: a.ID, To: a.To, From: a.From, Parts: slices.Clone(a.Parts)}
	h.down++
	if from == nil {
		h.sent++
	} else {
		from.up++
	}
	for _, p := range a.Parts {
		s.flying[p.Blob][index(p)]++
		h.pending[p.Blob]++
		h.at[p.Blob] = p.End()
		if from != nil {
			from.served += p.Length
		}
	}
	return a
}

// copies is how many of a part may be on their way where so many have it. One of them need not give it: the
// first one, which everything begins with, has to give every part once, or its link would carry more than the others'.
func copies(holders int) int { return max(1, holders/4) }
