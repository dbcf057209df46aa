package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/zstd"

	"github.com/org/hurd-qemu-action/internal/image/sparse"
)

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
	m := manifest{Created: s.now(), Origin: name, SHA256: digest, Format: Raw, Verified: Verification{How: Embedded}}
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
	if known, ok := r.(interface{ SHA256() string }); ok {
		return known.SHA256(), r.Close()
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
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
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
