package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"

	"github.com/org/hurd-qemu-action/internal/image/disk"
	"github.com/org/hurd-qemu-action/internal/units"
)

// Store keeps images in a directory. Its methods may be called by several
// goroutines, and the directory may be used by several processes.
type Store struct {
	Dir string // made when it is first written to

	// Embedded opens the images that are part of the program: a zstd stream
	// of a raw disk and the stream's length in bytes.
	Embedded map[string]func() (io.ReadCloser, int64, error)

	Client   *http.Client     // nil means one without a proxy
	Progress func(Report)     // nil for none; called by one goroutine at a time
	Now      func() time.Time // nil means time.Now
	Tools    disk.Tools
	Stall    time.Duration // how long a server may send nothing; 0 means 30 s

	reporting sync.Mutex
}

// spareSpace is what must be left free beside what is about to be written.
const spareSpace = 64 * units.MiB

// diskName is the disk image in an entry, followed by its format.
const diskName = "disk."

// manifestName is the file that makes an entry complete.
const manifestName = "manifest.json"

// usedName is the file whose time is that of the entry's last use.
const usedName = "used"

// The two kinds of entries are directories of this name.
const (
	imagesDir   = "images"
	preparedDir = "prepared"
)

// manifest describes an entry. Of the disk image everything is known here, so
// that using it costs no more than reading this.
type manifest struct {
	Created time.Time
	Origin  string // as Base.Origin

	// The file as it was obtained, before it was unpacked. Of a prepared disk,
	// the file that it was made from.
	SHA256, SHA512 string
	Address        string `json:",omitempty"` // where from; without queries
	Version        string `json:",omitempty"` // what the source said of it: an ETag, a digest
	Signature      string `json:",omitempty"` // signer.id
	Verified       Verification

	// The disk image of the entry.
	Format      Format
	VirtualSize units.Bytes
	Content     string `json:",omitempty"` // sparse.Digest
	Size        units.Bytes
	Modified    time.Time

	// A prepared disk.
	Base  string `json:",omitempty"` // digest of what it was made from
	Key   string `json:",omitempty"`
	Extra []byte `json:",omitempty"` // what the edit returned
}

func (s *Store) now() time.Time {
	if s.Now != nil {
		return s.Now()
	}
	return time.Now()
}

func (s *Store) report(r Report) {
	if s.Progress != nil {
		s.reporting.Lock()
		defer s.reporting.Unlock()
		s.Progress(r)
	}
}

func (s *Store) mkdir(name string) error {
	if s.Dir == "" {
		return errors.New("the image store has no directory: set cache-dir")
	}
	return os.MkdirAll(filepath.Join(s.Dir, name), 0o700)
}

// read returns an entry's manifest. An error that is fs.ErrNotExist means that
// there is no such entry; ErrDamaged, that it can't be used.
func (s *Store) read(kind, name string) (manifest, error) {
	var m manifest
	dir := filepath.Join(s.Dir, kind, name)
	if _, err := os.Stat(dir); err != nil {
		return m, err
	}
	path := filepath.Join(dir, manifestName)
	data, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(data, &m)
	}
	if err != nil {
		return m, fmt.Errorf("%w: reading %s: %v", ErrDamaged, path, err) //nolint:errorlint // a missing manifest is no missing entry
	}
	path = s.disk(kind, name, m.Format)
	info, err := os.Stat(path)
	if err != nil {
		return m, fmt.Errorf("%w: %v", ErrDamaged, err) //nolint:errorlint // as above
	}
	if units.Bytes(info.Size()) != m.Size || !info.ModTime().Equal(m.Modified) {
		return m, fmt.Errorf("%w: %s was changed after it was made (%d bytes of %s; noted are %d bytes of %s)", ErrDamaged,
			path, info.Size(), stamp(info.ModTime()), int64(m.Size), stamp(m.Modified))
	}
	return m, nil
}

// stamp writes a time for people.
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// ErrDamaged says that a file of the store is not what was put there.
var ErrDamaged = errors.New("the image store is damaged")

func (s *Store) disk(kind, name string, format Format) string {
	return filepath.Join(s.Dir, kind, name, diskName+string(format))
}

// use takes an entry for use, or returns an error that is fs.ErrNotExist.
func (s *Store) use(ctx context.Context, kind, name string) (Base, manifest, error) {
	b, m, err := s.hold(ctx, kind, name)
	if err == nil {
		// The time of use only orders what Prune removes; a store that can't be
		// written is not pruned either.
		_ = os.Chtimes(filepath.Join(s.Dir, kind, name, usedName), time.Time{}, s.now())
	}
	return b, m, err
}

// hold is use for who only looks at an entry.
func (s *Store) hold(ctx context.Context, kind, name string) (Base, manifest, error) {
	if _, err := os.Stat(filepath.Join(s.Dir, kind, name)); err != nil {
		return Base{}, manifest{}, err // spares the lock file of an entry that is not there
	}
	l, err := s.lock(ctx, kind+"-"+name, shared, nil)
	if err != nil {
		return Base{}, manifest{}, err
	}
	m, err := s.read(kind, name)
	if err != nil {
		_ = l.Close() // the entry's error counts
		return Base{}, manifest{}, err
	}
	return s.base(kind, name, m, l), m, nil
}

func (s *Store) base(kind, name string, m manifest, l io.Closer) Base {
	path, err := filepath.Abs(s.disk(kind, name, m.Format))
	if err != nil { // only without a working directory
		path = s.disk(kind, name, m.Format)
	}
	b := Base{Path: path, Format: m.Format, Digest: "sha256:" + m.SHA256, VirtualSize: m.VirtualSize, Origin: m.Origin,
		Verified: m.Verified, Reused: true, lease: l}
	if kind == preparedDir {
		b.Digest = m.Base
	}
	b.sums = sums{m.SHA256, m.SHA512}
	return b
}

// publish makes a finished temporary directory the entry of that name and
// takes it for use. When another process was first, its entry is taken.
func (s *Store) publish(ctx context.Context, t *temp, kind, name string, m manifest) (Base, error) {
	path := filepath.Join(t.path, diskName+string(m.Format))
	if err := seal(path, &m); err != nil {
		return Base{}, err
	}
	data, err := json.MarshalIndent(m, "", "\t")
	if err != nil {
		return Base{}, fmt.Errorf("encoding the manifest: %w", err)
	}
	for file, content := range map[string][]byte{manifestName: append(data, '\n'), usedName: nil} {
		if err := os.WriteFile(filepath.Join(t.path, file), content, 0o600); err != nil {
			return Base{}, err
		}
	}
	if err := s.mkdir(kind); err != nil {
		return Base{}, err
	}
	l, err := s.lock(ctx, kind+"-"+name, shared, nil)
	if err != nil {
		return Base{}, err
	}
	err = os.Rename(t.path, filepath.Join(s.Dir, kind, name))
	if errors.Is(err, fs.ErrExist) || errors.Is(err, unix.ENOTEMPTY) {
		_ = l.Close() // use takes it again
		b, _, err := s.use(ctx, kind, name)
		if errors.Is(err, ErrDamaged) && s.remove(kind, name) == nil {
			return s.publish(ctx, t, kind, name, m)
		}
		return b, err
	}
	if err != nil {
		_ = l.Close() // the rename's error counts
		return Base{}, err
	}
	t.path = ""
	b := s.base(kind, name, m, l)
	b.Reused = false
	return b, nil
}

// seal makes a disk image read-only, brings it to the disk and notes what will
// be compared when it is used.
func seal(path string, m *manifest) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // it was only read and synced
	if err := f.Sync(); err != nil {
		return fmt.Errorf("writing %s to the disk: %w", path, err)
	}
	if err := f.Chmod(0o400); err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	m.Size, m.Modified = units.Bytes(info.Size()), info.ModTime()
	return nil
}

// entries lists the names of the entries of a kind.
func (s *Store) entries(kind string) []string {
	found, err := os.ReadDir(filepath.Join(s.Dir, kind))
	if err != nil {
		return nil // there is no store yet, or none that can be read: nothing is found in it
	}
	var names []string
	for _, e := range found {
		names = append(names, e.Name())
	}
	return names
}

// writeFile makes or replaces a small file of the store at once.
func writeFile(path string, data []byte) error { return renameio.WriteFile(path, data, 0o600) }

// Free is the space that an unprivileged writer has left in a directory's file
// system.
func Free(dir string) (units.Bytes, error) {
	var st unix.Statfs_t
	for {
		err := unix.Statfs(dir, &st)
		if errors.Is(err, fs.ErrNotExist) && filepath.Dir(dir) != dir {
			dir = filepath.Dir(dir) // it will be made
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("measuring the free space of %s: %w", dir, err)
		}
		return units.Bytes(st.Bavail) * units.Bytes(st.Bsize), nil // below 2^63 for every disk that exists
	}
}

// ErrSpace is wrapped by the errors about a full disk.
var ErrSpace = errors.New("not enough disk space")

// reserve checks that need bytes can be written to the store.
func (s *Store) reserve(need units.Bytes) error {
	free, err := Free(s.Dir)
	if err != nil {
		return err
	}
	if free < need+spareSpace {
		return fmt.Errorf("%w in %s: %s are needed and %s are free", ErrSpace, s.Dir, (need + spareSpace).Human(), free.Human())
	}
	return nil
}
