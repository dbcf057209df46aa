package image

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/org/hurd-qemu-action/internal/units"
)

// keep is an edit that changes nothing.
func keep(context.Context, string) ([]byte, error) { return nil, nil }

func mustPrepare(t *testing.T, s *Store, b Base, key string, edit Edit) Prepared {
	t.Helper()
	p, err := s.Prepare(t.Context(), b, key, edit)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// TestPrepareFormats holds that whatever the image's format, what is edited is
// its raw disk.
func TestPrepareFormats(t *testing.T) {
	raw := rawDisk(4 << 20)
	for _, format := range []Format{Raw, QCOW2, VMDK, VDI} {
		s := newStore(t)
		b := mustObtain(t, s, converted(t, format, raw), Want{})
		p := mustPrepare(t, s, b, "v1", func(_ context.Context, path string) ([]byte, error) {
			got, err := os.ReadFile(path)
			if !bytes.Equal(got, raw) {
				t.Errorf("%s: the edit sees another disk", format)
			}
			return []byte{0, 255}, err
		})
		if p.Format != Raw || p.VirtualSize != 4*units.MiB || p.Digest != b.Digest || p.Origin != b.Origin || p.Verified != b.Verified || !bytes.Equal(p.Manifest, []byte{0, 255}) {
			t.Errorf("%s: %+v", format, p)
		}
		info, err := os.Stat(p.Path)
		if err != nil || info.Mode().Perm() != 0o400 {
			t.Errorf("%s: the prepared disk is not read-only: %v, %v", format, info.Mode(), err)
		}
		if got, err := os.ReadFile(b.Path); err != nil || b.Format == Raw && !bytes.Equal(got, raw) {
			t.Errorf("%s: the image itself was changed: %v", format, err)
		}
	}
}

// TestPrepareKeys holds that every key and every image has a disk of its own.
func TestPrepareKeys(t *testing.T) {
	s := newStore(t)
	a, b := mustObtain(t, s, file(t, "a.img", rawDisk(1<<20)), Want{}), mustObtain(t, s, file(t, "b.img", rawDisk(1<<20)), Want{})
	seen := map[string]bool{}
	for _, p := range []Prepared{
		mustPrepare(t, s, a, "1", keep), mustPrepare(t, s, a, "2", keep), mustPrepare(t, s, b, "1", keep),
	} {
		if p.Reused || seen[p.Path] {
			t.Errorf("%+v is another one's", p)
		}
		seen[p.Path] = true
	}
	if !mustPrepare(t, s, a, "1", keep).Reused {
		t.Error("the same was made again")
	}
}

// TestPrepareGrows lets the edit make the disk larger.
func TestPrepareGrows(t *testing.T) {
	s := newStore(t)
	b := mustObtain(t, s, file(t, "a.img", rawDisk(1<<20)), Want{})
	p := mustPrepare(t, s, b, "8M", func(_ context.Context, path string) ([]byte, error) { return nil, os.Truncate(path, 8<<20) })
	if p.VirtualSize != 8*units.MiB {
		t.Errorf("%+v", p)
	}
}

// TestPreparedDamage changes a prepared disk behind the store's back: it is
// made anew, and that is told.
func TestPreparedDamage(t *testing.T) {
	s := newStore(t)
	b := mustObtain(t, s, file(t, "a.img", rawDisk(1<<20)), Want{})
	p, err := s.Prepare(t.Context(), b, "v1", keep)
	if err := errors.Join(err, p.Close()); err != nil {
		t.Fatal(err)
	}
	for name, damage := range map[string]func() error{
		"the disk": func() error { return errors.Join(os.Chmod(p.Path, 0o600), os.Truncate(p.Path, 512)) },
		"the manifest": func() error {
			return os.WriteFile(filepath.Join(filepath.Dir(p.Path), manifestName), []byte("{"), 0o600)
		},
		"no disk": func() error { return os.Remove(p.Path) },
	} {
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		var notes []string
		s.Progress = func(r Report) { notes = append(notes, r.String()) }
		again, err := s.Prepare(t.Context(), b, "v1", keep)
		if err != nil || again.Reused || again.VirtualSize != units.MiB {
			t.Fatalf("%s: %+v, %v", name, again, err)
		}
		if all := strings.Join(notes, "\n"); !strings.Contains(all, "making it anew, because the image store is damaged: ") {
			t.Errorf("%s: notes %q", name, all)
		}
		if err := again.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestPrepareFails holds that nothing stays of a disk whose edit failed, and
// that the next one makes it.
func TestPrepareFails(t *testing.T) {
	s := newStore(t)
	b := mustObtain(t, s, file(t, "a.img", rawDisk(1<<20)), Want{})
	bad := errors.New("no root file system")
	_, err := s.Prepare(t.Context(), b, "v1", func(context.Context, string) ([]byte, error) { return nil, bad })
	var e *Error
	if !errors.Is(err, bad) || !errors.As(err, &e) || e.Op != "preparing" {
		t.Errorf("error %v", err)
	}
	stop := errors.New("stop requested")
	ctx, cancel := context.WithCancelCause(t.Context())
	_, err = s.Prepare(ctx, b, "v1", func(context.Context, string) ([]byte, error) {
		cancel(stop)
		return nil, nil // an edit that did not notice
	})
	if !errors.Is(err, stop) {
		t.Errorf("canceled: %v", err)
	}
	if left := s.entries(preparedDir); len(left) > 0 {
		t.Errorf("kept %q", left)
	}
	tidy(t, s)
	if p := mustPrepare(t, s, b, "v1", keep); p.Reused {
		t.Error("the failed one was kept")
	}
}

// TestPrepareOnce lets many prepare the same disk at the same time.
func TestPrepareOnce(t *testing.T) {
	const many = 4
	dir := filepath.Join(t.TempDir(), "store")
	path := file(t, "a.img", rawDisk(1<<20))
	waiting := make(chan struct{}, many)
	edits := 0
	var wg sync.WaitGroup
	for range many {
		wg.Add(1)
		go func() {
			defer wg.Done()
			s := &Store{Dir: dir, Progress: func(r Report) {
				if r.Step == StepWait {
					waiting <- struct{}{}
				}
			}}
			b, err := s.Obtain(t.Context(), mustParse(t, path), Want{})
			if err != nil {
				t.Error(err)
				return
			}
			p, err := s.Prepare(t.Context(), b, "v1", func(context.Context, string) ([]byte, error) {
				edits++ // the lock guards it
				for range many - 1 {
					<-waiting // until all others wait for us
				}
				return nil, nil
			})
			if err := errors.Join(err, p.Close()); err != nil {
				t.Error(err)
			}
		}()
	}
	wg.Wait()
	if edits != 1 {
		t.Errorf("%d edits", edits)
	}
}

func TestOverlay(t *testing.T) {
	needs(t, "qemu-img")
	s := newStore(t)
	b := mustObtain(t, s, file(t, "a.img", rawDisk(1<<20)), Want{})
	dir := t.TempDir()
	for size, want := range map[units.Bytes]string{0: "1 MiB", 8 * units.MiB: "8 MiB"} {
		path := filepath.Join(dir, want+".qcow2")
		if err := CreateOverlay(b, path, size); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command("qemu-img", "info", path).Output()
		if err != nil || !strings.Contains(string(out), "virtual size: "+want) || !strings.Contains(string(out), "backing file format: raw") {
			t.Errorf("size %s:\n%s%v", size, out, err)
		}
	}
	path := filepath.Join(dir, "small.qcow2")
	err := CreateOverlay(b, path, 512*units.KiB)
	if err == nil || !strings.Contains(err.Error(), "a disk of 1 MiB can't become one of 512 KiB; a disk can only grow") {
		t.Errorf("a smaller one: %v", err)
	}
	b.Path = filepath.Join(dir, "none")
	if err := CreateOverlay(b, path, 0); err == nil || !strings.Contains(err.Error(), "creating an overlay on") {
		t.Errorf("on nothing: %v", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left behind: %v", err)
	}
}
