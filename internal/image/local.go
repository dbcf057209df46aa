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
	"syscall"

	"github.com/klauspost/compress/zstd"

	"github.com/org/hurd-qemu-action/internal/image/disk"
	"github.com/org/hurd-qemu-action/internal/image/sparse"
	"github.com/org/hurd-qemu-action/internal/units"
)

// obtainPath uses a disk image of the user in place.
func (s *Store) obtainPath(ctx context.Context, path string, want Want) (Base, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return Base{}, err
	}
	f, err := os.Open(path) //nolint:gosec // the user's own choice
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
	d, err := disk.Inspect(f, units.Bytes(info.Size()))
	if err != nil {
		return Base{}, err
	}
	if err := s.Tools.Check(ctx, path, d.Format); err != nil {
		return Base{}, err
	}
	b := Base{
		Path: path, Format: d.Format, VirtualSize: d.VirtualSize, Origin: path,
		Digest: "stat:" + identity(path, info), Verified: Verification{How: Local},
	}
	if !want.hasHash() {
		return b, nil
	}
	sums, err := hashFile(ctx, f)
	if err != nil {
		return Base{}, err
	}
	b.Verified, err = sums.compare(want)
	b.Digest = "sha256:" + sums.sha256
	return b, err
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
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// sums are the hashes of a file, in hexadecimal.
type sums struct{ sha256, sha512 string }

// ErrHash is wrapped by the errors about a file that is not the one that was wanted.
var ErrHash = errors.New("the hash does not match")

// compare checks the given hashes.
func (h sums) compare(want Want) (Verification, error) {
	for _, c := range []struct{ name, want, have string }{
		{"SHA-256", want.SHA256, h.sha256}, {"SHA-512", want.SHA512, h.sha512},
	} {
		if c.want != "" && c.want != c.have {
			return Verification{}, fmt.Errorf("%w: its %s is %s, wanted is %s", ErrHash, c.name, c.have, c.want)
		}
	}
	if want.SHA512 != "" {
		return Verification{How: Given, Detail: "SHA-512 " + want.SHA512[:16] + "..."}, nil
	}
	return Verification{How: Given, Detail: "SHA-256 " + want.SHA256[:16] + "..."}, nil
}

func hashFile(ctx context.Context, f *os.File) (sums, error) {
	a, b := sha256.New(), sha512.New()
	buf := make([]byte, 1<<20)
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return sums{}, err
	}
	for {
		if err := context.Cause(ctx); err != nil {
			return sums{}, err
		}
		n, err := f.Read(buf)
		a.Write(buf[:n])
		b.Write(buf[:n])
		if errors.Is(err, io.EOF) {
			return sums{hex.EncodeToString(a.Sum(nil)), hex.EncodeToString(b.Sum(nil))}, nil
		}
		if err != nil {
			return sums{}, err
		}
	}
}

// obtainEmbedded unpacks an image that is part of the program.
func (s *Store) obtainEmbedded(ctx context.Context, name string) (Base, error) {
	open := s.Embedded[name]
	if open == nil {
		return Base{}, &Error{Op: "looking for", Source: name, Err: errors.New("this program was built without it"),
			Hint: "build it with make, which makes the " + name + " image first"}
	}
	digest, err := hashEmbedded(open)
	if err != nil {
		return Base{}, err
	}
	if b, _, err := s.use(ctx, imagesDir, digest); err == nil {
		return b, nil
	}
	t, err := s.temp()
	if err != nil {
		return Base{}, err
	}
	defer t.remove()
	m := manifest{Created: s.now(), Origin: name, SHA256: digest, Format: Raw, Verified: []Verification{{How: Embedded}}}
	if err := unpackEmbedded(ctx, open, filepath.Join(t.path, diskName+string(Raw)), &m); err != nil {
		return Base{}, err
	}
	return s.publish(ctx, t, imagesDir, digest, m)
}

func hashEmbedded(open func() (io.ReadCloser, int64, error)) (string, error) {
	r, _, err := open()
	if err != nil {
		return "", err
	}
	h := sha256.New()
	_, err = io.Copy(h, r)
	if err := errors.Join(err, r.Close()); err != nil {
		return "", fmt.Errorf("reading the embedded image: %w", err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func unpackEmbedded(ctx context.Context, open func() (io.ReadCloser, int64, error), path string, m *manifest) (err error) {
	r, _, err := open()
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }() // it was only read
	z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(2))
	if err != nil {
		return fmt.Errorf("unpacking the embedded image: %w", err)
	}
	defer z.Close()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) //nolint:gosec // a path in the store
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	sum := sparse.NewDigest()
	w := sparse.NewWriter(f, sum)
	in := readerFunc(func(p []byte) (int, error) {
		if err := context.Cause(ctx); err != nil {
			return 0, err
		}
		return z.Read(p)
	})
	if _, err := io.CopyBuffer(struct{ io.Writer }{w}, in, make([]byte, 1<<20)); err != nil {
		return fmt.Errorf("unpacking the embedded image: %w", err)
	}
	if err := w.Close(); err != nil {
		return err
	}
	m.VirtualSize, m.Content = w.Size(), sum.Sum(w.Size())
	return nil
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
