package image

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/org/hurd-qemu-action/internal/image/disk"
	"github.com/org/hurd-qemu-action/internal/units"
)

// stocked is a store with an image and two disks prepared from it, used at
// noon of three days in this order; all uses have ended.
func stocked(t *testing.T) *Store {
	t.Helper()
	s := newStore(t)
	s.Embedded = embedded(rawDisk(1 << 20))
	day := 0
	s.Now = func() time.Time { return time.Date(2026, 3, 20+day, 12, 0, 0, 0, time.UTC) }
	b, err := s.Obtain(t.Context(), mustParse(t, "selftest"), Want{})
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"v1", "v2"} {
		day++
		p, err := s.Prepare(t.Context(), b, key, keep)
		if err := errors.Join(err, p.Close()); err != nil {
			t.Fatal(err)
		}
		// The time of making is the real one; that of a use is the clock's.
		if p, err = s.Prepare(t.Context(), b, key, keep); err != nil {
			t.Fatal(err)
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	day = 0
	if b, err = s.Obtain(t.Context(), mustParse(t, "selftest"), Want{}); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	day = 10
	return s
}

func listed(t *testing.T, s *Store) []Entry {
	t.Helper()
	all, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestList(t *testing.T) {
	if all := listed(t, newStore(t)); len(all) != 0 {
		t.Errorf("an empty store lists %+v", all)
	}
	s := stocked(t)
	all := listed(t, s)
	if len(all) != 3 {
		t.Fatalf("list = %+v", all)
	}
	for i, want := range []string{EntryPrepared, EntryPrepared, EntryImage} {
		e := all[i]
		if e.Type != want || e.Origin != "selftest" || e.VirtualSize != units.MiB || e.InUse || e.Problem != "" || e.Digest != all[0].Digest ||
			e.Size < 8*units.KiB || e.Size > 64*units.KiB || e.Used.Day() != 22-i {
			t.Errorf("%d: %+v", i, e)
		}
	}
	b := mustObtain(t, s, "selftest", Want{})
	for _, e := range listed(t, s) {
		if e.InUse != (e.Type == EntryImage) {
			t.Errorf("while the image is in use: %+v", e)
		}
		if err := s.Remove(e); e.Type == EntryImage && (!errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "removing selftest: in use by another run")) {
			t.Errorf("removing it: %v", err)
		}
	}
	if _, err := os.Stat(b.Path); err != nil {
		t.Error(err)
	}
}

func TestFindAndRemove(t *testing.T) {
	s := stocked(t)
	image := listed(t, s)[2]
	for _, text := range []string{image.Name[:8], "sha256:" + image.Name[:8], "selftest"} {
		if found, err := s.Find(text); err != nil || len(found) == 0 {
			t.Errorf("Find(%q) = %+v, %v", text, found, err)
		}
	}
	for _, text := range []string{"", "none"} {
		if found, err := s.Find(text); !errors.Is(err, ErrNoEntry) {
			t.Errorf("Find(%q) = %+v, %v", text, found, err)
		}
	}
	if err := s.Remove(image); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(image); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("removing it twice: %v", err)
	}
	if b := mustObtain(t, s, "selftest", Want{}); b.Reused {
		t.Error("the removed image was reused")
	}
}

// TestDamage changes disks behind the store's back.
func TestDamage(t *testing.T) {
	s := stocked(t)
	for _, e := range listed(t, s) {
		if err := s.Verify(t.Context(), e); err != nil {
			t.Errorf("%s: %v", e.Type, err)
		}
	}
	image := listed(t, s)[2]
	path := s.disk(imagesDir, image.Name, Raw)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	// First as a failing disk does, without a trace but in the contents.
	flip(t, path)
	if err := os.Chtimes(path, info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(t.Context(), image); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "are not those that were written") ||
		!strings.Contains(err.Error(), "image rm") {
		t.Errorf("flipped: %v", err)
	}
	// Then as a user does.
	flip(t, path)
	if err := os.Chtimes(path, info.ModTime(), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(t.Context(), image); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "was changed after it was made") {
		t.Errorf("written to: %v", err)
	}
	if e := listed(t, s)[2]; !strings.Contains(e.Problem, "the image store is damaged") {
		t.Errorf("listed as %+v", e)
	}
	if b := mustObtain(t, s, "selftest", Want{}); b.Reused {
		t.Error("the damaged image was used")
	}
	if e := listed(t, s)[0]; e.Problem != "" {
		t.Errorf("after it was made anew: %+v", e)
	}
}

func flip(t *testing.T, path string) {
	t.Helper()
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[600] ^= 1
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestPrune(t *testing.T) {
	const week = 7 * 24 * time.Hour
	for _, tc := range []struct {
		name    string
		unused  time.Duration
		size    func(all []Entry) units.Bytes
		inUse   bool // the image
		removed int
	}{
		{"nothing", 0, nil, false, 0},
		{"young enough", 11 * 24 * time.Hour, nil, false, 0},
		{"the oldest", 9*24*time.Hour + time.Hour, nil, false, 1},
		{"all", week, nil, false, 3},
		{"all but what is in use", week, nil, true, 2},
		{"one is too much", 0, func(all []Entry) units.Bytes { return all[0].Size + all[1].Size }, false, 1},
		{"two are too much", 0, func(all []Entry) units.Bytes { return all[0].Size }, false, 2},
		{"two are too much, one in use", 0, func(all []Entry) units.Bytes { return all[0].Size }, true, 2},
		{"room enough", 0, func([]Entry) units.Bytes { return units.GiB }, false, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := stocked(t)
			all := listed(t, s)
			var size units.Bytes
			if tc.size != nil {
				size = tc.size(all)
			}
			if tc.inUse {
				now := s.Now
				s.Now = func() time.Time { return time.Date(2026, 3, 20, 12, 0, 0, 0, time.UTC) }
				mustObtain(t, s, "selftest", Want{})
				s.Now = now
			}
			p, err := s.Prune(t.Context(), tc.unused, size)
			if err != nil || len(p.Removed) != tc.removed {
				t.Fatalf("removed %+v, %v; want %d", p.Removed, err, tc.removed)
			}
			var freed units.Bytes
			for i, e := range p.Removed {
				freed += e.Size
				if want := all[len(all)-1-i-btoi(tc.inUse)]; e.Name != want.Name {
					t.Errorf("removed %s, want the least recently used %s", e.Name, want.Name)
				}
			}
			if left := listed(t, s); p.Freed != freed || len(left) != 3-tc.removed {
				t.Errorf("freed %s of %s, left %+v", p.Freed, freed, left)
			}
		})
	}
}

// TestPruneDownloads removes what is left of a download, and forgets locks and
// hashes of local files, but not pins.
func TestPruneDownloads(t *testing.T) {
	s := newStore(t)
	s.Now = func() time.Time { return time.Now().Add(48 * time.Hour) }
	write := func(name, data string) {
		path := filepath.Join(s.Dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(data), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	write("downloads/abc", "half a file")
	write("downloads/abc.json", "{}")
	write("pins/def.json", `{"File":"a.img","SHA256":"`+sha(nil)+`","List":"https://example.org/SHA256SUMS"}`)
	write("pins/bad.json", `{}`)
	write("local/x.json", "{}")
	write("locks/images-x", "")
	all := listed(t, s)
	if len(all) != 3 {
		t.Fatalf("list = %+v", all)
	}
	p, err := s.Prune(t.Context(), 24*time.Hour, 0)
	if err != nil || len(p.Removed) != 1 || p.Removed[0].Type != EntryDownload {
		t.Errorf("removed %+v, %v", p.Removed, err)
	}
	if left := append(s.entries(localDir), s.entries(locksDir)...); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
	for _, e := range listed(t, s) {
		if e.Type != EntryPin || (e.Problem == "") != (e.Name == "def") {
			t.Errorf("%+v", e)
		}
		if err := errors.Join(s.Verify(t.Context(), e), s.Remove(e)); err != nil {
			t.Error(err)
		}
	}
	if all := listed(t, s); len(all) != 0 {
		t.Errorf("left: %+v", all)
	}
}

// TestStoreErrors holds what is said when the store is no store.
func TestStoreErrors(t *testing.T) {
	s := newStore(t)
	s.Embedded = embedded(rawDisk(1 << 20))
	s.Dir = file(t, "file", nil)
	if _, err := s.Obtain(t.Context(), mustParse(t, "selftest"), Want{}); err == nil || !strings.Contains(err.Error(), "writing to the image store: mkdir "+s.Dir) {
		t.Errorf("a file: %v", err)
	}
	s.Dir = ""
	if _, err := s.Obtain(t.Context(), mustParse(t, "selftest"), Want{}); err == nil || !strings.Contains(err.Error(), "has no directory: set cache-dir") {
		t.Errorf("none: %v", err)
	}
}

// TestErrorsAndReports pins the texts that people read.
func TestErrorsAndReports(t *testing.T) {
	e := &Error{Op: "obtaining", Source: "x", Err: disk.ErrNotDisk, Hint: "do that"}
	if e.Error() != "obtaining x: not a disk image; do that" || !errors.Is(e, disk.ErrNotDisk) {
		t.Errorf("%v", e)
	}
	for _, tc := range []struct {
		r    Report
		want string
	}{
		{Report{Step: StepWait, Source: "x", Note: "patience"}, "waiting x: patience"},
		{Report{Step: StepFetch, Source: "x", Done: 512}, "fetching x: 512 B"},
		{Report{Step: StepFetch, Source: "x", Done: 88 * units.MiB, Total: 354 * units.MiB, Rate: 3 * units.MiB, Left: 88_600 * time.Millisecond},
			"fetching x: 88 MiB of 354 MiB (24 %), 3 MiB/s, 1m29s left"},
	} {
		if got := tc.r.String(); got != tc.want {
			t.Errorf("%q, want %q", got, tc.want)
		}
	}
	if got := (Verification{How: Nothing}).String(); got != "none" {
		t.Errorf("%q", got)
	}
}
