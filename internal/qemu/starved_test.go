package qemu

import (
	"testing"
	"time"
)

func TestWaitedFor(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"4711 63104 12\n": 63104, "0 0 0": 0, "1 5000000000 2": 5 * time.Second,
		"": 0, "1": 0, "1 -5 2": 0, "1 x 2": 0, "1 99999999999999999999 2": 0,
	} {
		if got := waitedFor(text); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}

// TestStarved: a machine that has ended has waited for nothing.
func TestStarved(t *testing.T) {
	m := startFake(t, fakeOptions{})
	if got := m.Starved(); got < 0 || got > time.Minute {
		t.Errorf("%v", got)
	}
	if err := m.Stop(deadline(t, 20*time.Second)); err != nil {
		t.Fatal(err)
	}
	if got := m.Starved(); got != 0 {
		t.Errorf("after the end: %v", got)
	}
}
