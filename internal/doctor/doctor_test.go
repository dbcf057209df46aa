package doctor

import (
	"context"
	"encoding/json"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestHealthy: nothing is said against a host that is well, in a job or not.
func TestHealthy(t *testing.T) {
	w := healthy(t)
	rep := Run(t.Context(), w.Host, Options{})
	if rep.Verdict != Fine || len(rep.Problems()) > 0 {
		t.Errorf("%s: %+v", rep.Verdict, rep.Problems())
	}
	for _, f := range rep.Findings {
		if f.Verdict == Skipped && f.Group != groupJob {
			t.Errorf("%s was not checked: %s", f.Check, f.Text)
		}
		if f.Title == "" || f.Text == "" || f.Group == "" || strings.Contains(f.Text, "\n") {
			t.Errorf("%+v", f)
		}
	}
	w = healthy(t)
	w.job()
	rep = Run(t.Context(), w.Host, Options{})
	for _, f := range rep.Findings {
		if f.Verdict != Fine {
			t.Errorf("in a job %s is %s: %s", f.Check, f.Verdict, f.Text)
		}
	}
}

// TestNothingIsKnown: a zero Host answers no question, and breaks no check.
func TestNothingIsKnown(t *testing.T) {
	for _, f := range Run(t.Context(), Host{}, Options{}).Findings {
		if f.Verdict == Broken {
			t.Errorf("%s is broken: %s", f.Check, f.Text)
		}
	}
}

// TestGuide: each entry of the guide's troubleshooting section, and each thing
// that it tells to do, has a check, and the names are those of checks.
func TestGuide(t *testing.T) {
	var names []string
	for _, c := range Checks() {
		if slices.Contains(names, c.Name) {
			t.Errorf("two checks are called %s", c.Name)
		}
		names = append(names, c.Name)
	}
	var titles []string
	for _, e := range guide {
		titles = append(titles, e.Title)
		if len(e.Steps) < 4 {
			t.Errorf("%s has %d steps, and the guide has 4 or more for each", e.Title, len(e.Steps))
		}
		for _, s := range e.Steps {
			if len(s.Checks) == 0 {
				t.Errorf("%s: %s: no check does it", e.Title, s.Text)
			}
			for _, c := range s.Checks {
				if !slices.Contains(names, c) {
					t.Errorf("%s: %s: %s is no check", e.Title, s.Text, c)
				}
			}
		}
	}
	want := []string{"QEMU Won't Start", "SSH Won't Connect", "QMP Socket Errors", "Boot Timeout", "Performance Issues"}
	if !slices.Equal(titles, want) {
		t.Errorf("entries are %q, want %q", titles, want)
	}
	rep := Run(t.Context(), healthy(t).Host, Options{})
	for _, title := range want {
		if !slices.ContainsFunc(rep.Findings, func(f Finding) bool { return slices.Contains(f.Covers, title) && f.Verdict == Fine }) {
			t.Errorf("no finding says that it covers %s", title)
		}
	}
}

// TestTime: what hangs, and listens to no context, is called broken in time, and
// holds nothing else up.
func TestTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := healthy(t)
		w.CPUs = func() int { return 4 }
		free := make(chan struct{})
		defer close(free)
		w.Writable = func(string) error { <-free; return nil }
		w.KVM = func(context.Context) (KVM, error) { <-free; return KVM{}, nil }
		w.QEMU = func(context.Context) (QEMU, error) { <-free; return QEMU{}, nil }
		w.Start = func(context.Context) error { <-free; return nil }
		w.Images = func() ([]Entry, error) { <-free; return nil, nil }
		w.Guests = func(context.Context) ([]Guest, error) { <-free; return nil, nil }
		began := time.Now()
		rep := Run(t.Context(), w.Host, Options{})
		if took := time.Since(began); took > DefaultLimit+time.Second {
			t.Errorf("it took %v", took)
		}
		verdicts := map[string]Verdict{}
		for _, f := range rep.Findings {
			verdicts[f.Check] = f.Verdict
		}
		for _, name := range []string{"temp-space", "workspace", "qemu", "kvm", "images", "guest-monitor"} {
			if verdicts[name] != Broken {
				t.Errorf("%s hangs and is %s", name, verdicts[name])
			}
		}
		for _, name := range []string{"memory", "docker", "loopback", "downloads"} {
			if verdicts[name] != Fine {
				t.Errorf("%s is %s", name, verdicts[name])
			}
		}
	})
}

// TestSilentGuests: several guests that boot take no longer than one, and none
// of them is broken for that.
func TestSilentGuests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := healthy(t)
		w.Guests = func(context.Context) ([]Guest, error) {
			return []Guest{{Dir: "/tmp/a", Alive: true}, {Dir: "/tmp/b", Alive: true}, {Dir: "/tmp/c", Alive: true}}, nil
		}
		w.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
			here, there := net.Pipe()
			context.AfterFunc(ctx, func() { _ = there.Close() })
			return here, nil
		}
		silent := 0
		for _, f := range Run(t.Context(), w.Host, Options{}).Findings {
			if f.Check == "guest-ssh" {
				silent++
				if f.Verdict != Slow {
					t.Errorf("%s: %s", f.Verdict, f.Text)
				}
			}
		}
		if silent != 3 {
			t.Errorf("%d findings", silent)
		}
	})
}

// TestBusyOneByOne: the checks that need a processor do not disturb each other.
func TestBusyOneByOne(t *testing.T) {
	w := healthy(t)
	var running, most atomic.Int32
	work := func() {
		most.Store(max(most.Load(), running.Add(1)))
		defer running.Add(-1)
		for range 1000 {
			_ = strings.Repeat("x", 100)
		}
	}
	kvm, start := w.KVM, w.Start
	w.KVM = func(ctx context.Context) (KVM, error) { work(); return kvm(ctx) }
	w.Start = func(ctx context.Context) error { work(); return start(ctx) }
	Run(t.Context(), w.Host, Options{})
	if most.Load() != 1 {
		t.Errorf("%d at once", most.Load())
	}
}

// TestQuick: after a boot that has failed nothing is asked that takes long.
func TestQuick(t *testing.T) {
	w := healthy(t)
	w.job()
	never := func(what string) { t.Errorf("%s was asked", what) }
	w.Start = func(context.Context) error { never("a machine"); return nil }
	w.DiskMode = func(context.Context, string, string) error { never("a mode"); return nil }
	w.Images = func() ([]Entry, error) { never("the store"); return nil, nil }
	w.Program = func(context.Context, string, ...string) (string, error) { never("a program"); return "", nil }
	w.Downloads = func() []Download { never("the network"); return nil }
	w.Guests = func(context.Context) ([]Guest, error) { never("a guest"); return nil, nil }
	w.Client = nil
	rep := Run(t.Context(), w.Host, Options{Quick: true, Offline: true, Limit: 3 * time.Second})
	if rep.Verdict != Fine || len(rep.Findings) < 10 {
		t.Errorf("%s of %d: %+v", rep.Verdict, len(rep.Findings), rep.Problems())
	}
}

func TestOffline(t *testing.T) {
	w := healthy(t)
	w.job()
	w.env["HTTPS_PROXY"] = "http://proxy.example:3128"
	w.Downloads = func() []Download { t.Error("the network was asked"); return nil }
	for _, name := range []string{"downloads", "proxy", "services-network"} {
		if f := findings(t, w, Options{Offline: true}, name); len(f) != 1 || f[0].Verdict != Skipped {
			t.Errorf("%s: %+v", name, f)
		}
	}
}

// TestPanic: a check that fails itself is one finding, and not the end.
func TestPanic(t *testing.T) {
	w := healthy(t)
	w.Memory = func() (Memory, error) { panic("oh") }
	f := findings(t, w, Options{}, "memory")
	if len(f) != 1 || f[0].Verdict != Broken || !strings.Contains(f[0].Text, "oh") {
		t.Errorf("%+v", f)
	}
}

// TestReport: the worst comes first, and what programs read has the names that
// are promised.
func TestReport(t *testing.T) {
	rep := Report{Findings: []Finding{{Check: "a", Verdict: Limited}, {Check: "b", Verdict: Fine}, {Check: "c", Verdict: Broken}, {Check: "d", Verdict: Slow}, {Check: "e", Verdict: Skipped}}}
	var names []string
	for _, f := range rep.Problems() {
		names = append(names, f.Check)
	}
	if !slices.Equal(names, []string{"c", "d", "a"}) || rep.Count(Slow) != 1 {
		t.Errorf("problems %q", names)
	}
	data, err := json.Marshal(Finding{Check: "kvm", Title: "KVM", Group: "QEMU", Verdict: Slow, Text: "x", Fix: []string{"y"}, Covers: []string{"Boot Timeout"}, Seconds: 2})
	want := `{"check":"kvm","title":"KVM","group":"QEMU","verdict":"slow","text":"x","fix":["y"],"covers":["Boot Timeout"],"seconds":2}`
	if err != nil || string(data) != want {
		t.Errorf("%s, %v", data, err)
	}
	for _, v := range order {
		if v.Words() == "" || v.Mark() == "" || v.worse(v) {
			t.Errorf("%q: %q %q", v, v.Words(), v.Mark())
		}
	}
	if got := slow("it is slow", "Do this.", "Or that.").Advice(); got != ": works but slow: it is slow. Do this." {
		t.Errorf("advice %q", got)
	}
}
