package console

import (
	"os"
	"regexp"
	"slices"
	"testing"
	"time"
)

// TestWatch holds that each pattern is matched once, by whole lines and by the
// one in progress, in order.
func TestWatch(t *testing.T) {
	now := time.Unix(1000, 0)
	c := New(nil, Options{Now: func() time.Time { return now }})
	c.take([]byte("login: before\n"))
	patterns := []*regexp.Regexp{regexp.MustCompile("login: $"), nil, regexp.MustCompile("GRUB"), regexp.MustCompile("GRUB|never"), regexp.MustCompile("^end$")}
	w := c.Watch(patterns)
	other := c.Watch(patterns[:1])
	var got []Match
	take := func(text string) {
		c.take([]byte(text))
		select {
		case <-w.Signal():
			got = append(got, w.Take()...)
		default:
		}
	}
	take("log")
	take("in: now")
	take("\nGNU GRUB\r\n") // two patterns at once
	take("GRUB again\nlogin: ")
	take("x\rlogin: \n") // and never again
	take("end")
	if len(got) != 4 {
		t.Fatalf("%d matches: %+v", len(got), got)
	}
	for i, want := range []Match{
		{2, Line{Time: now, Text: "GNU GRUB"}}, {3, Line{Time: now, Text: "GNU GRUB"}},
		{0, Line{Time: now, Text: "login: ", Partial: true}}, {4, Line{Time: now, Text: "end", Partial: true}},
	} {
		if got[i] != want {
			t.Errorf("match %d: %+v, want %+v", i, got[i], want)
		}
	}
	if m := other.Take(); len(m) != 1 || m[0].Line.Text != "login: " {
		t.Errorf("another watch: %+v", m)
	}
	if patterns[0] == nil {
		t.Error("the caller's patterns were changed")
	}
}

// TestWatchBootMenu shows that what the menu of a real GRUB before a GNU Mach
// says are lines, although it is drawn with cursor movements.
func TestWatchBootMenu(t *testing.T) {
	text, err := os.ReadFile("../../testdata/serial/machprobe.log")
	if err != nil {
		t.Fatal(err)
	}
	wanted := []string{"GNU GRUB +version", "Press enter to boot the selected OS", "GNU Mach 1"}
	for _, chunk := range []int{1, 7, len(text)} {
		c := New(nil, Options{})
		var patterns []*regexp.Regexp
		for _, text := range wanted {
			patterns = append(patterns, regexp.MustCompile(text))
		}
		w := c.Watch(patterns)
		for part := range slices.Chunk(text, chunk) {
			c.take(part)
		}
		m := w.Take()
		if len(m) != 3 || m[0].Index != 0 || m[1].Index != 1 || m[2].Index != 2 {
			t.Errorf("in pieces of %d: %+v", chunk, m)
		}
	}
}
