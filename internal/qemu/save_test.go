package qemu

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// ramFile makes a file for a guest's memory that QEMU's user can open.
func ramFile(t *testing.T, size int64) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate("ram", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "ram")
	t.Cleanup(func() { _ = f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return f
}

// procPath is how QEMU's starter opens a file of ours once more.
func procPath(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }

func contents(t *testing.T, f *os.File) [sha256.Size]byte {
	t.Helper()
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(f, 0, 1<<40)); err != nil {
		t.Fatal(err)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// say types a line and waits for its echo.
func say(t *testing.T, m *Machine, line string) {
	t.Helper()
	if _, err := m.Console().Write([]byte(line)); err != nil {
		t.Fatal(err)
	}
	waitFor(t, m, line, 30*time.Second)
}

// TestE2ESaveAndLoad saves a machine in the middle of a conversation, lets it
// go on, and then has several others begin where it was saved.
func TestE2ESaveAndLoad(t *testing.T) {
	spec, options := realSpec(t, firmware("up\r\n", echo))
	memory := ramFile(t, int64(spec.Memory))
	spec.RAM = &RAM{Path: procPath(memory), Shared: true}
	m := startReal(t, spec, options)
	waitFor(t, m, "up", 30*time.Second)
	state, err := os.Create(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = state.Close() }()
	if err := m.Save(deadline(t, 20*time.Second), state); err != nil {
		t.Fatal(err)
	}
	if m.Phase() != PhasePaused {
		t.Errorf("phase %s after Save", m.Phase())
	}
	saved := ramFile(t, int64(spec.Memory))
	if _, err := memory.Seek(0, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := saved.ReadFrom(memory); err != nil {
		t.Fatal(err)
	}
	if err := m.Resume(deadline(t, 20*time.Second)); err != nil {
		t.Fatal(err)
	}
	say(t, m, "the first goes on\n")
	info, err := state.Stat()
	if err != nil || info.Size() == 0 || info.Size() > 4<<20 {
		t.Errorf("the state has %d bytes, %v: the memory should not be in it", info.Size(), err)
	}
	before := contents(t, saved)
	for range 2 {
		load := spec
		load.RAM = &RAM{Path: procPath(saved), ReadOnly: options.Features.PrivateRAM}
		load.Incoming = "defer"
		options.RunDir = t.TempDir()
		l := startReal(t, load, options)
		if l.Phase() != PhaseIncoming {
			t.Errorf("phase %s before Load", l.Phase())
		}
		if err := l.Load(deadline(t, 20*time.Second), state); err != nil {
			t.Fatal(err)
		}
		if err := l.Resume(deadline(t, 20*time.Second)); err != nil {
			t.Fatal(err)
		}
		say(t, l, "another goes on\n")
	}
	if contents(t, saved) != before {
		t.Error("a loaded machine has written to the saved memory")
	}
}

// TestSaveAndLoadFail has a QEMU that cannot do it, and says so or not.
func TestSaveAndLoadFail(t *testing.T) {
	for _, tc := range []struct {
		name    string
		options fakeOptions
		want    string
	}{
		{"it says why", fakeOptions{Answers: map[string]string{"query-migrate": `{"status": "failed", "error-desc": "no space"}`}}, "the migration failed: no space"},
		{"it does not", fakeOptions{Answers: map[string]string{"query-migrate": `{"status": "cancelled"}`}}, "the migration cancelled: QEMU does not say why"},
		{"it ends", fakeOptions{On: map[string]string{"query-migrate": "exit"}}, "qemu ended"},
		{"it takes for ever", fakeOptions{Answers: map[string]string{"query-migrate": `{"status": "active"}`}}, "deadline"},
	} {
		for verb, do := range map[string]func(*Machine, context.Context, *os.File) error{"saving": (*Machine).Save, "loading": (*Machine).Load} {
			t.Run(verb+", "+tc.name, func(t *testing.T) {
				m := startFake(t, tc.options)
				limit := 5 * time.Second
				if tc.want == "deadline" {
					limit = 100 * time.Millisecond
				}
				err := do(m, deadline(t, limit), ramFile(t, 0))
				if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.HasPrefix(err.Error(), verb) {
					t.Errorf("err = %v, want %q", err, tc.want)
				}
			})
		}
	}
}

// TestPause: the guest stands still, and goes on.
func TestPause(t *testing.T) {
	spec, options := realSpec(t, firmware("up\r\n", echo))
	m := startReal(t, spec, options)
	waitFor(t, m, "up", 30*time.Second)
	if err := m.Pause(deadline(t, 20*time.Second)); err != nil {
		t.Fatal(err)
	}
	if err := m.WaitPhase(deadline(t, 20*time.Second), PhasePaused); err != nil {
		t.Error(err)
	}
	if err := m.Resume(deadline(t, 20*time.Second)); err != nil {
		t.Fatal(err)
	}
	say(t, m, "it goes on\n")
}
