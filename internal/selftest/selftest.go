// Package selftest holds the selftest guest: a small Linux system, built from
// Debian packages by testdata/selftest/build, that the demo boots and the
// end-to-end tests run on. It is part of the binary when it was built before.
package selftest

import (
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/org/hurd-qemu-action/internal/units"
)

// The directory always holds a README, so that the package compiles in a fresh
// checkout; the guest itself is built, not committed.
//
//go:embed all:assets
var assets embed.FS

// The files that the build script writes.
const (
	imageName = "selftest.img.zst"
	infoName  = "selftest.json"
)

// ErrNotBuilt says that this binary holds no guest.
var ErrNotBuilt = errors.New("this binary was built without the selftest guest: build it with make build, or use the container image")

// Info describes the guest.
type Info struct {
	SHA256 string      `json:"sha256"`     // of the compressed image, hexadecimal
	Size   units.Bytes `json:"size"`       // of the compressed image
	Raw    string      `json:"raw_sha256"` // of the disk
	Disk   units.Bytes `json:"raw_size"`   // of the disk
}

// Open returns the disk as a zstd stream. The error is ErrNotBuilt when there
// is none.
func Open() (io.ReadCloser, Info, error) {
	dir, err := fs.Sub(assets, "assets")
	if err != nil {
		return nil, Info{}, fmt.Errorf("opening the selftest guest: %w", err)
	}
	return open(dir)
}

func open(dir fs.FS) (io.ReadCloser, Info, error) {
	f, err := dir.Open(imageName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, Info{}, ErrNotBuilt
	}
	if err != nil {
		return nil, Info{}, fmt.Errorf("opening the selftest guest: %w", err)
	}
	info, err := describe(dir, f)
	if err != nil {
		return nil, Info{}, errors.Join(fmt.Errorf("opening the selftest guest: %w", err), f.Close())
	}
	return f, info, nil
}

func describe(dir fs.FS, f fs.File) (Info, error) {
	var info Info
	text, err := fs.ReadFile(dir, infoName)
	if err != nil {
		return info, err
	}
	if err := json.Unmarshal(text, &info); err != nil {
		return info, fmt.Errorf("reading %s: %w", infoName, err)
	}
	st, err := f.Stat()
	if err != nil {
		return info, err
	}
	if units.Bytes(st.Size()) != info.Size {
		return info, fmt.Errorf("%s has %d bytes, and %s says %d: build the guest again (make guest)", imageName, st.Size(), infoName, info.Size)
	}
	return info, nil
}
