package image

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/org/hurd-qemu-action/internal/image/disk"
	"github.com/org/hurd-qemu-action/internal/image/unpack"
	"github.com/org/hurd-qemu-action/internal/units"
)

// feedSize is how much of a packed file is hashed and passed on at once.
const feedSize = 256 << 10

// feed reads a file to its end in a goroutine of its own, hashes it and checks
// its signature, while another one unpacks what it passes on.
type feed struct {
	*io.PipeReader
	done chan error
	sums sums
}

// errNotWanted ends a feed whose reader has failed.
var errNotWanted = errors.New("the rest is not wanted")

func newFeed(ctx context.Context, r io.Reader, sig *signer) *feed {
	out, w := io.Pipe()
	f := &feed{PipeReader: out, done: make(chan error, 1)}
	go func() {
		err := f.run(ctx, r, w, sig)
		_ = w.CloseWithError(err) // never fails
		f.done <- err
	}()
	return f
}

func (f *feed) run(ctx context.Context, r io.Reader, w io.Writer, sig *signer) error {
	a, b := sha256.New(), sha512.New()
	to := []io.Writer{a, b}
	finish := func() error { return nil }
	if sig != nil {
		var check io.Writer
		check, finish = sig.begin()
		to = append(to, check)
	}
	in := readerFunc(func(p []byte) (int, error) {
		if err := context.Cause(ctx); err != nil {
			return 0, err
		}
		return r.Read(p)
	})
	_, err := io.CopyBuffer(struct{ io.Writer }{io.MultiWriter(append(to, w)...)}, in, make([]byte, feedSize))
	verdict := finish()
	if err != nil {
		return err
	}
	f.sums = sums{hex.EncodeToString(a.Sum(nil)), hex.EncodeToString(b.Sum(nil))}
	return verdict
}

// wait returns the hashes of the whole file. Its error is that of the source
// or of the signature. It is called once, after the reading.
func (f *feed) wait() (sums, error) {
	_ = f.CloseWithError(errNotWanted) // never fails
	err := <-f.done
	if errors.Is(err, errNotWanted) {
		err = nil
	}
	return f.sums, err
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// admit unpacks a file into a temporary directory and completes the manifest,
// all in one pass: nothing is known of the file's hash before its end, so
// nothing that was made of it is used before.
func (s *Store) admit(ctx context.Context, t *temp, in unpack.Input, e expectation, m *manifest) error {
	path := filepath.Join(t.path, "unpacked")
	d, img, have, err := s.unpackTo(ctx, path, in, e.signer)
	if err != nil {
		return err
	}
	if err := e.check(have); err != nil {
		return err
	}
	if d.err != nil {
		return d.err
	}
	if e.signer != nil {
		m.Signature = e.signer.id
	}
	m.SHA256, m.SHA512, m.Content, m.Verified = have.sha256, have.sha512, img.Content, e.verification()
	m.Format, m.VirtualSize = d.Format, d.VirtualSize
	if err := s.Tools.Check(ctx, path, d.Format); err != nil {
		return err
	}
	return os.Rename(path, filepath.Join(t.path, diskName+string(d.Format)))
}

// inspected is what disk.Inspect has said, to be heard after the hash.
type inspected struct {
	disk.Info
	err error
}

func (s *Store) unpackTo(ctx context.Context, path string, in unpack.Input, sig *signer) (d inspected, img unpack.Image, have sums, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return d, img, have, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	feed := newFeed(ctx, in.Reader, sig)
	in.Reader = feed
	img, err = unpack.Unpack(ctx, in, f, unpack.Options{})
	have, verdict := feed.wait()
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT), errors.Is(err, unix.EFBIG):
		return d, img, have, s.noSpace(err, f)
	case verdict != nil: // the unpacking has only suffered from it
		return d, img, have, verdict
	case err != nil:
		return d, img, have, err
	}
	d.Info, d.err = disk.Inspect(f, img.Size)
	return d, img, have, nil
}

// noSpace puts numbers into the error about a full disk.
func (s *Store) noSpace(err error, f *os.File) error {
	written, left := "", ""
	if info, e := f.Stat(); e == nil {
		written = units.Bytes(info.Size()).Human()
	}
	if free, e := Free(s.Dir); e == nil {
		left = free.Human()
	}
	return fmt.Errorf("writing the unpacked disk, at %s, with %s free in %s: %w", written, left, s.Dir, err)
}
