package snapshot

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/org/hurd-qemu-action/internal/units"
)

// roleVariable makes the test program play one of the roles instead: what
// happens to a process that is killed, and what memory one takes, needs one.
const roleVariable = "HURD_QEMU_ACTION_SNAPSHOT_ROLE"

var roles = map[string]func(args []string) error{"use": roleUse, "save": roleSave, "pack": rolePack, "unpack": roleUnpack}

func TestMain(m *testing.M) {
	role := roles[os.Getenv(roleVariable)]
	if role == nil {
		goleak.VerifyTestMain(m)
		return
	}
	if err := role(os.Args[1:]); err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
}

// process is the test program in a role.
type process struct {
	*exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func play(t *testing.T, role string, args ...string) process {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), roleVariable+"="+role)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	return process{cmd, in, bufio.NewReader(out)}
}

// says waits for a line of the process.
func (p process) says(t *testing.T, line string) string {
	t.Helper()
	got, err := p.out.ReadString('\n')
	if err != nil || !strings.HasPrefix(got, line) {
		t.Fatalf("the process said %q, %v; want %q", got, err, line)
	}
	return strings.TrimSpace(strings.TrimPrefix(got, line))
}

// end lets the process go on to its end.
func (p process) end(t *testing.T) {
	t.Helper()
	_ = p.in.Close()
	if err := p.Wait(); err != nil {
		t.Error(err)
	}
}

// untilClosed waits for the end of standard input.
func untilClosed() { _, _ = io.Copy(io.Discard, os.Stdin) }

// roleUse holds an entry, and verifies it when it is told to go on.
func roleUse(args []string) error {
	e, err := (&Store{Dir: args[0]}).Open(context.Background(), testKey())
	if err != nil {
		return err
	}
	fmt.Println("in use")
	untilClosed()
	return errors.Join(e.Verify(context.Background()), e.Close())
}

// TestProcesses has two processes use one entry while a third prunes.
func TestProcesses(t *testing.T) {
	s := &Store{Dir: t.TempDir()}
	_ = commit(t, s, testKey()).Close()
	first, second := play(t, "use", s.Dir), play(t, "use", s.Dir)
	first.says(t, "in use")
	second.says(t, "in use")
	prune := func(want int) {
		t.Helper()
		if p, err := s.Prune(t.Context(), 0, 1); err != nil || len(p.Removed) != want {
			t.Errorf("Prune = %+v, %v; want %d removed", p, err, want)
		}
	}
	prune(0)
	first.end(t)
	prune(0)
	// The second one dies, and the kernel frees its lock.
	if err := second.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = second.Wait() // it was killed
	prune(1)
	if third := play(t, "use", s.Dir); third.says(t, "error:") == "" {
		t.Error("an entry that was removed is used")
	} else {
		_ = third.Wait() // it failed
	}
}

// roleSave begins an entry and is killed when two of its files are there.
func roleSave(args []string) error {
	d, err := (&Store{Dir: args[0]}).Begin()
	if err != nil {
		return err
	}
	for _, name := range []string{State, RAM} {
		if err := os.WriteFile(d.Path(name), []byte("half"), 0o600); err != nil {
			return err
		}
	}
	fmt.Println("saving")
	untilClosed()
	return nil
}

// TestKilledWhileSaving holds that a writer that is killed between two files
// leaves no entry, and nothing that stays.
func TestKilledWhileSaving(t *testing.T) {
	s := &Store{Dir: t.TempDir()}
	p := play(t, "save", s.Dir)
	p.says(t, "saving")
	if _, err := s.Prune(t.Context(), time.Nanosecond, 1); err != nil || len(drafts(t, s)) != 1 {
		t.Errorf("Prune, %v: left are %v, want the draft of who is saving", err, drafts(t, s))
	}
	if err := p.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = p.Wait() // it was killed
	if _, err := s.Open(t.Context(), testKey()); !errors.Is(err, ErrMiss) {
		t.Errorf("Open = %v", err)
	}
	e := commit(t, s, testKey())
	same(t, e, files(t, testKey()))
	if left := drafts(t, s); len(left) > 0 {
		t.Errorf("left are %v", left)
	}
}

// rolePack and roleUnpack say what memory they have taken at most.
func rolePack(args []string) error {
	s := &Store{Dir: args[0]}
	all, err := s.List()
	if err != nil || len(all) != 1 {
		return fmt.Errorf("%d entries, %w", len(all), err)
	}
	e, err := s.Open(context.Background(), all[0].Manifest.Key)
	if err != nil {
		return err
	}
	return errors.Join(e.Export(context.Background(), args[1]), e.Close(), printPeak())
}

func roleUnpack(args []string) error {
	f, err := os.Open(args[1])
	if err != nil {
		return err
	}
	e, err := (&Store{Dir: args[0]}).Unpack(context.Background(), f, Admission{})
	if err != nil {
		return err
	}
	return errors.Join(e.Close(), f.Close(), printPeak())
}

func printPeak() error {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	_, peak, _ := bytes.Cut(status, []byte("VmHWM:"))
	fmt.Println("peak", string(bytes.Fields(peak)[0]))
	return nil
}

// peakLimit leaves room in 64 MiB for the rest of the program.
const peakLimit = 40 * units.MiB

// TestPeakMemory holds that packing and unpacking take little memory, whatever
// the size of the guest.
func TestPeakMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: a machine with 1 GiB is made")
	}
	if raceDetector {
		t.Skip("the race detector takes several times the memory")
	}
	from := &Store{Dir: t.TempDir()}
	_ = large(t, from).Close()
	file, to := filepath.Join(t.TempDir(), "machine"+Extension), t.TempDir()
	peakOf(t, "pack", from.Dir, file)
	peakOf(t, "unpack", to, file)
}

func peakOf(t *testing.T, role, dir, file string) {
	t.Helper()
	p := play(t, role, dir, file)
	kib, err := strconv.Atoi(p.says(t, "peak "))
	p.end(t)
	peak := units.Bytes(kib) * units.KiB
	t.Logf("%s takes %s", role, peak.Human())
	if err != nil || peak > peakLimit {
		t.Errorf("%s takes %s, %v; allowed are %s", role, peak.Human(), err, peakLimit.Human())
	}
}
