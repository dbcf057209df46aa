package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"github.com/org/hurd-qemu-action/internal/image/disk"
	"github.com/org/hurd-qemu-action/internal/image/unpack"
	"github.com/org/hurd-qemu-action/internal/units"
)

// obtainPath obtains a file of the user's: a disk image is used in place, a
// packed one is unpacked into the store.
func (s *Store) obtainPath(ctx context.Context, path string, want Want) (Base, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return Base{}, err
	}
	f, err := os.Open(path)
	if err != nil {
		return Base{}, err
	}
	defer func() { _ = f.Close() }() // it was only read
	info, err := f.Stat()
	if err != nil {
		return Base{}, err
	}
	if !info.Mode().IsRegular() {
		return Base{}, fmt.Errorf("%w: %s is %s", disk.ErrNotDisk, path, kindOf(info))
	}
	e, err := expected(want, nil)
	if err != nil {
		return Base{}, err
	}
	if e.signer, err = s.signer(ctx, want); err != nil {
		return Base{}, err
	}
	head := make([]byte, disk.SniffLen)
	n, err := f.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return Base{}, err
	}
	local := localFile{File: f, path: path, size: info.Size(), identity: identity(path, info)}
	if unpack.Packed(head[:n]) {
		return s.obtainPacked(ctx, local, e)
	}
	return s.obtainInPlace(ctx, local, e)
}

// localFile is a file that is not ours.
type localFile struct {
	*os.File
	path     string // absolute
	size     int64
	identity string
}

func kindOf(info os.FileInfo) string {
	if info.IsDir() {
		return "a directory"
	}
	return "no regular file"
}

// identity stands for a file's contents without reading it: a change of any of
// these is a change of the file.
func identity(path string, info os.FileInfo) string {
	text := fmt.Sprintf("%s\n%d\n%d\n", path, info.Size(), info.ModTime().UnixNano())
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		text += fmt.Sprintf("%d\n%d\n%d %d\n", st.Dev, st.Ino, st.Ctim.Sec, st.Ctim.Nsec)
	}
	return hashName(text)
}

// localOrigin is how a local file's contents are called in a manifest.
const localOrigin = "file:"

// obtainInPlace uses a disk image where it is.
func (s *Store) obtainInPlace(ctx context.Context, f localFile, e expectation) (Base, error) {
	d, err := disk.Inspect(f, units.Bytes(f.size))
	if err != nil {
		return Base{}, err
	}
	if err := s.Tools.Check(ctx, f.path, d.Format); err != nil {
		return Base{}, err
	}
	b := Base{
		Path: f.path, Format: d.Format, VirtualSize: d.VirtualSize, Origin: f.path,
		Digest: "stat:" + f.identity, Verified: Verification{How: Local},
	}
	if !e.hasHash() && e.signer == nil {
		return b, nil
	}
	have, err := s.hashLocal(ctx, f, e.signer)
	if err != nil {
		return Base{}, err
	}
	if err := e.check(have); err != nil {
		return Base{}, err
	}
	b.Digest, b.Verified = "sha256:"+have.sha256, e.verification()
	return b, nil
}

// localDir remembers the hashes of local files.
const localDir = "local"

// hashLocal hashes a local file, or remembers what was found when it was
// looked at before. A signature is always checked.
func (s *Store) hashLocal(ctx context.Context, f localFile, sig *signer) (sums, error) {
	var known struct{ SHA256, SHA512 string }
	path := filepath.Join(s.Dir, localDir, f.identity+".json")
	if data, err := os.ReadFile(path); err == nil && sig == nil && json.Unmarshal(data, &known) == nil {
		return sums{known.SHA256, known.SHA512}, nil
	}
	meter := s.meter(StepVerify, f.path)
	feed := newFeed(ctx, metered(io.NewSectionReader(f, 0, f.size), meter, f.size), sig)
	_, err := io.Copy(io.Discard, feed)
	have, verdict := feed.wait()
	if verdict != nil {
		err = verdict
	}
	if err != nil {
		return sums{}, err
	}
	known.SHA256, known.SHA512 = have.sha256, have.sha512
	if data, err := json.Marshal(known); err == nil && s.mkdir(localDir) == nil {
		_ = writeFile(path, data) // else it is hashed again the next time
	}
	return have, nil
}

// metered reports how far a reader is.
func metered(r io.Reader, m *meter, total int64) io.Reader {
	done := int64(0)
	return readerFunc(func(p []byte) (int, error) {
		n, err := r.Read(p)
		done += int64(n)
		m.at(done, total)
		return n, err
	})
}

// obtainPacked unpacks a local file into the store.
func (s *Store) obtainPacked(ctx context.Context, f localFile, e expectation) (Base, error) {
	address := localOrigin + f.identity
	find := func() (Base, bool, error) {
		return s.findEntry(ctx, func(m manifest) bool {
			return m.Address == address && e.matches(sums{m.SHA256, m.SHA512}) && (e.signer == nil || e.signer.id == m.Signature)
		}, e)
	}
	if b, ok, err := find(); ok || err != nil {
		return b, err
	}
	l, err := s.lock(ctx, "unpacking-"+f.identity, exclusive, func() {
		s.report(Report{Step: StepWait, Source: f.path, Note: "another process unpacks it; using its result"})
	})
	if err != nil {
		return Base{}, err
	}
	defer func() { _ = l.Close() }() // nothing depends on the lock any more
	if b, ok, err := find(); ok || err != nil {
		return b, err
	}
	if err := s.reserve(units.Bytes(f.size)); err != nil {
		return Base{}, err
	}
	t, err := s.temp()
	if err != nil {
		return Base{}, err
	}
	defer t.remove()
	m := manifest{Created: s.now(), Origin: f.path, Address: address}
	in := unpack.Input{
		Reader: metered(io.NewSectionReader(f, 0, f.size), s.meter(StepUnpack, f.path), f.size),
		File:   func() (io.ReaderAt, int64, error) { return f, f.size, nil },
	}
	if err := s.admit(ctx, t, in, e, &m); err != nil {
		return Base{}, err
	}
	if m.Verified.How == Nothing {
		m.Verified.How = Local
	}
	return s.publish(ctx, t, imagesDir, m.SHA256, m)
}
