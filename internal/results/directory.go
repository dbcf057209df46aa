package results

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
)

// Directory makes artifacts where there is no service: each is a directory
// with the files that the zip would hold, under the same names.
type Directory struct {
	Path string // made when it is missing
}

// Upload makes a directory of the artifact's name. It is there when it is
// complete, or not at all. Upload.Days means nothing here.
func (d Directory) Upload(ctx context.Context, u Upload) (Artifact, error) {
	made, err := d.upload(ctx, u)
	if err != nil {
		return Artifact{}, fmt.Errorf("writing artifact %q: %w", u.Name, err)
	}
	return made, nil
}

func (d Directory) upload(ctx context.Context, u Upload) (made Artifact, err error) {
	if err := u.check(); err != nil {
		return Artifact{}, err
	}
	if err := os.MkdirAll(d.Path, 0o755); err != nil { //nolint:gosec // results for people to look at
		return Artifact{}, err
	}
	final := filepath.Join(d.Path, u.Name)
	if _, err := os.Lstat(final); !errors.Is(err, fs.ErrNotExist) {
		return Artifact{}, fmt.Errorf("%s: %w", final, ErrExists)
	}
	temp, err := os.MkdirTemp(d.Path, ".artifact-*")
	if err != nil {
		return Artifact{}, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(temp)) }() // gone when it has its final name
	size, err := u.Bundle.writeFiles(ctx, temp)
	if err != nil {
		return Artifact{}, err
	}
	if err := os.Chmod(temp, 0o755); err != nil { //nolint:gosec // as above
		return Artifact{}, err
	}
	if err := os.Rename(temp, final); err != nil {
		return Artifact{}, err
	}
	return Artifact{Name: u.Name, Size: size, Path: final}, nil
}

// writeFiles writes a bundle's files into an empty directory, and nowhere else.
func (b *Bundle) writeFiles(ctx context.Context, dir string) (size int64, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return 0, err
	}
	defer func() { _ = root.Close() }() // nothing is written through it
	var open *os.File
	var last entry
	finish := func() error {
		if open == nil {
			return nil
		}
		f := open
		open = nil
		// A file keeps its permissions, but stays readable to its owner.
		err := errors.Join(f.Chmod(last.mode.Perm()|0o600), f.Close())
		if err == nil && !last.modified.IsZero() {
			err = root.Chtimes(last.name, last.modified, last.modified)
		}
		return err
	}
	size, err = b.each(ctx, func(e entry, _ []byte) (io.Writer, error) {
		if err := finish(); err != nil {
			return nil, err
		}
		if err := root.MkdirAll(path.Dir(e.name), 0o755); err != nil {
			return nil, err
		}
		f, err := root.OpenFile(e.name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err == nil {
			open, last = f, e
		}
		return f, err
	})
	return size, errors.Join(err, finish())
}
