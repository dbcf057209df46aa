package console

import (
	"fmt"
	"slices"
)

// A tap gets what comes from the guest, see Tap.
type tap struct {
	bytes func(p []byte, hidden bool)
	ended func()
}

// Tap passes on every byte from now on, as it came; hidden tells whether it
// came while something was concealed. ended is called once when no more will
// come. Both are called from Run, which they hold up: then the guest stands
// still as soon as it writes. p is not theirs to keep. stop ends it; a call
// under way may still be.
func (c *Console) Tap(bytes func(p []byte, hidden bool), ended func()) (stop func()) {
	t := &tap{bytes, ended}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		go ended()
		return func() {}
	}
	c.taps = append(c.taps, t)
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.taps = slices.DeleteFunc(slices.Clone(c.taps), func(other *tap) bool { return other == t })
	}
}

// Conceal keeps what comes from now on out of the log, the lines and what is
// shown of them, until reveal is called: the echo of what may hold secrets, in
// pieces that nobody could mask. It is searched for findings all the same, and
// Expect sees it. The log says in its place what it was.
func (c *Console) Conceal(what string) (reveal func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.hidden == 0 {
		c.log(fmt.Appendf(nil, "\r\n[hurd-qemu-action: %s, not shown]\r\n", what))
	}
	c.hidden++
	revealed := false
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if !revealed {
			revealed = true
			c.hidden--
		}
	}
}
