package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/org/hurd-qemu-action/internal/units"
)

func TestCommitAndOpen(t *testing.T) {
	s, k := &Store{Dir: filepath.Join(t.TempDir(), "new", "store")}, testKey()
	if _, err := s.Open(t.Context(), k); !errors.Is(err, ErrMiss) {
		t.Fatalf("Open in a store that is not there: %v", err)
	}
	want := files(t, k)
	d := draft(t, s, want)
	if info, err := os.Stat(filepath.Dir(d.Path(RAM))); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("a draft is %v, %v", info.Mode(), err)
	}
	made, err := d.Commit(t.Context(), testManifest(k))
	if err != nil {
		t.Fatal(err)
	}
	same(t, made, want)
	for range 3 { // together
		e, err := s.Open(t.Context(), k)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = e.Close() }()
		same(t, e, want)
		if e.Name() != k.String() || e.Manifest.Login.Private != "PEM" || !e.Manifest.Created.Equal(testManifest(k).Created) {
			t.Errorf("%s: %+v", e.Name(), e.Manifest)
		}
		if err := e.VerifyStrongly(t.Context()); err != nil {
			t.Error(err)
		}
	}
	for _, name := range names {
		if info, err := os.Stat(made.Path(name)); err != nil || info.Mode().Perm() != 0o444 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	for _, dir := range []string{"", entriesDir, draftsDir} {
		if info, err := os.Stat(filepath.Join(s.Dir, dir)); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s/%s: %v, %v", s.Dir, dir, info.Mode(), err)
		}
	}
	if err := errors.Join(made.Close(), made.Close()); err != nil {
		t.Errorf("Close twice: %v", err)
	}
	if left := drafts(t, s); len(left) > 0 {
		t.Errorf("drafts are left: %v", left)
	}
}

func drafts(t testing.TB, s *Store) []string {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(s.Dir, draftsDir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	return left
}

// TestOpenForKVM holds which entry is taken when several would do.
func TestOpenForKVM(t *testing.T) {
	s := &Store{Dir: t.TempDir()}
	kvm := testKey()
	kvm.Accel = KVM
	commit(t, s, testKey())
	e, err := s.Open(t.Context(), kvm.Usable()...)
	if err != nil || e.Manifest.Key.Accel != TCG {
		t.Fatalf("with one of TCG only: %v", err)
	}
	_ = e.Close()
	_ = commit(t, s, kvm).Close()
	if e, err = s.Open(t.Context(), kvm.Usable()...); err != nil || e.Manifest.Key.Accel != KVM {
		t.Fatalf("with both: %v", err)
	}
	_ = e.Close()
	damage(t, filepath.Join(s.Dir, entriesDir, kvm.String(), RAM), 1<<20)
	if e, err = s.Open(t.Context(), kvm.Usable()...); err != nil || e.Manifest.Key.Accel != TCG {
		t.Fatalf("with a damaged one: %v", err)
	}
	_ = e.Close()
	if e, err := s.Open(t.Context(), testKey().Usable()[:0]...); !errors.Is(err, ErrMiss) || e != nil {
		t.Errorf("with no key: %v", err)
	}
}

// damage flips a bit of a file.
func damage(t testing.TB, path string, at int64) {
	t.Helper()
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x10
	if _, err := f.WriteAt(b[:], at); err != nil {
		t.Fatal(err)
	}
}

// TestDamaged damages each part of an entry in turn: it is never used, and is
// gone afterwards, so that the next run saves another one.
func TestDamaged(t *testing.T) {
	rewrite := func(old, new string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			path := filepath.Join(dir, manifestName)
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			changed := strings.Replace(string(data), old, new, 1)
			if changed == string(data) {
				t.Fatalf("no %q in the manifest", old)
			}
			if err := os.WriteFile(path, []byte(changed), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	cases := map[string]func(*testing.T, string){
		"manifest cut": func(t *testing.T, dir string) {
			if err := os.Truncate(filepath.Join(dir, manifestName), 100); err != nil {
				t.Fatal(err)
			}
		},
		"manifest huge": func(t *testing.T, dir string) {
			if err := os.Truncate(filepath.Join(dir, manifestName), 1<<40); err != nil {
				t.Fatal(err)
			}
		},
		"another QEMU":   rewrite("7.2.22", "7.2.21"),
		"another format": rewrite(`"format": 1`, `"format": 2`),
		"another sum":    rewrite(`"crc32c": "`, `"crc32c": "00`),
		"link": func(t *testing.T, dir string) {
			if err := errors.Join(os.Remove(filepath.Join(dir, State)), os.Symlink("/dev/zero", filepath.Join(dir, State))); err != nil {
				t.Fatal(err)
			}
		},
	}
	for _, name := range append(slices.Clone(names), manifestName, usedName) {
		cases[name+" missing"] = func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, name := range names {
		cases[name+" cut"] = func(t *testing.T, dir string) {
			if err := os.Truncate(filepath.Join(dir, name), 4096); err != nil {
				t.Fatal(err)
			}
		}
		for _, at := range []int64{0, 9000, 17999} {
			cases[fmt.Sprintf("%s changed at %d", name, at)] = func(t *testing.T, dir string) { damage(t, filepath.Join(dir, name), at) }
		}
	}
	cases["ram changed in a hole"] = func(t *testing.T, dir string) { damage(t, filepath.Join(dir, RAM), int64(testKey().Memory)-1) }
	for name, do := range cases {
		t.Run(name, func(t *testing.T) {
			s := &Store{Dir: t.TempDir()}
			_ = commit(t, s, testKey()).Close()
			do(t, filepath.Join(s.Dir, entriesDir, testKey().String()))
			e, err := s.Open(t.Context(), testKey())
			if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrIncompatible) {
				t.Fatalf("Open = %v, %v", e, err)
			}
			if !strings.Contains(err.Error(), testKey().String()) {
				t.Errorf("the error does not name the entry: %v", err)
			}
			if errors.Is(err, ErrDamaged) {
				if _, err := s.Open(t.Context(), testKey()); !errors.Is(err, ErrMiss) {
					t.Errorf("Open again: %v", err)
				}
			}
			_ = commit(t, s, testKey()).Close() // another one takes its place
			if e, err = s.Open(t.Context(), testKey()); err != nil {
				t.Fatal(err)
			}
			_ = e.Close()
		})
	}
}

func TestCommitRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(contents map[string][]byte, m *Manifest)
		says   string
	}{
		"no state":         {func(c map[string][]byte, _ *Manifest) { delete(c, State) }, "no such file"},
		"an empty state":   {func(c map[string][]byte, _ *Manifest) { c[State] = nil }, "state has a size of 0 bytes"},
		"half a memory":    {func(c map[string][]byte, _ *Manifest) { c[RAM] = c[RAM][1:] }, "ram has"},
		"no accelerator":   {func(_ map[string][]byte, m *Manifest) { m.Key.Accel = "" }, "accelerator"},
		"no qcow2":         {func(c map[string][]byte, _ *Manifest) { c[Disk][0]++ }, "no qcow2 image"},
		"a short overlay":  {func(c map[string][]byte, _ *Manifest) { c[Disk] = c[Disk][:50] }, "reading the header"},
		"an old version":   {func(c map[string][]byte, _ *Manifest) { c[Disk][qcow2Version+3] = 1 }, "no qcow2 image"},
		"another disk":     {func(c map[string][]byte, _ *Manifest) { c[Disk][qcow2Size+7]++ }, "the manifest says"},
		"a data file":      {func(c map[string][]byte, _ *Manifest) { c[Disk][qcow2Incompatible+7] = qcow2ExternalData }, "in another file"},
		"an encrypted one": {func(c map[string][]byte, _ *Manifest) { c[Disk][qcow2Crypt+3] = 1 }, "encrypted"},
	} {
		s, m := &Store{Dir: t.TempDir()}, testManifest(testKey())
		contents := files(t, m.Key)
		tc.change(contents, &m)
		if _, err := draft(t, s, contents).Commit(t.Context(), m); err == nil || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: %v, want %q", name, err, tc.says)
		}
		if all, err := s.List(); len(all) > 0 || err != nil || len(drafts(t, s)) > 0 {
			t.Errorf("%s: something is left: %v, %v", name, all, err)
		}
	}
	if _, err := (&Store{}).Begin(); err == nil || !strings.Contains(err.Error(), "cache-dir") {
		t.Errorf("a store without a directory: %v", err)
	}
}

// TestCommitTwice holds that the first of two that save the same machine wins,
// unless it is damaged.
func TestCommitTwice(t *testing.T) {
	s, k := &Store{Dir: t.TempDir()}, testKey()
	first := commit(t, s, k)
	m := testManifest(k)
	m.Action = "second"
	second, err := draft(t, s, files(t, k)).Commit(t.Context(), m)
	if err != nil || second.Manifest.Action != "1.0.0" {
		t.Fatalf("the second: %v", err)
	}
	_, _ = first.Close(), second.Close()
	damage(t, first.Path(State), 5)
	third, err := draft(t, s, files(t, k)).Commit(t.Context(), m)
	if err != nil || third.Manifest.Action != "second" {
		t.Fatalf("the third: %v", err)
	}
	_ = third.Close()
	if left := drafts(t, s); len(left) > 0 {
		t.Errorf("drafts are left: %v", left)
	}
}

// TestDrafts holds that a draft is swept when its maker is gone, and only then.
func TestDrafts(t *testing.T) {
	s := &Store{Dir: t.TempDir()}
	alive := draft(t, s, nil)
	dead := draft(t, s, map[string][]byte{State: []byte("half")})
	_ = dead.dir.Close() // as the kernel does
	third := draft(t, s, nil)
	if left := drafts(t, s); len(left) != 2 || slices.Contains(left, dead.path) {
		t.Errorf("left are %v", left)
	}
	f, err := alive.Create(RAM)
	if err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	alive.Discard()
	third.Discard()
	third.Discard()
	if left := drafts(t, s); len(left) != 0 {
		t.Errorf("left are %v", left)
	}
	if _, err := alive.Create(RAM); err == nil {
		t.Error("a discarded draft takes files")
	}
	if err := alive.Copy(t.Context(), RAM, f); err == nil {
		t.Error("a discarded draft takes copies")
	}
}

func TestDraftCopy(t *testing.T) {
	s, k := &Store{Dir: t.TempDir()}, testKey()
	want := files(t, k)
	d := draft(t, s, nil)
	for name, data := range want {
		if err := d.Copy(t.Context(), name, written(t, data, false)); err != nil {
			t.Fatal(err)
		}
	}
	e, err := d.Commit(t.Context(), testManifest(k))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = e.Close() }()
	same(t, e, want)
}

func TestEvict(t *testing.T) {
	s, k := &Store{Dir: t.TempDir()}, testKey()
	e := commit(t, s, k)
	other, err := s.Open(t.Context(), k)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Evict(e, "no SSH in 5 s"); err != nil {
		t.Fatal(err)
	}
	same(t, other, files(t, k)) // who uses it goes on
	_, err = s.Open(t.Context(), k)
	if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "no SSH in 5 s") {
		t.Errorf("Open of a marked one: %v", err)
	}
	_ = other.Close()
	if p, err := s.Prune(t.Context(), 0, 0); err != nil || len(p.Removed) != 1 {
		t.Errorf("Prune = %+v, %v", p, err)
	}
	e = commit(t, s, k)
	if err := s.Evict(e, "alone"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Open(t.Context(), k); !errors.Is(err, ErrMiss) {
		t.Errorf("Open of an evicted one: %v", err)
	}
	if err := s.Evict(e, "twice"); err != nil {
		t.Error(err)
	}
}

func TestListPruneRemove(t *testing.T) {
	now := time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)
	s := &Store{Dir: t.TempDir(), Now: func() time.Time { return now }}
	if all, err := s.List(); len(all) != 0 || err != nil {
		t.Fatalf("an empty store: %v, %v", all, err)
	}
	var keys []Key
	for i := range 4 {
		k := testKey()
		k.Layout = fmt.Sprint(i)
		keys = append(keys, k)
		_ = commit(t, s, k).Close()
		now = now.Add(time.Hour)
	}
	e, err := s.Open(t.Context(), keys[0]) // the oldest, now the last used
	if err != nil {
		t.Fatal(err)
	}
	all, err := s.List()
	if err != nil || len(all) != 4 || all[0].Name != keys[0].String() || !all[0].InUse || all[1].InUse || all[1].Name != keys[3].String() {
		t.Fatalf("List = %+v, %v", all, err)
	}
	data := all[0].Manifest.Data()
	if !all[0].Used.Equal(now) || all[0].Size < data || all[0].Size > data+64*units.KiB || all[0].Problem != "" {
		t.Errorf("%+v", all[0])
	}
	if err := s.Remove(keys[0].String()); !errors.Is(err, ErrInUse) {
		t.Errorf("Remove of one in use: %v", err)
	}
	for _, name := range []string{"nothing", "../" + keys[0].String(), Prefix + "-v1-none"} {
		if err := s.Remove(name); !errors.Is(err, ErrMiss) {
			t.Errorf("Remove(%q) = %v", name, err)
		}
	}
	// 1 was last used 3 hours ago, 2 two, 3 one.
	p, err := s.Prune(t.Context(), 150*time.Minute, 0)
	if err != nil || len(p.Removed) != 1 || p.Removed[0].Name != keys[1].String() || p.Freed != all[3].Size {
		t.Errorf("Prune by age = %+v, %v", p, err)
	}
	p, err = s.Prune(t.Context(), 0, 2*all[0].Size)
	if err != nil || len(p.Removed) != 1 || p.Removed[0].Name != keys[2].String() || p.Kept > 2*all[0].Size {
		t.Errorf("Prune by size = %+v, %v", p, err)
	}
	damage(t, filepath.Join(s.Dir, entriesDir, keys[3].String(), manifestName), 0)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Prune(ctx, 0, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("a canceled Prune: %v", err)
	}
	if p, err = s.Prune(t.Context(), 0, 1); err != nil || len(p.Removed) != 1 || p.Removed[0].Problem == "" {
		t.Errorf("Prune of what is damaged = %+v, %v", p, err)
	}
	_ = e.Close()
	if p, err = s.Prune(t.Context(), 0, 1); err != nil || len(p.Removed) != 1 || p.Kept != 0 {
		t.Errorf("Prune of the rest = %+v, %v", p, err)
	}
}

// TestPruneKeepsOtherVersions leaves alone what another version can still use.
func TestPruneKeepsOtherVersions(t *testing.T) {
	s := &Store{Dir: t.TempDir()}
	name := Prefix + "-v2-pc-tcg-00"
	dir := filepath.Join(s.Dir, entriesDir, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for file, data := range map[string]string{manifestName: `{"format": 2}`, usedName: ""} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if p, err := s.Prune(t.Context(), 0, 0); err != nil || len(p.Removed) != 0 {
		t.Errorf("Prune = %+v, %v", p, err)
	}
	if p, err := s.Prune(t.Context(), 0, 1); err != nil || len(p.Removed) != 1 {
		t.Errorf("Prune by size = %+v, %v", p, err)
	}
}

// TestAtOnce has many save, use, give up and prune the same entry.
func TestAtOnce(t *testing.T) {
	s, k := &Store{Dir: t.TempDir()}, testKey()
	want := files(t, k)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for range 8 {
				e, err := s.Open(t.Context(), k)
				if errors.Is(err, ErrMiss) || errors.Is(err, ErrDamaged) {
					if e, err = draft(t, s, want).Commit(t.Context(), testManifest(k)); errors.Is(err, ErrInUse) || errors.Is(err, ErrMiss) || errors.Is(err, ErrDamaged) {
						continue // another one was given up at this moment
					}
				}
				if err != nil {
					t.Error(err)
					return
				}
				if err := e.Verify(t.Context()); err != nil {
					t.Error(err)
				}
				if i == 0 {
					err = s.Evict(e, "a test")
				} else {
					err = e.Close()
				}
				if err != nil {
					t.Error(err)
				}
				if _, err := s.Prune(t.Context(), 0, 1); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// TestShareLockWaits holds that somebody who looks at an entry is waited for,
// and not for ever.
func TestShareLockWaits(t *testing.T) {
	s, k := &Store{Dir: t.TempDir()}, testKey()
	e := commit(t, s, k)
	path := e.Path(usedName)
	_ = e.Close()
	holder, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := tryFlock(holder, unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	stop := errors.New("stop requested")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(stop)
	if _, err := s.Find(ctx, k); !errors.Is(err, stop) {
		t.Errorf("a canceled Find = %v", err)
	}
	got := make(chan error)
	go func() {
		e, err := s.Find(t.Context(), k)
		if err == nil {
			err = e.Close()
		}
		got <- err
	}()
	select {
	case err := <-got:
		t.Errorf("Find did not wait: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	_ = holder.Close()
	if err := <-got; err != nil {
		t.Errorf("Find = %v", err)
	}
}
