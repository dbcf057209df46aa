package qmp

import (
	"slices"
	"sync"
)

// eventQueue is how many events a subscriber may lag behind.
const eventQueue = 256

// Subscription is a bounded queue of events. When it is full the oldest event
// is dropped and counted: the newest tells most of a machine's state, and the
// connection never waits.
type Subscription struct {
	conn  *Conn
	names []string

	mu      sync.Mutex
	queue   chan Event
	dropped uint64
	ended   bool
}

// Subscribe asks for the events of the given names, or for all when none are
// given, from now on. Close ends it, and so does the connection's end.
func (c *Conn) Subscribe(names ...string) *Subscription {
	s := &Subscription{conn: c, names: slices.Clone(names), queue: make(chan Event, eventQueue)}
	c.mu.Lock()
	ended := c.subs == nil
	if !ended {
		c.subs[s] = struct{}{}
	}
	c.mu.Unlock()
	if ended {
		s.end()
	}
	return s
}

// Events is closed when the subscription or the connection has ended; what
// was queued before can still be read.
func (s *Subscription) Events() <-chan Event { return s.queue }

// Dropped counts the events that were lost because they were not read in time.
func (s *Subscription) Dropped() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dropped
}

// Close ends the subscription; it may be called more than once.
func (s *Subscription) Close() {
	s.conn.mu.Lock()
	delete(s.conn.subs, s)
	s.conn.mu.Unlock()
	s.end()
}

func (s *Subscription) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ended {
		s.ended = true
		close(s.queue)
	}
}

// publish hands an event to every subscriber that wants it.
func (c *Conn) publish(e Event) {
	c.mu.Lock()
	subs := make([]*Subscription, 0, len(c.subs))
	for s := range c.subs {
		subs = append(subs, s)
	}
	c.mu.Unlock()
	for _, s := range subs {
		s.put(e)
	}
}

func (s *Subscription) put(e Event) {
	if len(s.names) > 0 && !slices.Contains(s.names, e.Name) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return
	}
	for {
		select {
		case s.queue <- e:
			return
		default:
		}
		// The reader may empty the queue in between; then there is nothing to drop.
		select {
		case <-s.queue:
			s.dropped++
		default:
		}
	}
}
