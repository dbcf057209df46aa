package lifecycle

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	ociregistry "github.com/google/go-containerregistry/pkg/registry"

	"github.com/org/hurd-qemu-action/internal/image"
	"github.com/org/hurd-qemu-action/internal/registry"
	"github.com/org/hurd-qemu-action/internal/snapshot"
	"github.com/org/hurd-qemu-action/internal/units"
)

// TestPublishedTable holds that every published machine of the presets is named
// by a digest.
func TestPublishedTable(t *testing.T) {
	for _, err := range unpinned(image.Presets()) {
		t.Error(err)
	}
	// The table may be empty: that a mistake in it would be found is held here.
	const digest = "@sha256:0000000000000000000000000000000000000000000000000000000000000000"
	if got := unpinned([]image.Preset{{Snapshots: []string{"ghcr.io/o/n" + digest, "https://h.example/f" + digest}}}); len(got) > 0 {
		t.Error(got)
	}
	if got := unpinned([]image.Preset{{}, {Snapshots: []string{"ghcr.io/o/n:latest", "o/n" + digest, "ghcr.io/o/n@sha256:00"}}}); len(got) != 3 {
		t.Errorf("mistakes that were found: %v", got)
	}
}

// unpinned lists what is wrong with the published machines of presets.
func unpinned(presets []image.Preset) (problems []error) {
	for _, p := range presets {
		for _, text := range p.Snapshots {
			if _, err := parsePinned(text); err != nil {
				problems = append(problems, fmt.Errorf("%s: %w", p.File, err))
			}
		}
	}
	return problems
}

func TestPublished(t *testing.T) {
	r, _ := newRun()
	if got := r.published(); got != nil {
		t.Errorf("an image without a preset: %q", got)
	}
	r.config.SnapshotFrom, r.disk.base.Preset = "ghcr.io/o/n@sha256:00", &image.Preset{Snapshots: []string{"one"}}
	if diff := cmp.Diff([]string{"ghcr.io/o/n@sha256:00"}, r.published()); diff != "" {
		t.Error(diff)
	}
	r.config.SnapshotFrom = ""
	r.disk.base.Preset = &image.Preset{Snapshots: []string{"one", "two"}}
	if diff := cmp.Diff([]string{"one", "two"}, r.published()); diff != "" {
		t.Error(diff)
	}
	for text, says := range map[string]string{"": "", "ghcr.io/o/n:1": "it has no digest", "o/n": "not a published machine", "ghcr.io/o/n@sha256:" + strings.Repeat("0", 64): ""} {
		r.config.SnapshotFrom = text
		if err := r.checkPublished(); says == "" && err != nil || says != "" && (err == nil || !strings.Contains(err.Error(), "snapshot-from: ") || !strings.Contains(err.Error(), says)) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestContents holds that who publishes a machine is told what is in it.
func TestContents(t *testing.T) {
	m := &snapshot.Manifest{Key: smallKey(), Guest: json.RawMessage(`{"Uname":"GNU"}`)}
	facts, risks := Contents(m)
	if text := strings.Join(facts, "\n"); len(risks) > 0 || !strings.Contains(text, "GNU") || !strings.Contains(text, "1 MiB") {
		t.Errorf("%q, %q", facts, risks)
	}
	m.Key.Prepare, m.Guest = "00", json.RawMessage(`{"UserKey":true}`)
	if _, risks := Contents(m); len(risks) != 2 || !strings.Contains(risks[0], "prepare script") || !strings.Contains(risks[1], "ssh-private-key") {
		t.Errorf("%q", risks)
	}
	m.Guest = nil
	if _, risks := Contents(m); len(risks) != 2 || !strings.Contains(risks[0], "may hold anything") {
		t.Errorf("%q", risks)
	}
}

func smallKey() snapshot.Key {
	return snapshot.Key{QEMU: "7.2", Binary: "q", Machine: "pc", CPUModel: "qemu64", CPUs: 1, Memory: units.MiB, Disks: []units.Bytes{units.MiB}, Accel: snapshot.TCG}
}

// smallEntry is an entry that no QEMU could load.
func smallEntry(t *testing.T, s *snapshot.Store) *snapshot.Entry {
	t.Helper()
	e, err := smallDraft(t, s).Commit(t.Context(), smallManifest())
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func smallManifest() snapshot.Manifest {
	return snapshot.Manifest{
		Key: smallKey(), Created: time.Unix(1e9, 0), Login: snapshot.Login{Private: "SECRET"}, Guest: json.RawMessage(`{"Uname":"GNU"}`),
	}
}

func smallDraft(t *testing.T, s *snapshot.Store) *snapshot.Draft {
	t.Helper()
	d, err := s.Begin()
	if err != nil {
		t.Fatal(err)
	}
	header := make([]byte, 512)
	copy(header, "QFI\xfb")
	binary.BigEndian.PutUint32(header[4:], 3)
	binary.BigEndian.PutUint64(header[24:], uint64(units.MiB))
	for name, data := range map[string][]byte{
		snapshot.State: []byte("state"), snapshot.RAM: append([]byte("memory"), make([]byte, units.MiB-6)...), snapshot.Disk: header,
	} {
		f, err := d.Create(name)
		if err == nil {
			_, err = f.Write(data)
		}
		if err == nil {
			err = f.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return d
}

// TestPullPublished has a preset with several published machines, of which some
// can't be had or do not fit: the first one that can be used is.
func TestPullPublished(t *testing.T) {
	server := httptest.NewServer(ociregistry.New(ociregistry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	ref, err := registry.Parse(host + "/a/b:1")
	if err != nil {
		t.Fatal(err)
	}
	entry := smallEntry(t, &snapshot.Store{Dir: t.TempDir()})
	defer func() { _ = entry.Close() }() // it was only read
	pinned, err := Push{Client: &registry.Client{}, Temp: t.TempDir()}.Do(t.Context(), entry, ref)
	if err != nil {
		t.Fatal(err)
	}
	good, gone := pinned.String(), host+"/gone@sha256:"+strings.Repeat("0", 64)
	other := smallKey()
	other.Memory = 2 * units.MiB
	for _, tc := range []struct {
		name   string
		list   []string
		wanted snapshot.Key
		says   string // in the error; empty: there is one
		log    string
	}{
		{"the first", []string{good, gone}, smallKey(), "", ""},
		{"the second", []string{gone, good}, smallKey(), "", "Passed over: looking at " + host + "/gone"},
		{"a mistake in the table", []string{host + "/a/b:1", good}, smallKey(), "", "it has no digest"},
		{"none can be had", []string{gone, gone}, smallKey(), "404 Not Found", ""},
		{"one can't be had, one does not fit", []string{gone, good}, other, "404 Not Found", "its memory is"},
		{"none fits", []string{good}, other, snapshot.ErrMiss.Error(), "its memory is"},
		{"none", nil, smallKey(), snapshot.ErrMiss.Error(), ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, log := newRun()
			r.warm.store, r.warm.key = &snapshot.Store{Dir: filepath.Join(t.TempDir(), "store")}, tc.wanted
			r.config.SnapshotMaxSize, r.disk.base.Preset = units.GiB, &image.Preset{Snapshots: tc.list}
			got, err := r.pullPublished(t.Context())
			if err == nil {
				defer func() { _ = got.Close() }() // it was only looked at
			}
			if tc.says == "" && err != nil || tc.says != "" && (err == nil || !strings.Contains(err.Error(), tc.says)) || !strings.Contains(log.String(), tc.log) {
				t.Errorf("error %v, want %q; log %q, want %q", err, tc.says, log, tc.log)
			}
		})
	}
}

// TestPushAndPull brings an entry from one store through a registry into others.
func TestPushAndPull(t *testing.T) {
	blobs := 0
	open := ociregistry.New(ociregistry.Logger(log.New(io.Discard, "", 0)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
			blobs++
		}
		open.ServeHTTP(w, r)
	}))
	defer server.Close()
	ref, err := registry.Parse(strings.TrimPrefix(server.URL, "http://") + "/a/b:1")
	if err != nil {
		t.Fatal(err)
	}
	var reports []image.Report
	progress := func(r image.Report) { reports = append(reports, r) }
	entry := smallEntry(t, &snapshot.Store{Dir: t.TempDir()})
	defer func() { _ = entry.Close() }() // it was only read
	temp := t.TempDir()
	pinned, err := Push{Client: &registry.Client{}, Temp: temp, Progress: progress}.Do(t.Context(), entry, ref)
	if err != nil || pinned.Digest == "" {
		t.Fatal(pinned, err)
	}
	if left, err := filepath.Glob(temp + "/*"); err != nil || len(left) > 0 || len(reports) == 0 || reports[0].Step != image.StepSend {
		t.Errorf("left %q, %v; reports %v", left, err, reports)
	}
	other := smallKey()
	other.Memory = 2 * units.MiB
	kvm := smallKey()
	kvm.Accel = snapshot.KVM
	for _, tc := range []struct {
		name      string
		admission snapshot.Admission
		err       error
		fetched   int
	}{
		{"no run", snapshot.Admission{}, nil, 1},
		{"a run of the same machine", snapshot.Admission{Wanted: smallKey().Usable()}, nil, 1},
		{"a run with KVM", snapshot.Admission{Wanted: kvm.Usable()}, nil, 1},
		{"a run of another machine", snapshot.Admission{Wanted: other.Usable()}, snapshot.ErrIncompatible, 0},
		{"a run that wants it small", snapshot.Admission{Wanted: smallKey().Usable(), MaxData: 1}, registry.ErrSize, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			store := &snapshot.Store{Dir: filepath.Join(t.TempDir(), "store")}
			p := Pull{Store: store, Client: &registry.Client{}, Admission: tc.admission, Progress: progress}
			blobs = 0
			pulled, err := p.Do(t.Context(), pinned)
			if !errors.Is(err, tc.err) || blobs != tc.fetched {
				t.Fatalf("error %v, want %v; %d fetched", err, tc.err, blobs)
			}
			if left, err := filepath.Glob(filepath.Join(store.Dir, "parts", "*")); err != nil || len(left) > 0 {
				t.Errorf("left: %q, %v", left, err)
			}
			if err != nil {
				return
			}
			defer func() { _ = pulled.Entry.Close() }() // it was only read
			if pulled.Entry.Manifest.Login.Private != "SECRET" || pulled.Reference.String() != pinned.String() || pulled.Size == 0 {
				t.Errorf("pulled %+v", pulled)
			}
			again, err := p.Do(t.Context(), pinned)
			if err != nil || tc.admission.Wanted != nil && blobs != 1 {
				t.Fatalf("%v; fetched %d times", err, blobs)
			}
			_ = again.Entry.Close() // as above
		})
	}
}
