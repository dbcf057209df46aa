package snapshot

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/org/hurd-qemu-action/internal/units"
)

// TestPart has the place of something that is fetched pass from one to another.
func TestPart(t *testing.T) {
	now := time.Now()
	s := &Store{Dir: filepath.Join(t.TempDir(), "store"), Now: func() time.Time { return now }}
	first, err := s.Part(t.Context(), "00ff")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(first.Path(), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	busy, cancel := context.WithTimeout(t.Context(), 2*partEvery)
	defer cancel()
	if _, err := s.Part(busy, "00ff"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("two have it: %v", err)
	}
	prune := func(want bool) {
		t.Helper()
		if _, err := s.Prune(t.Context(), 0, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(first.Path()); (err == nil) != want {
			t.Errorf("after Prune: %v", err)
		}
	}
	now = now.Add(2 * partTime)
	prune(true) // somebody is at work
	taken := make(chan *Part)
	go func() {
		p, err := s.Part(t.Context(), "00ff")
		if err != nil {
			t.Error(err)
		}
		taken <- p
	}()
	first.Close()
	second := <-taken
	f, err := second.Open()
	if err != nil {
		t.Fatal(err) // what the first one has received is still there
	}
	_ = f.Close() // it was only opened
	second.Close()
	now = now.Add(-2 * partTime)
	prune(true) // not long ago
	now = now.Add(2 * partTime)
	prune(false)
	third, err := s.Part(t.Context(), "00ff")
	if err != nil {
		t.Fatal(err)
	}
	if err := third.Remove(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Dir(first.Path())); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("left: %v", err)
	}
	for _, digest := range []string{"", "../x", "a/b"} {
		if _, err := s.Part(t.Context(), digest); err == nil {
			t.Errorf("%q is the name of a place", digest)
		}
	}
}

// TestFacts holds that what is published of an entry tells its key, and not how
// to log in.
func TestFacts(t *testing.T) {
	m := testManifest(testKey())
	m.Files = []File{{Name: State, Data: units.MiB}}
	facts, err := m.Facts()
	if err != nil {
		t.Fatal(err)
	}
	key, err := FactsKey(facts)
	if diff := cmp.Diff(testKey(), key); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	for name, value := range facts {
		if strings.Contains(value, m.Login.Private) || strings.Contains(value, "AAAA") {
			t.Errorf("%s tells the login: %s", name, value)
		}
	}
	if facts["org.opencontainers.image.created"] != "2026-11-24T18:00:00Z" {
		t.Errorf("facts %v", facts) // else each push had another digest
	}
	for _, text := range []string{"", "{", "[]", `{"qemu":"7.2.22","unknown":1}`, `{"` + strings.Repeat("x", 60_000) + `":1}`} {
		if _, err := FactsKey(map[string]string{annotationKey: text}); !errors.Is(err, ErrIncompatible) || len(err.Error()) > 500 {
			t.Errorf("%.100q: %.1000v", text, err)
		}
	}
	// Saved under TCG it fits a run with KVM, and not the other way round.
	kvm := testKey()
	kvm.Accel = KVM
	if err := Fits(testKey(), kvm.Usable()); err != nil {
		t.Error(err)
	}
	if err := Fits(kvm, testKey().Usable()); !errors.Is(err, ErrIncompatible) || !strings.Contains(err.Error(), "accelerator") {
		t.Errorf("saved under KVM: %v", err)
	}
}

// TestReserve holds that what does not fit is refused.
func TestReserve(t *testing.T) {
	s := &Store{Dir: filepath.Join(t.TempDir(), "store")}
	if err := s.Reserve(1); err != nil {
		t.Error(err)
	}
	if err := s.Reserve(1 << 60); !errors.Is(err, ErrSize) {
		t.Errorf("error %v", err)
	}
}
