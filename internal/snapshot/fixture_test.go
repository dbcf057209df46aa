package snapshot

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/org/hurd-qemu-action/internal/units"
)

// testKey is that of a small machine.
func testKey() Key {
	return Key{
		QEMU: "7.2.22", Binary: "qemu-system-x86_64", Machine: "pc-i440fx-7.2", CPUModel: "qemu64", CPUs: 1,
		Memory: 4 * units.MiB, DiskBus: "ide", NIC: "rtl8139", HPET: true, Disks: []units.Bytes{1 * units.GiB, 64 * units.MiB},
		Forwards: []int{22}, Layout: "1", Accel: TCG, Base: "sha256:00", Provision: "ext2-3", User: "root",
	}
}

func testManifest(k Key) Manifest {
	return Manifest{
		Key: k, Created: time.Date(2026, 11, 24, 18, 0, 0, 5, time.UTC), Action: "1.0.0", Package: "1:7.2+dfsg-7",
		Login: Login{Port: 22, HostKeys: []string{"ssh-ed25519 AAAA"}, Private: "PEM"},
		Guest: []byte(`{"Family":"linux","a":[1,2]}`),
	}
}

// overlay makes the header of a qcow2 image, followed by data.
func overlay(virtual units.Bytes, data []byte) []byte {
	d := append(make([]byte, 64<<10), data...)
	binary.BigEndian.PutUint32(d, qcow2Magic)
	binary.BigEndian.PutUint32(d[qcow2Version:], 3)
	binary.BigEndian.PutUint64(d[qcow2Size:], uint64(virtual))
	return d
}

// guestMemory fills a file as a guest does its memory: of every four pages
// that it has written, one holds zeros, one is much like others, and two are
// half program, half noise; they lie together in stretches with holes between.
func guestMemory(t testing.TB, f *os.File, size, data int64) {
	t.Helper()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	words := make([]byte, 64<<10)
	for i := range words {
		words[i] = byte(rng.ExpFloat64() * 20)
	}
	const stretch = 96 * blockSize
	n := max(1, data/stretch)
	buf := make([]byte, min(stretch, size))
	for i := range n {
		for off := 0; off < len(buf); off += blockSize {
			page := buf[off : off+blockSize]
			switch rng.IntN(4) {
			case 0:
				clear(page)
			case 1:
				copy(page, words[:blockSize])
			default:
				for at := 0; at < len(page); at += 64 {
					from := rng.IntN(len(words) - 64)
					copy(page[at:], words[from:from+64])
					binary.LittleEndian.PutUint64(page[at:], rng.Uint64()>>16)
				}
			}
		}
		at := i * (size / n) &^ (blockSize - 1)
		if _, err := f.WriteAt(buf, min(at, size-int64(len(buf)))); err != nil {
			t.Fatal(err)
		}
	}
}

// files are the contents of a small machine's files.
func files(t testing.TB, k Key) map[string][]byte {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "ram")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	guestMemory(t, f, int64(k.Memory), int64(k.Memory)/2)
	ram, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{
		State: bytes.Repeat([]byte("QEVM device state "), 1000), RAM: ram,
		Disk: overlay(k.Disks[0], append(bytes.Repeat([]byte("changed"), 10000), make([]byte, 300<<10)...)),
	}
}

// draft begins an entry with these files.
func draft(t testing.TB, s *Store, contents map[string][]byte) *Draft {
	t.Helper()
	d, err := s.Begin()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Discard)
	for name, data := range contents {
		if err := d.Copy(t.Context(), name, written(t, data, true)); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

// commit makes an entry, and keeps it in use until the end of the test.
func commit(t testing.TB, s *Store, k Key) *Entry {
	t.Helper()
	e, err := draft(t, s, files(t, k)).Commit(t.Context(), testManifest(k))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	return e
}

// same compares an entry's files with what was saved.
func same(t testing.TB, e *Entry, want map[string][]byte) {
	t.Helper()
	for name, data := range want {
		got, err := os.ReadFile(e.Path(name))
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s differs from what was saved (%d bytes of %d, %v)", name, len(got), len(data), err)
		}
	}
}
