package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"
)

// Probe finds out what a QEMU binary (a path, or a name to look up) can do.
// The answer is kept in cacheDir for as long as the binary stays the same
// file, because asking costs a process; an empty cacheDir keeps nothing. A
// cache that cannot be read, or written, is as good as none.
func Probe(ctx context.Context, binary, cacheDir string) (*Features, error) {
	id, err := identify(binary)
	if err != nil {
		return nil, err
	}
	path := cachePath(cacheDir, "qemu-features.json")
	var kept struct {
		Format   int       `json:"format"`
		Binary   identity  `json:"binary"`
		Features *Features `json:"features"`
	}
	if readCache(path, &kept) == nil && kept.Format == featuresFormat && kept.Binary == id && kept.Features != nil && len(kept.Features.Machines) > 0 {
		return kept.Features, nil
	}
	f, err := ask(ctx, id.Path)
	if err != nil {
		return nil, err
	}
	kept.Format, kept.Binary, kept.Features = featuresFormat, id, f
	_ = writeCache(path, kept) // the next run asks again
	return f, nil
}

// featuresFormat changes with the questions: what an earlier version of this
// program kept lacks the answers to new ones.
const featuresFormat = 3

// identity tells one build of a program from another.
type identity struct {
	Path     string `json:"path"`
	Size     int64  `json:"size"`
	Modified int64  `json:"modified"` // nanoseconds since 1970
}

func identify(binary string) (identity, error) {
	if binary == "" {
		binary = DefaultBinary
	}
	path, err := exec.LookPath(binary)
	if err != nil {
		return identity{}, fmt.Errorf("finding QEMU (Debian: apt-get install qemu-system-x86): %w", err)
	}
	if path, err = filepath.Abs(path); err != nil {
		return identity{}, fmt.Errorf("finding QEMU: %w", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return identity{}, fmt.Errorf("finding QEMU: %w", err)
	}
	return identity{path, info.Size(), info.ModTime().UnixNano()}, nil
}

func cachePath(dir, name string) string {
	if dir == "" {
		return ""
	}
	return filepath.Join(dir, name)
}

// errNoCache says that there is nothing in the cache to be trusted.
var errNoCache = errors.New("no cache")

// cacheLimit bounds what is read of a cache file; a real one has 20 KB.
const cacheLimit = 1 << 20

// readCache reads a JSON file that only this user, or root, can have written.
func readCache(path string, to any) error {
	if path == "" {
		return errNoCache
	}
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }() // only read
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o022 != 0 || !ownFile(info) {
		return fmt.Errorf("%s: %w: another user could have written it", path, errNoCache)
	}
	data, err := io.ReadAll(io.LimitReader(file, cacheLimit))
	if err != nil {
		return err
	}
	return json.Unmarshal(data, to)
}

func ownFile(info os.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && (int(stat.Uid) == os.Geteuid() || stat.Uid == 0)
}

// writeCache puts a JSON file in place at once, whole or not at all.
func writeCache(path string, value any) error {
	if path == "" {
		return nil
	}
	data, err := json.Marshal(value)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return renameio.WriteFile(path, data, 0o600)
}
