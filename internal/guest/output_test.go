package guest

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A slowWriter blocks for some time in each of its first writes.
type slowWriter struct {
	blocks []time.Duration
	bytes  int
	sum    uint32
}

func (w *slowWriter) Write(p []byte) (int, error) {
	if len(w.blocks) > 0 {
		time.Sleep(w.blocks[0])
		w.blocks = w.blocks[1:]
	}
	w.bytes += len(p)
	w.sum = crc32.Update(w.sum, crc32.IEEETable, p)
	return len(p), nil
}

func lines(n int) []byte {
	var b strings.Builder
	for i := range n {
		_, _ = fmt.Fprintln(&b, "line", i)
	}
	return []byte(b.String())
}

// TestRunSlowWriter has writers that block for longer than the bounds of the
// time after the command's end: every byte must come all the same.
func TestRunSlowWriter(t *testing.T) {
	for _, tc := range []struct {
		name     string
		lines    int // less than the window for 100000, several windows for 600000
		both     bool
		early    bool // the status comes before the output
		out, err []time.Duration
		takes    time.Duration
	}{
		{name: "first write", lines: 100000, out: []time.Duration{25 * time.Second}, takes: 25 * time.Second},
		{name: "longer than drainMost", lines: 100000, out: []time.Duration{2 * drainMost}, takes: 2 * drainMost},
		{name: "several", lines: 100000, out: []time.Duration{40 * time.Second, 3 * time.Second, 40 * time.Second}, takes: 83 * time.Second},
		{name: "several windows", lines: 600000, early: true, out: []time.Duration{40 * time.Second, 0, 0, 40 * time.Second}, takes: 80 * time.Second},
		{
			name: "both streams", lines: 50000, both: true, takes: 80 * time.Second,
			out: []time.Duration{40 * time.Second}, err: []time.Duration{40 * time.Second},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			connected(t, time.Hour, func(t *testing.T, f *forward, c *Client) {
				want := lines(tc.lines)
				f.server.command = func(_ string, ch sshChannel) (uint32, bool) {
					if tc.early {
						f.server.report(ch, 0)
					}
					_, _ = ch.Write(want)
					if tc.both {
						_, _ = ch.Stderr().Write(want)
					}
					return 0, true
				}
				stdout, stderr := &slowWriter{blocks: tc.out}, &slowWriter{blocks: tc.err}
				begin := time.Now()
				status, err := c.Run(t.Context(), Command{Line: "make", Stdout: stdout, Stderr: stderr})
				if took := time.Since(begin); err != nil || status != (ExitStatus{}) || took != tc.takes {
					t.Errorf("%+v, %v, after %s; want %s", status, err, took, tc.takes)
				}
				check := func(stream string, w *slowWriter) {
					if w.bytes != len(want) || w.sum != crc32.ChecksumIEEE(want) {
						t.Errorf("%s: %d bytes came, want the %d that were written", stream, w.bytes, len(want))
					}
				}
				check("stdout", stdout)
				if tc.both {
					check("stderr", stderr)
				}
			})
		})
	}
}

// TestRunSlowWriterDetached has a slow writer and a process that holds the
// output open: silent, or writing for ever.
func TestRunSlowWriterDetached(t *testing.T) {
	second := make([]time.Duration, 10000)
	for i := range second {
		second[i] = time.Second
	}
	for _, tc := range []struct {
		name  string
		every time.Duration // between the process's writes; 0 means none
		size  int           // of each
		slow  []time.Duration
		takes time.Duration
		bytes int // at least
	}{
		{"silent", 0, 0, []time.Duration{time.Minute}, time.Minute + drainQuiet, 5},
		{"a sign of life now and then", 1500 * time.Millisecond, 1, []time.Duration{time.Minute}, time.Minute + drainMost, 20},
		// The writer is what takes the time: 32 KiB each second until drainData is over.
		{"a flood", time.Nanosecond, 1 << 20, second, (drainData>>15 + 2) * time.Second, drainData},
	} {
		t.Run(tc.name, func(t *testing.T) {
			connected(t, time.Hour, func(t *testing.T, f *forward, c *Client) {
				held := make(chan struct{})
				f.server.command = func(_ string, ch sshChannel) (uint32, bool) {
					_, _ = ch.Write([]byte("done\n"))
					f.server.report(ch, 3)
					for tc.every > 0 {
						time.Sleep(tc.every)
						if _, err := ch.Write(make([]byte, tc.size)); err != nil {
							return 0, true
						}
					}
					<-held
					return 0, true
				}
				w := &slowWriter{blocks: tc.slow}
				begin := time.Now()
				status, err := c.Run(t.Context(), Command{Line: "daemon", Stdout: w})
				took := time.Since(begin).Round(time.Second)
				if err != nil || status != (ExitStatus{Code: 3, Detached: true}) || took > tc.takes+time.Second || took < tc.takes-time.Second {
					t.Errorf("%+v, %v, after %s; want %s", status, err, took, tc.takes)
				}
				if w.bytes < tc.bytes {
					t.Errorf("%d bytes came, want %d at least", w.bytes, tc.bytes)
				}
				close(held)
				f.stop()
			})
		})
	}
}

// TestRunBlockedContext ends the context while a writer is blocked for good,
// before the command's end and after it.
func TestRunBlockedContext(t *testing.T) {
	for _, ended := range []bool{false, true} {
		t.Run(fmt.Sprintf("ended %v", ended), func(t *testing.T) {
			connected(t, time.Hour, func(t *testing.T, f *forward, c *Client) {
				unblock := make(chan struct{})
				f.server.command = func(_ string, ch sshChannel) (uint32, bool) {
					_, _ = ch.Write(lines(100000))
					if !ended {
						<-unblock
					}
					return 3, true
				}
				cause := errors.New("timeout-minutes is over")
				ctx, cancel := context.WithTimeoutCause(t.Context(), 100*time.Second, cause)
				defer cancel()
				var writes atomic.Int32
				begin := time.Now()
				status, err := c.Run(ctx, Command{Line: "make", Stdout: writerFunc(func(p []byte) (int, error) {
					writes.Add(1)
					<-unblock
					return len(p), nil
				})})
				if took := time.Since(begin); took != 100*time.Second+closeMost {
					t.Errorf("took %s", took)
				}
				if ended && (err != nil || status != (ExitStatus{Code: 3, Detached: true})) || !ended && !errors.Is(err, cause) {
					t.Errorf("%+v, %v", status, err)
				}
				close(unblock)
				synctest.Wait()
				if n := writes.Load(); n != 1 {
					t.Errorf("%d writes, want none after the one that was blocked", n)
				}
			})
		})
	}
}
