package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/org/hurd-qemu-action/internal/image/disk"
	"github.com/org/hurd-qemu-action/internal/image/sparse"
	"github.com/org/hurd-qemu-action/internal/units"
)

// Edit changes a raw disk in place, and may make it larger. What it returns is
// kept with the disk. ctx ends when nobody wants the result any more.
type Edit func(ctx context.Context, rawPath string) (manifest []byte, err error)

// Prepared is a raw disk that was edited once.
type Prepared struct {
	Base            // a raw disk; Reused tells whether it was there already
	Manifest []byte // what Edit returned when it was made

	key string
}

// Prepare returns the raw disk that edit makes of base. It is made once for
// every key (which stands for all that edit depends on) and then reused by
// every process; a second process that wants it waits. When edit or anything
// else fails, nothing stays behind.
func (s *Store) Prepare(ctx context.Context, base Base, key string, edit Edit) (Prepared, error) {
	p, err := s.prepare(ctx, base, key, edit)
	return p, explain("preparing", base.Origin, err)
}

// preparedName is the name of what is made from an image under a key.
func preparedName(digest, key string) string {
	sum := sha256.Sum256([]byte(digest + "\n" + key))
	return hex.EncodeToString(sum[:])
}

func (s *Store) prepare(ctx context.Context, base Base, key string, edit Edit) (Prepared, error) {
	name := preparedName(base.Digest, key)
	if p, ok, err := s.usePrepared(ctx, name, base); ok || err != nil {
		return p, err
	}
	making, err := s.lock(ctx, "making-"+name, exclusive, func() {
		s.report(Report{Step: StepWait, Source: base.Origin, Note: "another process prepares this image; using its result"})
	})
	if err != nil {
		return Prepared{}, err
	}
	defer func() { _ = making.Close() }() // nothing depends on the lock any more
	if p, ok, err := s.usePrepared(ctx, name, base); ok || err != nil {
		return p, err
	}
	t, err := s.temp()
	if err != nil {
		return Prepared{}, err
	}
	defer t.remove()
	m := manifest{
		Created: s.now(), Origin: base.Origin, Verified: base.Verified,
		Format: Raw, Base: base.Digest, Key: key, SHA256: base.sums.sha256, SHA512: base.sums.sha512,
	}
	raw := filepath.Join(t.path, diskName+string(Raw))
	if err := s.copyRaw(ctx, base, raw); err != nil {
		return Prepared{}, err
	}
	if m.Extra, err = edit(ctx, raw); err != nil {
		return Prepared{}, err
	}
	if err := context.Cause(ctx); err != nil {
		return Prepared{}, err
	}
	info, err := os.Stat(raw)
	if err != nil {
		return Prepared{}, err
	}
	m.VirtualSize = units.Bytes(info.Size())
	b, err := s.publish(ctx, t, preparedDir, name, m)
	if err != nil {
		return Prepared{}, err
	}
	b.Preset = base.Preset
	return Prepared{Base: b, Manifest: m.Extra, key: key}, nil
}

// usePrepared takes a prepared disk that is there. A damaged one is made anew.
func (s *Store) usePrepared(ctx context.Context, name string, base Base) (Prepared, bool, error) {
	b, m, err := s.use(ctx, preparedDir, name)
	switch {
	case errors.Is(err, ErrDamaged):
		s.report(Report{Step: StepPrepare, Source: base.Origin, Note: "making it anew, because " + err.Error()})
		return Prepared{}, false, nil
	case errors.Is(err, fs.ErrNotExist):
		return Prepared{}, false, nil
	}
	b.Preset = base.Preset
	return Prepared{Base: b, Manifest: m.Extra, key: m.Key}, err == nil, err
}

// copyRaw writes the disk in base to a new raw file.
func (s *Store) copyRaw(ctx context.Context, base Base, path string) (err error) {
	src, err := os.Open(base.Path)
	if err != nil {
		return err
	}
	defer func() { _ = src.Close() }() // it was only read
	info, err := src.Stat()
	if err != nil {
		return err
	}
	if err := s.reserve(sparse.Allocated(info)); err != nil {
		return err
	}
	if base.Format != Raw {
		return s.Tools.Convert(ctx, base.Path, base.Format, path)
	}
	dst, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	if err := sparse.Copy(ctx, dst, src); err != nil {
		return fmt.Errorf("copying the disk: %w", err)
	}
	return nil
}

// CreateOverlay makes a new qcow2 file at path for one run: what is not
// written to it is read from base. A size of 0 is that of the base; a smaller
// one is an error.
func CreateOverlay(base Base, path string, size units.Bytes) error {
	if size != 0 && size < base.VirtualSize {
		err := fmt.Errorf("a disk of %s can't become one of %s", base.VirtualSize.Human(), size.Human())
		return &Error{Op: "creating an overlay on", Source: base.Origin, Err: err, Hint: "a disk can only grow: choose a larger disk-size"}
	}
	_, err := os.Stat(base.Path)
	if err == nil {
		size = max(size, (base.VirtualSize+sector-1)/sector*sector)
		err = disk.CreateOverlay(path, base.Path, base.Format, size)
	}
	return explain("creating an overlay on", base.Origin, err)
}
