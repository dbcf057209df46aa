package lifecycle

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/org/hurd-qemu-action/internal/actions"
	"github.com/org/hurd-qemu-action/internal/config"
	"github.com/org/hurd-qemu-action/internal/guest"
	"github.com/org/hurd-qemu-action/internal/metrics"
	"github.com/org/hurd-qemu-action/internal/qemu"
	"github.com/org/hurd-qemu-action/internal/results"
)

// newRun gives a run with a log that can be read.
func newRun() (*run, *bytes.Buffer) {
	var out bytes.Buffer
	return makeRun(Request{Log: actions.New(actions.Options{Stdout: &out, Stderr: &out})}), &out
}

// TestEnds is the table of ends in the README.
func TestEnds(t *testing.T) {
	for _, tc := range []struct {
		kind   Kind
		cause  error
		status int
	}{
		{Success, nil, 0},
		{Timeout, timeoutError{"timeout", time.Second}, 124},
		{Canceled, Interrupt{syscall.SIGINT}, 130},
		{Canceled, Interrupt{syscall.SIGTERM}, 143},
		{Canceled, errors.New("some other reason"), 130},
		{GuestLost, nil, 125}, {BootFailed, nil, 125}, {ImageFailed, nil, 125},
		{Service, nil, 125}, {Internal, nil, 125}, {InputInvalid, nil, 125},
	} {
		if got := statusOf(tc.kind, tc.cause); got != tc.status {
			t.Errorf("%s, %v: status %d, want %d", tc.kind, tc.cause, got, tc.status)
		}
	}
	for _, tc := range []struct {
		status, signal int
		kind           Kind
		want           int
	}{
		{0, 0, Success, 0}, {7, 0, ScriptFailed, 7}, {137, 0, ScriptFailed, 137}, {137, 9, Signaled, 137}, {255, 0, ScriptFailed, 255},
	} {
		if kind, status := scriptEnd(tc.status, tc.signal); kind != tc.kind || status != tc.want {
			t.Errorf("status %d, signal %d: %s, %d; want %s, %d", tc.status, tc.signal, kind, status, tc.kind, tc.want)
		}
	}
}

func TestConclude(t *testing.T) {
	for _, tc := range []struct {
		name   string
		before Result
		err    error
		want   Result
	}{
		{"the script ended", Result{Kind: ScriptFailed, ExitCode: 7}, nil, Result{Kind: ScriptFailed, ExitCode: 7}},
		{"a typed error", Result{}, fail(BootFailed, "T", errors.New("x")), Result{Kind: BootFailed, ExitCode: 125}},
		{"a marked error", Result{}, retryable{fail(BootFailed, "T", nil)}, Result{Kind: BootFailed, ExitCode: 125}},
		{"a joined error", Result{}, errors.Join(fail(GuestLost, "T", nil), errors.New("stop failed")), Result{Kind: GuestLost, ExitCode: 125}},
		{"canceled", Result{}, fail(Canceled, "T", Interrupt{syscall.SIGTERM}), Result{Kind: Canceled, ExitCode: 143}},
		{"something unforeseen", Result{}, errors.New("x"), Result{Kind: Internal, ExitCode: 125}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, _ := newRun()
			r.result = tc.before
			r.conclude(tc.err)
			if diff := cmp.Diff(tc.want, r.result); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestSignalNames(t *testing.T) {
	for n, want := range map[int]string{9: "9 (KILL)", 11: "11 (SEGV)", 15: "15 (TERM)", 7: "7", 40: "40"} {
		if got := signalName(n); got != want {
			t.Errorf("signalName(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestCleanup(t *testing.T) {
	var c cleanup
	var order []string
	bad := errors.New("bad")
	step := func(name string, err error) {
		c.push(name, func(context.Context) error { order = append(order, name); return err })
	}
	step("first", nil)
	step("second", bad)
	c.push("third", func(ctx context.Context) error {
		if ctx.Err() != nil || ctx.Value(key{}) != "value" {
			t.Error("the context has ended, or lost its values")
		}
		panic("third")
	})
	step("fourth", nil)
	ctx := context.WithValue(t.Context(), key{}, "value")
	err := c.run(ctx)
	if diff := cmp.Diff([]string{"fourth", "second", "first"}, order); diff != "" {
		t.Error(diff)
	}
	if !errors.Is(err, bad) || !strings.Contains(err.Error(), "second: bad") || !strings.Contains(err.Error(), "third: internal error: third") {
		t.Errorf("err = %v", err)
	}
	if err := c.run(ctx); err != nil || len(order) != 3 {
		t.Errorf("a second cleanup did something: %v, %v", order, err)
	}
}

type key struct{}

func TestLogs(t *testing.T) {
	dir := t.TempDir()
	for _, want := range []string{".hurd/run-1", ".hurd/run-2"} {
		l, err := newLogs(dir)
		if err != nil {
			t.Fatal(err)
		}
		f, err := l.create("serial.log")
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		if l.path("serial.log") != want+"/serial.log" {
			t.Errorf("path = %q, want it in %s", l.path("serial.log"), want)
		}
		if _, err := os.Stat(filepath.Join(dir, l.path("serial.log"))); err != nil {
			t.Error(err)
		}
		if _, err := l.create("serial.log"); !errors.Is(err, fs.ErrExist) {
			t.Errorf("a second log of the same name: %v", err)
		}
	}
	if text, err := os.ReadFile(filepath.Join(dir, ".hurd/.gitignore")); err != nil || string(text) != "*\n" {
		t.Errorf(".gitignore = %q, %v", text, err)
	}
}

// TestLogsGoNowhereElse gives the workspace a link in the place of the log
// directory, which the user's checkout may hold.
func TestLogsGoNowhereElse(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	if err := os.Symlink(other, filepath.Join(dir, ".hurd")); err != nil {
		t.Fatal(err)
	}
	if _, err := newLogs(dir); err == nil || !strings.Contains(err.Error(), "is no directory") {
		t.Errorf("err = %v", err)
	}
	if entries, err := os.ReadDir(other); err != nil || len(entries) != 0 {
		t.Errorf("written through the link: %v, %v", entries, err)
	}
}

func TestLogsBelongToTheWorkspace(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	dir := t.TempDir()
	if err := os.Chown(dir, 1234, 2345); err != nil {
		t.Fatal(err)
	}
	l, err := newLogs(dir)
	if err != nil {
		t.Fatal(err)
	}
	f, err := l.create("x")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for _, name := range []string{".hurd", ".hurd/.gitignore", ".hurd/run-1", ".hurd/run-1/x"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if st := info.Sys().(*syscall.Stat_t); st.Uid != 1234 || st.Gid != 2345 {
			t.Errorf("%s belongs to %d:%d", name, st.Uid, st.Gid)
		}
	}
}

func TestIdleTimer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fired := make(chan time.Time, 1)
		timer := newIdleTimer(10*time.Second, func() { fired <- time.Now() })
		defer timer.stop()
		var out bytes.Buffer
		w := timer.writer(&out)
		for range 3 {
			time.Sleep(9 * time.Second)
			if _, err := w.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
		}
		last := time.Now()
		if at := <-fired; at.Sub(last) != 10*time.Second {
			t.Errorf("fired %v after the last output", at.Sub(last))
		}
		if _, err := w.Write([]byte("y")); err != nil || out.String() != "xxxy" {
			t.Errorf("wrote %q, %v", out.String(), err)
		}
		time.Sleep(time.Minute)
		if len(fired) != 0 {
			t.Error("it fired twice")
		}
	})
}

func TestScriptFailures(t *testing.T) {
	for _, tc := range []struct {
		name  string
		cause error // of the context's end
		err   error
		kind  Kind
		says  string
	}{
		{"timeout", timeoutError{"timeout", time.Minute}, errors.New("x"), Timeout, "ran longer than 1m0s (timeout)"},
		{"idle", timeoutError{"idle-timeout", time.Minute}, errors.New("x"), Timeout, "printed nothing for 1m0s (idle-timeout)"},
		{"interrupt", Interrupt{syscall.SIGTERM}, errors.New("x"), Canceled, "signal 15"},
		{"no directory", nil, &guest.DirError{Dir: "/nowhere"}, InputInvalid, "/nowhere"},
		{"no shell", nil, &guest.ShellError{Program: "zsh"}, InputInvalid, "zsh"},
		{"anything else", nil, errors.New("disk full"), Internal, "disk full"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, _ := newRun()
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			if tc.cause != nil {
				cancel(tc.cause)
			}
			err := r.scriptFailure(ctx, tc.err)
			var e *Error
			if !errors.As(err, &e) || e.Kind != tc.kind || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("err = %v (%+v), want %s with %q", err, e, tc.kind, tc.says)
			}
		})
	}
}

func TestReportFailure(t *testing.T) {
	r, out := newRun()
	r.reportFailure(&Error{Kind: BootFailed, Title: "T", Err: errors.New("the cause"), Advice: []string{"do this", "do that"}, Quote: []string{"panic \x1b[1mline"}})
	want := "What shows it:\n    panic [1mline\nWhat to try: do this\nWhat to try: do that\nerror: T: the cause\n"
	if out.String() != want {
		t.Errorf("got  %q\nwant %q", out.String(), want)
	}
	for name, err := range map[string]error{
		"of config":       config.Problems{{Input: "a", Problem: "p"}, {Input: "b", Problem: "q"}},
		"joined":          errors.Join(errors.New("a: p"), errors.New("b: q")),
		"nested":          errors.Join(errors.Join(nil, errors.Join(errors.New("a: p"))), config.Problems{{Input: "b", Problem: "q"}}),
		"with two causes": errors.Join(fmt.Errorf("%w%w", errors.New("a: "), errors.New("p")), errors.New("b: q")),
	} {
		r, out := newRun()
		r.reportFailure(fail(InputInvalid, "Invalid input", err))
		if want := "error: Invalid input: a: p\nerror: Invalid input: b: q\n"; out.String() != want {
			t.Errorf("%s: got %q, want %q", name, out.String(), want)
		}
	}
}

func TestOutputs(t *testing.T) {
	file := filepath.Join(t.TempDir(), "output")
	r := makeRun(Request{Log: actions.New(actions.Options{Stdout: &bytes.Buffer{}, Commands: true, Getenv: func(string) string { return file }})})
	r.result = Result{
		Kind: Success, Accel: "tcg", AccelReason: "why", Boot: 12345 * time.Millisecond, SSH: time.Second, Script: 2 * time.Second,
		Attempts: 2, Uname: "GNU hurd", ImageDigest: "sha256:00", SerialLog: "s", QEMULog: "q", Metrics: "m", Benchmark: "b",
		Snapshot: "restored", Artifact: results.Artifact{ID: 12},
	}
	r.config.Prepare = "true"
	r.bench = &bench{document: metrics.Benchmark{Times: []metrics.Measured{{Took: metrics.Seconds(250 * time.Millisecond)}}}}
	if err := r.setOutputs(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range config.Outputs() {
		if !strings.Contains(string(text), o.Name+"<<hurd_") {
			t.Errorf("output %s is not set", o.Name)
		}
	}
	for _, value := range []string{"\nsuccess\n", "\n0\n", "\n12.345\n", "\n1.000\n", "\n2.000\n", "\nGNU hurd\n", "\nrestored\n", "\ntrue\n", "\n12\n", "\nm\n", "\nb\n", "\n0.250\n"} {
		if !strings.Contains(string(text), value) {
			t.Errorf("no output has the value %q:\n%s", value, text)
		}
	}
}

func TestPaceIsSlowerWhenEmulated(t *testing.T) {
	kvm, tcg := paceOf(qemu.AccelKVM), paceOf(qemu.AccelTCG)
	if kvm.boot != 5*time.Minute || tcg.boot != 15*time.Minute {
		t.Errorf("boot-timeout is %v and %v", kvm.boot, tcg.boot)
	}
	if kvm.first >= tcg.first || kvm.silence >= tcg.silence || kvm.deaf >= tcg.deaf {
		t.Errorf("%+v is not faster than %+v", kvm, tcg)
	}
}
