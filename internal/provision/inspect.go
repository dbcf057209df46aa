package provision

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/org/hurd-qemu-action/internal/ext2"
	"github.com/org/hurd-qemu-action/internal/platform"
	"github.com/org/hurd-qemu-action/internal/units"
)

// Hints narrow what Inspect looks for; the zero value lets it find out.
type Hints struct {
	Partition int // number of the root partition; 0: the one that looks like it
	// Prefer is the number of the partition that is taken of several that look
	// like it: where the root was when somebody looked. 0: none.
	Prefer int
}

// Inspect finds the root file system of a raw image and describes the system
// in it, without changing anything. The root is the only ext2, ext3 or ext4
// file system that holds /hurd, or, without any, the only one that holds /etc;
// hints decide between several.
// The error matches ErrNoRoot, ErrAmbiguousRoot, ext2.ErrNoTable or
// ext2.ErrTruncated when the image is to blame.
func Inspect(ctx context.Context, image string, hints Hints) (Guest, error) {
	root, family, err := findRoot(ctx, image, hints)
	if err != nil {
		return Guest{}, fmt.Errorf("inspecting %w", err)
	}
	defer func() { _ = root.Close() }() // opened for reading
	g, err := describe(root, family)
	if err != nil {
		return Guest{}, fmt.Errorf("inspecting %s of %s: %w", root.Partition(), image, err)
	}
	return g, nil
}

// findRoot opens the root file system.
func findRoot(ctx context.Context, image string, hints Hints) (*ext2.FS, platform.Family, error) {
	parts, err := partitionsOf(image)
	if err != nil {
		return nil, "", fmt.Errorf("%s: %w", image, err)
	}
	marks := []struct {
		dir    string
		family platform.Family
	}{{"/hurd", platform.Hurd}, {"/etc", platform.Linux}}
	found := map[string][]ext2.Partition{}
	var looked []string
	for _, part := range parts {
		if err := ctx.Err(); err != nil {
			return nil, "", context.Cause(ctx)
		}
		if hints.Partition != 0 && part.Number != hints.Partition {
			continue
		}
		why := "it holds neither /hurd nor /etc"
		dirs, err := dirsIn(image, part, "/hurd", "/etc")
		switch {
		case errors.Is(err, ext2.ErrTruncated):
			return nil, "", err
		case err != nil:
			why = err.Error()
		}
		for _, dir := range dirs {
			found[dir] = append(found[dir], part)
		}
		looked = append(looked, fmt.Sprintf("%s: %s", part, why))
	}
	for _, mark := range marks {
		at := found[mark.dir]
		if i := slices.IndexFunc(at, func(p ext2.Partition) bool { return p.Number == hints.Prefer }); i >= 0 && hints.Prefer != 0 {
			at = at[i : i+1]
		}
		switch len(at) {
		case 0:
		case 1:
			root, err := ext2.Open(image, at[0])
			return root, mark.family, err
		default:
			return nil, "", &AmbiguousRootError{Image: image, Candidates: at, Holds: mark.dir}
		}
	}
	if hints.Partition != 0 && len(looked) == 0 {
		for _, part := range parts {
			looked = append(looked, part.String())
		}
		return nil, "", fmt.Errorf("%w, and none has the wanted number %d", &NoRootError{image, looked}, hints.Partition)
	}
	return nil, "", &NoRootError{image, looked}
}

func partitionsOf(image string) ([]ext2.Partition, error) {
	file, err := os.Open(image)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }() // opened for reading
	stat, err := file.Stat()
	if err != nil {
		return nil, err
	}
	return ext2.Partitions(file, units.Bytes(stat.Size()))
}

// dirsIn returns which of some directories a partition's file system holds.
func dirsIn(image string, part ext2.Partition, dirs ...string) ([]string, error) {
	f, err := ext2.Open(image, part)
	if errors.Is(err, ext2.ErrNotExt2) {
		return nil, ext2.ErrNotExt2
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // opened for reading
	var found []string
	for _, dir := range dirs {
		info, err := f.Stat(dir)
		if err == nil && info.IsDir() {
			found = append(found, dir)
		}
	}
	return found, nil
}
