package lifecycle

import (
	"io"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/org/hurd-qemu-action/internal/actions"
	"github.com/org/hurd-qemu-action/internal/config"
	"github.com/org/hurd-qemu-action/internal/units"
)

func TestRoom(t *testing.T) {
	host := fstest.MapFS{"proc/meminfo": {Data: []byte("MemTotal: 8388608 kB\nMemAvailable: 5242880 kB\n")}}
	for _, tc := range []struct {
		memory    units.Bytes
		most, now int
	}{{2 * units.GiB, 4, 2}, {units.GiB, 8, 5}, {6 * units.GiB, 1, 1}, {16 * units.GiB, 1, 1}} {
		room, err := roomFor(host, config.Config{Memory: tc.memory})
		if err != nil || room.Most() != tc.most || room.Now() != tc.now {
			t.Errorf("%s: %d, now %d, %v; want %d, %d", tc.memory, room.Most(), room.Now(), err, tc.most, tc.now)
		}
	}
	for _, tc := range []struct {
		root   fstest.MapFS
		memory units.Bytes
		want   string
	}{{fstest.MapFS{}, units.GiB, "reading the host's memory"}, {host, 0, "the guest has no memory"}} {
		if _, err := roomFor(tc.root, config.Config{Memory: tc.memory}); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("err = %v, want %q", err, tc.want)
		}
	}
}

// TestSettled holds that others are told once, and not at all by a run that has
// found out nothing.
func TestSettled(t *testing.T) {
	n := 0
	req := Request{Settled: func() { n++ }, Log: actions.New(actions.Options{Stdout: io.Discard, Stderr: io.Discard})}
	r := makeRun(req)
	r.settled()
	r.settled()
	if n != 1 {
		t.Errorf("told %d times", n)
	}
	req.Inputs.Memory = "lots"
	if result := Run(t.Context(), req); result.Kind != InputInvalid || n != 1 {
		t.Errorf("%s; told %d times", result.Kind, n)
	}
	req.Settled = nil
	makeRun(req).settled() // nobody waits
}

func TestRestoreLimit(t *testing.T) {
	for beside, want := range map[bool]time.Duration{false: restoreTime, true: busyRestoreTime} {
		if got := makeRun(Request{Beside: beside, Log: actions.New(actions.Options{})}).restoreLimit(); got != want {
			t.Errorf("beside others: %t: %v, want %v", beside, got, want)
		}
	}
}
