package lifecycle

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/org/hurd-qemu-action/internal/image"
	"github.com/org/hurd-qemu-action/internal/provision"
	"github.com/org/hurd-qemu-action/internal/qemu"
	"github.com/org/hurd-qemu-action/internal/results/servicetest"
	"github.com/org/hurd-qemu-action/internal/units"
)

// imageSite is an image with a hash, and who asks for it.
type imageSite struct {
	*httptest.Server
	raw   []byte
	asked atomic.Int64
}

func publishImage(t *testing.T) *imageSite {
	p := &imageSite{raw: make([]byte, 3<<20)}
	copy(p.raw[512:], "the first sector")
	copy(p.raw[2<<20:], "another piece")
	p.raw[510], p.raw[511] = 0x55, 0xaa
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.asked.Add(1)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(p.raw))
	}))
	t.Cleanup(p.Close)
	return p
}

// run is a run of the image in a job whose store is empty.
func (p *imageSite) run(t *testing.T, w *servicetest.World, env ...string) (*run, *strings.Builder, *time.Duration) {
	t.Helper()
	r, log, waited := cacheRun(t, w, env...)
	r.Host.Cache, r.config.ImageCache, r.features = t.TempDir(), "auto", &qemu.Features{}
	sum := sha256.Sum256(p.raw)
	r.config.Image, r.config.ImageSHA256 = p.URL+"/disk.img", hex.EncodeToString(sum[:])
	var err error
	if r.source, err = image.ParseSource(r.config.Image); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.cleanup.run(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return r, log, waited
}

// prepared has the run prepare the image, as makeDisk does for one with a system
// in it, and claims that the disk has a digest; "" is the right one.
func (p *imageSite) prepared(t *testing.T, r *run, digest string) {
	t.Helper()
	store := NewStore(r.storeDir(), nil)
	var err error
	if r.remote.identity, r.remote.known, err = store.Identify(t.Context(), r.source, r.want()); err != nil || !r.remote.known {
		t.Fatal(err)
	}
	base, err := store.Obtain(t.Context(), r.source, r.want())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = base.Close() }() // the prepared disk is used
	prepared, err := store.Prepare(t.Context(), base, r.prepareKey(), func(ctx context.Context, raw string) ([]byte, error) {
		m := manifest{Method: provision.MethodExt2, Prepared: &provision.Prepared{Version: provision.Version}, Content: digest}
		if digest == "" {
			var err error
			if m.Content, err = image.DigestOf(ctx, raw); err != nil {
				return nil, err
			}
		}
		return json.Marshal(m)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.useDisk(prepared); err != nil {
		t.Fatal(err)
	}
}

// shares waits until the run's disk is in the cache, or is not.
func shares(t *testing.T, r *run) {
	t.Helper()
	r.shareDisk(t.Context())
	r.awaitDisk(t.Context())
}

// find looks for the disk.
func find(t *testing.T, r *run) bool {
	t.Helper()
	_, ok, err := r.findDisk(t.Context(), NewStore(r.storeDir(), nil))
	if err != nil {
		t.Fatal(err)
	}
	return ok
}

func entries(w *servicetest.World) int {
	w.Mu.Lock()
	defer w.Mu.Unlock()
	return len(w.Entries)
}

// TestDiskFromCache has one job put its disk into the cache, and others run from
// it: the image is asked for once.
func TestDiskFromCache(t *testing.T) {
	w, p := servicetest.New(t), publishImage(t)
	first, log, _ := p.run(t, w)
	if find(t, first) {
		t.Error("an empty cache has it")
	}
	p.prepared(t, first, "")
	shares(t, first)
	if !strings.Contains(log.String(), "put into the cache in") || entries(w) != 1 {
		t.Fatalf("%d entries\n%s", entries(w), log)
	}
	shares(t, first) // another run with that store
	asked := p.asked.Load()
	second, log, _ := p.run(t, w)
	if !find(t, second) || second.remote.disk == nil || second.disk.base.VirtualSize != 3*units.MiB || second.disk.manifest.Content != first.disk.manifest.Content {
		t.Fatalf("it is not found\n%s", log)
	}
	if second.result.ImageDigest != first.result.ImageDigest || second.baseImage().Connect == nil || second.snapshotKey().Base != first.snapshotKey().Base || second.layout() != first.layout() {
		t.Error("it is not the same disk")
	}
	shares(t, second)
	second.remote.fill()
	if err := second.cleanup.run(t.Context()); err != nil {
		t.Error(err)
	}
	if entries(w) != 1 || p.asked.Load() != asked {
		t.Errorf("%d entries, and the image was asked for %d times more", entries(w), p.asked.Load()-asked)
	}
	w.Clean(log.String())
	off, _, _ := p.run(t, w)
	if off.config.ImageCache = "off"; find(t, off) {
		t.Error("it is found although it is not to be")
	}
}

// TestDiskNotFromCache has caches that do not work, or have something else: it
// costs little, is said, and what is damaged is replaced.
func TestDiskNotFromCache(t *testing.T) {
	for name, tc := range map[string]struct {
		spoil   func(w *servicetest.World, b *servicetest.Blob)
		env     string
		digest  string
		says    string
		replace bool
	}{
		"broken": {spoil: func(w *servicetest.World, _ *servicetest.Blob) {
			w.Fail("GetCacheEntryDownloadURL", several(cacheTries, brokenCache)...)
		}, says: "::The disk in the cache can't be used"},
		"no answer": {spoil: func(w *servicetest.World, _ *servicetest.Blob) {
			w.Fail("get", several(cacheTries, servicetest.Hang)...)
		}, says: "can't be used"},
		"no ranges": {spoil: func(w *servicetest.World, _ *servicetest.Blob) {
			w.Fail("get", servicetest.Status(http.StatusOK, "all of it"))
		}, says: "Cache: "},
		"write-only": {env: "ACTIONS_CACHE_MODE=write-only", says: "Cache: "},
		"cut":        {spoil: func(_ *servicetest.World, b *servicetest.Blob) { b.Data = b.Data[:len(b.Data)-1] }, says: "damaged", replace: true},
		"index":      {spoil: func(_ *servicetest.World, b *servicetest.Blob) { b.Data = spoilt(b.Data, 40) }, says: "damaged", replace: true},
		"another one": {spoil: func(_ *servicetest.World, b *servicetest.Blob) {
			b.Data = []byte("something else, and long enough for it")
		}, says: "not a packed disk", replace: true},
		"contents": {digest: strings.Repeat("0", 64), says: "the packed disk is that of another image", replace: true},
	} {
		t.Run(name, func(t *testing.T) {
			w, p := servicetest.New(t), publishImage(t)
			first, log, _ := p.run(t, w)
			p.prepared(t, first, tc.digest)
			if shares(t, first); entries(w) != 1 {
				t.Fatalf("%d entries\n%s", entries(w), log)
			}
			if tc.spoil != nil {
				for _, b := range w.Entries {
					tc.spoil(w, b)
				}
			}
			r, log, waited := p.run(t, w, tc.env)
			if find(t, r) || !strings.Contains(log.String(), strings.TrimPrefix(tc.says, "::")) || *waited > mostWaited || r.remote.spoiled != tc.replace {
				t.Errorf("spoiled %t, after %s\n%s", r.remote.spoiled, *waited, log)
			}
			w.Clean(log.String())
			if left, err := filepath.Glob(filepath.Join(r.storeDir(), "tmp", "*")); err != nil || len(left) > 0 {
				t.Errorf("left %v, %v", left, err)
			}
			p.prepared(t, r, "")
			shares(t, r)
			want := 1
			if tc.replace {
				want = 2
			}
			if entries(w) != want {
				t.Errorf("%d entries, want %d\n%s", entries(w), want, log)
			}
			if last, log, _ := p.run(t, w); tc.replace && !find(t, last) {
				t.Errorf("what has replaced it is not found\n%s", log)
			}
		})
	}
}

func spoilt(data []byte, at int) []byte {
	data = bytes.Clone(data)
	data[at] ^= 1
	return data
}

// damagedDisk gives a run whose disk is in the cache, where a piece of it was
// damaged after it was opened, and the run that has put it there.
func (p *imageSite) damagedDisk(t *testing.T, w *servicetest.World) (r, first *run, log *strings.Builder) {
	t.Helper()
	first, _, _ = p.run(t, w)
	p.prepared(t, first, "")
	shares(t, first)
	r, log, _ = p.run(t, w)
	if !find(t, r) {
		t.Fatalf("it is not found\n%s", log)
	}
	for _, b := range w.Entries {
		b.Data = spoilt(b.Data, len(b.Data)-5)
	}
	return r, first, log
}

// markers are the entries of a cache that say that there is none.
func markers(w *servicetest.World) (n int) {
	w.Mu.Lock()
	defer w.Mu.Unlock()
	for id := range w.Entries {
		if isRetired(id) {
			n++
		}
	}
	return n
}

// TestDiskIsRetired has a disk fail while a guest runs from it.
func TestDiskIsRetired(t *testing.T) {
	w, p := servicetest.New(t), publishImage(t)
	r, first, log := p.damagedDisk(t, w)
	err := served{r.remote.disk, &r.remote}.ReadAt(t.Context(), make([]byte, 10), 2<<20)
	if !errors.Is(err, image.ErrPacked) || !r.remote.isDamaged() || r.remote.broken() == nil {
		t.Errorf("reading a damaged piece: %v", err)
	}
	r.retireDisk(t.Context())
	r.retireDisk(t.Context()) // the second time it is done
	if entries(w) != 2 || markers(w) != 1 || !strings.Contains(log.String(), "is damaged; a later run makes another one") {
		t.Errorf("%d entries\n%s", entries(w), log)
	}
	next, log, _ := p.run(t, w)
	if find(t, next) || !next.remote.spoiled || !strings.Contains(log.String(), "was found to be damaged, and is replaced") {
		t.Errorf("it is found again\n%s", log)
	}
	if next.retireDisk(t.Context()); entries(w) != 2 {
		t.Error("what is retired is retired once more")
	}
	shares(t, first) // a run that has the disk, and needs no cache
	if first.retireDisk(t.Context()); entries(w) != 3 || markers(w) != 1 {
		t.Errorf("%d entries: what is retired is not replaced", entries(w))
	}
	if last, log, _ := p.run(t, w); !find(t, last) || last.remote.disk == nil {
		t.Errorf("what has replaced it is not found\n%s", log)
	}
}

// TestReplacedDiskIsRetired has runs that went on from the image where it is
// published, as what the cache has is damaged: it is not found a second time,
// whatever became of what was to replace it.
func TestReplacedDiskIsRetired(t *testing.T) {
	for name, tc := range map[string]struct {
		share   func(t *testing.T, w *servicetest.World, r *run)
		markers int
	}{
		"replaced":    {share: func(t *testing.T, _ *servicetest.World, r *run) { shares(t, r) }},
		"not reached": {share: func(*testing.T, *servicetest.World, *run) {}, markers: 1},
		"too large": {share: func(t *testing.T, _ *servicetest.World, r *run) {
			r.config.SnapshotMaxSize = 100
			shares(t, r)
		}, markers: 1},
		"not taken": {share: func(t *testing.T, w *servicetest.World, r *run) {
			w.Fail("CreateCacheEntry", several(cacheTries, brokenCache)...)
			shares(t, r)
		}, markers: 1},
	} {
		t.Run(name, func(t *testing.T) {
			w, p := servicetest.New(t), publishImage(t)
			r, _, log := p.damagedDisk(t, w)
			r.remote.fault(served{r.remote.disk, &r.remote}.ReadAt(t.Context(), make([]byte, 10), 2<<20))
			d := &r.remote
			if err := d.close(); err != nil {
				t.Fatal(err)
			}
			d.disk, d.err, d.spoiled = nil, nil, d.damaged // as replaceRemote
			p.prepared(t, r, "")
			tc.share(t, w, r)
			r.retireDisk(t.Context())
			if got := markers(w); got != tc.markers || entries(w) != 2 {
				t.Errorf("%d markers in %d entries\n%s", got, entries(w), log)
			}
		})
	}
}

// TestExportMeetsDamage exports a disk of which a piece in the cache is damaged:
// the entry is at fault, and not the host's space.
func TestExportMeetsDamage(t *testing.T) {
	w, p := servicetest.New(t), publishImage(t)
	r, _, log := p.damagedDisk(t, w)
	_, err := r.writeImage(t.Context())
	var e *Error
	if !errors.As(exportFailure(err, "/tmp"), &e) || e.Kind != Service || e.Title != "The guest's disk cannot be read from the cache" ||
		!strings.Contains(strings.Join(e.Advice, " "), "delete the entry "+r.remote.key) || !errors.Is(e, image.ErrPacked) {
		t.Errorf("%+v", e)
	}
	if r.retireDisk(t.Context()); markers(w) != 1 {
		t.Errorf("the entry is not retired\n%s", log)
	}
	if !errors.As(exportFailure(unix.ENOSPC, "/tmp"), &e) || !strings.Contains(strings.Join(e.Advice, " "), "/tmp have space") {
		t.Errorf("%+v", e)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(Interrupt{})
	if _, err := r.writeImage(ctx); !errors.As(err, new(Interrupt)) {
		t.Errorf("an export that is canceled: %v", err)
	}
}
