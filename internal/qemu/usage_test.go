package qemu

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/org/hurd-qemu-action/internal/units"
)

func TestCPUTime(t *testing.T) {
	const after = " S 1 2 3 0 -1 4194560 9 0 0 0 1234 56 7 8 20 0 4 0 84692 3133440 361"
	for _, tc := range []struct {
		name, stat string
		want       time.Duration
		err        string
	}{
		{"as it comes", "4242 (qemu-system-x86)" + after, 12900 * time.Millisecond, ""},
		{"a name with everything", "4242 (a) R 9 (b c)" + after, 12900 * time.Millisecond, ""},
		{"a new process", "1 (x) R 0 0 0 0 0 0 0 0 0 0 0 0", 0, ""},
		{"empty", "", 0, "no name in parentheses"},
		{"cut off", "4242 (qemu) S 1 2", 0, "3 fields after the name"},
		{"no number", "1 (x) R 0 0 0 0 0 0 0 0 0 0 x 0", 0, `"x" is no number`},
		{"negative", "1 (x) R 0 0 0 0 0 0 0 0 0 0 0 -1", 0, `"-1" is no number`},
	} {
		got, err := cpuTime(tc.stat)
		if got != tc.want || !hasText(err, tc.err) {
			t.Errorf("%s: %v, %v; want %v, %q", tc.name, got, err, tc.want, tc.err)
		}
	}
}

func TestResidentMemory(t *testing.T) {
	for _, tc := range []struct {
		name, status string
		now, peak    units.Bytes
		err          string
	}{
		{"as it comes", "Name:\tqemu\nVmPeak:\t 9 kB\nVmHWM:\t  204800 kB\nVmRSS:\t  102400 kB\nThreads:\t4\n", 100 * units.MiB, 200 * units.MiB, ""},
		{"a zombie", "Name:\tqemu\nState:\tZ (zombie)\n", 0, 0, "the process has ended"},
		{"one is missing", "VmRSS:\t1 kB\n", 0, 0, "the process has ended"},
		{"no number", "VmHWM:\t1 kB\nVmRSS:\tmuch kB\n", 0, 0, `"VmRSS:\tmuch kB" is no size in kB`},
	} {
		now, peak, err := residentMemory(tc.status)
		if now != tc.now || peak != tc.peak || !hasText(err, tc.err) {
			t.Errorf("%s: %v, %v, %v; want %v, %v, %q", tc.name, now, peak, err, tc.now, tc.peak, tc.err)
		}
	}
}

// hasText tells whether an error says a text; an empty text is no error.
func hasText(err error, text string) bool {
	if err == nil || text == "" {
		return err == nil && text == ""
	}
	return strings.Contains(err.Error(), text)
}

func TestUsage(t *testing.T) {
	m := startFake(t, fakeOptions{Answers: map[string]string{"query-blockstats": `[
		{"node-name": "disk0", "stats": {"rd_bytes": 3145728, "wr_bytes": 512}},
		{"node-name": "cdrom1", "stats": {"rd_bytes": 1048576, "wr_bytes": 0}}]`}})
	u, err := m.Usage(deadline(t, 20*time.Second))
	if err != nil || u.Read != 4*units.MiB || u.Written != 512 {
		t.Errorf("Usage = %+v, %v", u, err)
	}
	if u.At <= 0 || u.At > time.Since(m.Started()) || u.Resident < units.MiB || u.Peak < u.Resident {
		t.Errorf("Usage = %+v, started %v ago", u, time.Since(m.Started()))
	}
	if u.GuestCPU < 0 || u.GuestCPU > u.CPU {
		t.Errorf("the guest's %v are more than all of QEMU's %v", u.GuestCPU, u.CPU)
	}
	if err := m.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	_, err = m.Usage(t.Context())
	var exit *ExitError
	if !errors.As(err, &exit) || !strings.HasPrefix(err.Error(), "asking what the machine uses: qemu ended: ") {
		t.Errorf("err = %v; want the machine's end", err)
	}
}

// TestGuestThreads: threads are asked for once, and one that runs several
// processors counts once.
func TestGuestThreads(t *testing.T) {
	m := startFake(t, fakeOptions{Answers: map[string]string{
		"query-blockstats": "[]", "query-cpus-fast": `[{"thread-id": 11}, {"thread-id": 12}, {"thread-id": 11}]`,
	}})
	for range 2 {
		if got, err := m.guestThreads(deadline(t, 20*time.Second)); err != nil || !slices.Equal(got, []int{11, 12}) {
			t.Errorf("threads %v, %v", got, err)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if got, err := m.guestThreads(ended); err != nil || len(got) != 2 {
		t.Errorf("QEMU is asked again: %v, %v", got, err)
	}
	if _, err := m.Usage(deadline(t, 20*time.Second)); err == nil || !strings.Contains(err.Error(), "/task/11/stat") {
		t.Errorf("a thread that is not QEMU's: %v", err)
	}
}

// TestProcessMemory: a process that takes memory has it, and had it.
func TestProcessMemory(t *testing.T) {
	_, before, err := ProcessMemory(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	block := make([]byte, int(before)+64<<20)
	for i := 0; i < len(block); i += 4096 {
		block[i] = 1
	}
	now, peak, err := ProcessMemory(os.Getpid())
	if err != nil || now < units.Bytes(len(block)) || peak < now || peak < before+64*units.MiB {
		t.Errorf("now %v, peak %v (before %v), %v", now, peak, before, err)
	}
	runtime.KeepAlive(block)
	if _, _, err := ProcessMemory(1 << 30); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of no process: %v", err)
	}
}

// TestUsageOfADeafQEMU pins that the context's deadline holds.
func TestUsageOfADeafQEMU(t *testing.T) {
	m := startFake(t, fakeOptions{IgnoreAll: true})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := m.Usage(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("err = %v", err)
	}
}

// sampled runs a Sampler for a time, in a world where time passes at once.
func sampled(t *testing.T, s *Sampler, length time.Duration, usage func(context.Context, time.Duration) (Usage, error)) []time.Duration {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), length)
	defer cancel()
	began := time.Now()
	s.Run(ctx, func(ctx context.Context) (Usage, error) { return usage(ctx, time.Since(began)) })
	var at []time.Duration
	for _, u := range s.Samples() {
		at = append(at, u.At)
	}
	return at
}

func now(_ context.Context, at time.Duration) (Usage, error) { return Usage{At: at}, nil }

func TestSampler(t *testing.T) {
	const s = time.Second
	for _, tc := range []struct {
		name    string
		sampler *Sampler
		length  time.Duration
		usage   func(context.Context, time.Duration) (Usage, error)
		want    []time.Duration
	}{
		{"at once and every interval", &Sampler{}, 3500 * time.Millisecond, now, []time.Duration{0, s, 2 * s, 3 * s}},
		{"an end at once", &Sampler{}, 0, now, []time.Duration{0}},
		// With the ninth, every second one goes and the interval doubles; at 16 s again.
		{"half the resolution", &Sampler{Limit: 8}, 17 * s, now, []time.Duration{0, 4 * s, 8 * s, 12 * s, 16 * s}},
		{"failures are left out", &Sampler{}, 3500 * time.Millisecond, func(_ context.Context, at time.Duration) (Usage, error) {
			if at == s {
				return Usage{}, errors.New("busy")
			}
			return Usage{At: at}, nil
		}, []time.Duration{0, 2 * s, 3 * s}},
		{"a slow monitor", &Sampler{}, 6500 * time.Millisecond, func(_ context.Context, at time.Duration) (Usage, error) {
			if at == s {
				time.Sleep(2500 * time.Millisecond)
			}
			return Usage{At: at}, nil
		}, []time.Duration{0, s, 3500 * time.Millisecond, 4 * s, 5 * s, 6 * s}},
		{"a deaf monitor", &Sampler{}, 5 * s, func(ctx context.Context, _ time.Duration) (Usage, error) {
			<-ctx.Done()
			return Usage{}, ctx.Err()
		}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if diff := cmp.Diff(tc.want, sampled(t, tc.sampler, tc.length, tc.usage)); diff != "" {
					t.Errorf("samples at (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// TestSamplerIsBounded runs for a day: never more samples than the limit, at
// least half as many, and at even distances from the first moment on.
func TestSamplerIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Sampler{}
		at := sampled(t, s, 24*time.Hour, func(ctx context.Context, at time.Duration) (Usage, error) {
			if n := len(s.Samples()); n > defaultSamples {
				t.Fatalf("%d samples are kept", n)
			}
			return now(ctx, at)
		})
		if len(at) < defaultSamples/2 || at[0] != 0 || at[len(at)-1] < 23*time.Hour {
			t.Errorf("%d samples from %v to %v", len(at), at[0], at[len(at)-1])
		}
		for i := range at[1:] {
			if step := at[i+1] - at[i]; step != at[1]-at[0] {
				t.Fatalf("a distance of %v at %v, the others are %v", step, at[i], at[1]-at[0])
			}
		}
	})
}

func FuzzUsageFiles(f *testing.F) {
	f.Add("4242 (a) (b) S 1 2 3 0 -1 4194560 9 0 0 0 1234 56 7 8", "VmHWM:\t 2 kB\nVmRSS:\t 1 kB\n")
	f.Fuzz(func(t *testing.T, stat, status string) {
		if d, err := cpuTime(stat); d < 0 || err != nil && d != 0 {
			t.Errorf("cpuTime(%q) = %v, %v", stat, d, err)
		}
		if now, peak, err := residentMemory(status); now < 0 || peak < 0 || err != nil && now+peak != 0 {
			t.Errorf("residentMemory(%q) = %v, %v, %v", status, now, peak, err)
		}
	})
}
