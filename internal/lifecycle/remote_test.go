package lifecycle

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/org/hurd-qemu-action/internal/actions"
	"github.com/org/hurd-qemu-action/internal/config"
	"github.com/org/hurd-qemu-action/internal/image"
	"github.com/org/hurd-qemu-action/internal/qemu"
	"github.com/org/hurd-qemu-action/internal/units"
)

// identified is a run of an image whose hash is known.
func identified(t *testing.T, sum string) *run {
	t.Helper()
	src, err := image.ParseSource("https://example.org/disk.img")
	if err != nil {
		t.Fatal(err)
	}
	r := makeRun(Request{Log: actions.New(actions.Options{Stdout: &bytes.Buffer{}, Stderr: &bytes.Buffer{}})})
	r.config = config.Config{ImageCache: "auto", SSHUser: "root", Provision: "auto"}
	store := &image.Store{Dir: t.TempDir()}
	if r.remote.identity, r.remote.known, err = store.Identify(t.Context(), src, image.Want{SHA256: sum}); err != nil || !r.remote.known {
		t.Fatal(err)
	}
	return r
}

// TestDiskPrefix holds that what decides about a prepared disk decides about its
// entry in the cache, and nothing else does.
func TestDiskPrefix(t *testing.T) {
	sum := strings.Repeat("a", 64)
	one := identified(t, sum).diskPrefix()
	if len(one) > 100 || !strings.HasSuffix(one, "-") || strings.ContainsAny(one, ", /") {
		t.Errorf("%q is no key", one)
	}
	same := identified(t, sum)
	same.config.Script, same.config.Memory, same.config.Prepare = "other", units.GiB, "other"
	if same.diskPrefix() != one {
		t.Error("it depends on what does not change the disk")
	}
	for name, change := range map[string]func(*config.Config){
		"disk-size":      func(c *config.Config) { c.DiskSize = units.GiB },
		"apt-snapshot":   func(c *config.Config) { c.AptSnapshot = "20260314T000000Z" },
		"ssh-user":       func(c *config.Config) { c.SSHUser = "demo" },
		"root-partition": func(c *config.Config) { c.RootPartition = 2 },
	} {
		r := identified(t, sum)
		if change(&r.config); r.diskPrefix() == one {
			t.Errorf("it does not depend on %s", name)
		}
	}
	if identified(t, strings.Repeat("b", 64)).diskPrefix() == one {
		t.Error("it does not depend on the image")
	}
	r := identified(t, sum)
	r.remote.identity = image.Identity{}
	if r.nextKey() == r.diskPrefix()+"0" {
		t.Error("an entry would not be replaced")
	}
}

// TestDiskCacheOff holds that image-cache: off, and an image that is not known
// before it is fetched, leave the cache alone.
func TestDiskCacheOff(t *testing.T) {
	r := identified(t, strings.Repeat("a", 64))
	r.Host.ResultsURL = "http://127.0.0.1:1/"
	if r.diskCache() == nil {
		t.Error("there is a cache")
	}
	r.config.ImageCache = "off"
	if r.diskCache() != nil {
		t.Error("the cache is used although it is not to be")
	}
	r.config.ImageCache, r.remote.known = "auto", false
	if r.diskCache() != nil {
		t.Error("the cache is used for an image that nobody knows")
	}
}

// TestRemoteFault holds what is said of a disk that can't be read, and what is
// remembered of it.
func TestRemoteFault(t *testing.T) {
	d := &remoteDisk{key: "the-key"}
	d.fault(errors.New("it is gone"))
	if d.isDamaged() {
		t.Error("an entry that is gone is not damaged")
	}
	d.fault(fmt.Errorf("piece 3: %w", image.ErrPacked))
	if !d.isDamaged() || d.broken().Error() != "the entry the-key of the cache: it is gone" {
		t.Errorf("damaged %t, %v", d.isDamaged(), d.broken())
	}
	fault := &qemu.FaultError{Disk: "disk0", Operation: "read", Reason: d.broken().Error(), Err: d.broken()}
	var e *Error
	if !errors.As(diskFault(GuestLost, fault), &e) || e.Kind != GuestLost || e.Title != "The guest's disk cannot be read from the cache" ||
		!strings.Contains(strings.Join(e.Advice, " "), "delete the entry the-key") || !strings.Contains(e.Error(), "it is gone") {
		t.Errorf("it is explained as %+v", e)
	}
	fault.Err = &remoteError{"the-key", fmt.Errorf("keeping what was fetched: %w", unix.ENOSPC)}
	if errors.As(diskFault(GuestLost, fault), &e); e.Title != "The host's disk is full" {
		t.Errorf("that there is no room is explained as %+v", e)
	}
	if errors.As(diskFault(GuestLost, &qemu.FaultError{Reason: "x"}), &e); e.Title != "The guest's disk cannot be used" {
		t.Errorf("another fault is explained as %+v", e)
	}
}

// TestUsers holds that nothing begins to use a disk that is being closed.
func TestUsers(t *testing.T) {
	var u users
	began, goOn, ended := make(chan struct{}), make(chan struct{}), false
	u.start(func() {
		close(began)
		<-goOn
		ended = true
	})
	<-began
	close(goOn)
	if u.end(); !ended {
		t.Error("the disk is closed while it is used")
	}
	u.start(func() { t.Error("a closed disk is used") })
	u.end()
}

// TestChain holds that an exported disk is put together from our own paths,
// whatever is in them, and from all that lies below.
func TestChain(t *testing.T) {
	r := &run{overlayPath: `/run/a,b"/overlay.qcow2`, savedOverlay: "/store/disk.qcow2"}
	r.disk.base = image.Base{Path: "/store/base.raw", Format: image.Raw}
	text, err := r.chain(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"driver":"qcow2","file":{"driver":"file","filename":"/run/a,b\"/overlay.qcow2"},` +
		`"backing":{"driver":"qcow2","file":{"driver":"file","filename":"/store/disk.qcow2"},` +
		`"backing":{"driver":"raw","file":{"driver":"file","filename":"/store/base.raw"}}}}`
	if text != "json:"+want || !json.Valid([]byte(want)) {
		t.Errorf("got  %s\nwant json:%s", text, want)
	}
}
