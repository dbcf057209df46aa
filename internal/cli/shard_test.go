package cli

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/org/hurd-qemu-action/internal/actions"
	"github.com/org/hurd-qemu-action/internal/lifecycle"
	"github.com/org/hurd-qemu-action/internal/shard"
	"github.com/org/hurd-qemu-action/internal/units"
)

func TestLimitJobs(t *testing.T) {
	room := func(total, free units.Bytes) *lifecycle.Room {
		return &lifecycle.Room{Memory: 2 * units.GiB, Total: total * units.GiB, Free: free * units.GiB}
	}
	for _, tc := range []struct {
		name                              string
		want, scripts, hostCPUs, guestCPU int
		room                              *lifecycle.Room
		jobs                              int
		warning                           string
	}{
		{"by default one per CPU", 0, 10, 4, 1, room(32, 30), 4, ""},
		{"guests with more CPUs", 0, 10, 4, 2, room(32, 30), 2, ""},
		{"a guest with more CPUs than the host", 0, 10, 2, 8, room(32, 30), 1, ""},
		{"by default what memory is free for", 0, 10, 8, 1, room(16, 7), 3, ""},
		{"at least one", 0, 10, 8, 1, room(16, 1), 1, ""},
		{"not more than scripts", 0, 2, 8, 1, room(32, 30), 2, ""},
		{"memory unknown", 0, 10, 4, 1, nil, 4, ""},
		{"as asked for", 6, 10, 2, 1, room(32, 30), 6, ""},
		{"as asked for, memory unknown", 6, 10, 2, 1, nil, 6, ""},
		{"asked for more than is free", 6, 10, 2, 1, room(16, 7), 6, "6 guests of 2 GiB may need more than the 7 GiB that are free"},
		{"asked for more than there is", 12, 20, 2, 1, room(16, 7), 8, "12 guests of 2 GiB do not fit into this host's 16 GiB: 8 run at once"},
		{"no warning for guests that will not be", 12, 3, 2, 1, room(16, 15), 3, ""},
		{"a host smaller than a guest", 2, 20, 2, 1, room(1, 1), 1, "1 run at once"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			warning := ""
			jobs := limitJobs(tc.want, tc.scripts, tc.hostCPUs, tc.guestCPU, tc.room, func(s string) { warning += s })
			if jobs != tc.jobs || !strings.Contains(warning, tc.warning) || (tc.warning == "") != (warning == "") {
				t.Errorf("%d at once, %q; want %d, %q", jobs, warning, tc.jobs, tc.warning)
			}
		})
	}
}

func TestShardStatus(t *testing.T) {
	done := shard.Result{Result: shard.Success}
	failed := shard.Result{Result: "script-failed", Status: 3}
	canceled := shard.Result{Result: string(lifecycle.Canceled), Status: 143}
	none := shard.Result{Result: shard.NotRun}
	term := lifecycle.Interrupt{Signal: syscall.SIGTERM}
	for _, tc := range []struct {
		name    string
		results []shard.Result
		cause   error
		want    int
	}{
		{"nothing happened", []shard.Result{done, failed}, nil, 3},
		{"interrupted after the end", []shard.Result{done, failed}, term, 3},
		{"interrupted", []shard.Result{failed, canceled}, term, 143},
		{"interrupted before a script", []shard.Result{done, none}, term, 143},
		{"the output broke", []shard.Result{done, none}, errors.New("no space"), 125},
		{"no guest could be had", []shard.Result{{Result: "image-failed", Status: 125}, none}, nil, 125},
	} {
		if got := (&fanOut{results: tc.results}).status(tc.cause); got != tc.want {
			t.Errorf("%s: status %d, want %d", tc.name, got, tc.want)
		}
	}
}

// TestPrinter holds where what a guest prints goes while it runs: standard
// output and error apart, line by line, and our own words for the first only.
func TestPrinter(t *testing.T) {
	for _, tc := range []struct {
		name             string
		commands, first  bool
		stdout, stderr   string
		spool, ownHidden string
	}{
		{"the first", false, true, "[ 2] out\n[ 2] half\n", "[ 2] note\n[ 2] err\n[ 2] done\n", "note\nout\nerr\nhalf\ndone\n", ""},
		{"another", false, false, "[ 2] out\n[ 2] half\n", "[ 2] err\n", "note\nout\nerr\nhalf\ndone\n", "note\n\ndone\n"},
		{"on a runner", true, false, "", "", "note\nout\nerr\nhalf\ndone\n", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			spool, err := shard.NewSpool(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = spool.Close() }()
			var stdout, stderr strings.Builder
			f := &fanOut{list: make([]shard.Script, 12), log: actions.New(actions.Options{Stdout: &stdout, Stderr: &stderr, Commands: tc.commands})}
			f.list[1].Number = 2
			f.out, f.diag = f.log.Guest()
			p := f.printer(1, spool, tc.first)
			log := actions.New(p.options)
			out, diag := log.Guest()
			log.Printf("note")
			_, _ = io.WriteString(out, "ou")
			_, _ = io.WriteString(out, "t\n")
			_, _ = io.WriteString(diag, "err\n")
			_, _ = io.WriteString(out, "half")
			log.Printf("done")
			p.close()
			if stdout.String() != tc.stdout || stderr.String() != tc.stderr {
				t.Errorf("stdout %q, stderr %q", stdout.String(), stderr.String())
			}
			if text, err := io.ReadAll(spool.Reader()); err != nil || string(text) != tc.spool {
				t.Errorf("kept %q, %v", text, err)
			}
			if p.hidden == nil && tc.ownHidden != "" || p.hidden != nil && p.hidden.String() != tc.ownHidden {
				t.Errorf("hidden %v, want %q", p.hidden, tc.ownHidden)
			}
		})
	}
}

// TestEnd holds what is said when a script has ended, on a runner and without one.
func TestEnd(t *testing.T) {
	failed := lifecycle.Result{Kind: lifecycle.GuestLost, ExitCode: 125, Snapshot: "restored", SerialLog: ".hurd/run-7/serial.log"}
	for _, tc := range []struct {
		name     string
		commands bool
		want     []string
		not      string
	}{
		{"for people", false, []string{"[1] it panicked\n[1] ./a: guest-lost, status 125, 0.00 s, restored\n"}, "::set-output"},
		{"on a runner", true, []string{
			"::group::[1] ./a: guest-lost, status 125, 0.00 s, restored\n::stop-commands::", "\n::set-output name=a::b\n", "::endgroup::\n",
			"::error title=Script 1 of the list::./a: guest-lost, status 125\n",
		}, "x::set-output"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			spool, err := shard.NewSpool(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = spool.Close() }()
			_, _ = io.WriteString(spool, "::set-output name=a::b\n")
			var out strings.Builder
			f := &fanOut{
				list: []shard.Script{{Number: 1, Line: 1, Text: "./a"}}, results: make([]shard.Result, 1),
				log: actions.New(actions.Options{Stdout: &out, Stderr: &out, Commands: tc.commands}),
			}
			f.out, f.diag = f.log.Guest()
			f.end(0, failed, 0, spool, "it panicked\n")
			for _, w := range tc.want {
				if !strings.Contains(out.String(), w) {
					t.Errorf("%q is not in %q", w, out.String())
				}
			}
			if strings.Contains(out.String(), tc.not) {
				t.Errorf("%q is in %q", tc.not, out.String())
			}
			if r := f.results[0]; r.Result != "guest-lost" || r.Status != 125 || r.Log != ".hurd/run-7" {
				t.Errorf("%+v", r)
			}
		})
	}
}

func TestKeepOutput(t *testing.T) {
	dir := t.TempDir()
	if err := keepOutput(dir, strings.NewReader("text")); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "output.log")); err != nil || string(text) != "text" {
		t.Errorf("%q, %v", text, err)
	}
	if err := keepOutput(dir, strings.NewReader("other")); err == nil || !strings.Contains(err.Error(), "keeping the output: ") {
		t.Errorf("a second one: %v", err)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "output.log")); err != nil || string(text) != "text" {
		t.Errorf("it was overwritten: %q, %v", text, err)
	}
}
