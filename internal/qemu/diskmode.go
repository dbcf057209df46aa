package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/org/hurd-qemu-action/internal/process"
)

// Cache is how the host caches a disk that the guest writes to.
type Cache string

// The modes, by QEMU's own names for them.
const (
	CacheUnsafe    Cache = "unsafe"    // the zero value, too
	CacheWriteback Cache = "writeback" // what the guest flushes is on the host's disk
	CacheNone      Cache = "none"      // as writeback, and past the host's page cache
)

// Cost says what a mode means for the safety of what is on the disk.
func (c Cache) Cost() string {
	switch c {
	case CacheWriteback:
		return "what the guest flushes is safe on the host's disk, and the guest waits for that"
	case CacheNone:
		return "past the host's page cache; what the guest flushes is safe on the host's disk, and the guest waits for that and for every read"
	}
	return "flushes are ignored: if this host dies, whatever the guest wrote may be lost"
}

func (c Cache) direct() bool { return c == CacheNone }
func (c Cache) unsafe() bool { return c == CacheUnsafe || c == "" }

// AIO is how QEMU reads and writes files.
type AIO string

// The ways, by QEMU's own names for them.
const (
	AIOThreads AIO = "threads" // the zero value, too
	AIONative  AIO = "native"  // Linux AIO; needs CacheNone
	AIOUring   AIO = "io_uring"
)

// DiskModeError says why a disk can't be used in a mode.
type DiskModeError struct {
	Input   string // "disk-cache" or "disk-aio"
	Value   string
	Message string // why, and what to use instead
}

// Error gives it in one line.
func (e *DiskModeError) Error() string { return fmt.Sprintf("%s: %q: %s", e.Input, e.Value, e.Message) }

// tryTime bounds a trial, which takes 0.1 s on a quiet host.
const tryTime = 20 * time.Second

// TryDisk finds out whether QEMU can use files of a directory in these modes:
// it has a QEMU, without a machine and as confined as any, read one. What the
// build, the kernel, the file system, a container's seccomp profile and QEMU's
// user have to do with it is thus asked all at once. The error is a
// *DiskModeError where the modes are to blame.
func TryDisk(ctx context.Context, o StartOptions, dir string, cache Cache, aio AIO) error {
	if !cache.direct() && (aio == AIOThreads || aio == "") {
		return nil // every QEMU does that everywhere
	}
	file, err := os.CreateTemp(dir, "try-disk-*.raw")
	if err != nil {
		return fmt.Errorf("trying how to read the disk: %w", err)
	}
	name := file.Name()
	defer func() { _ = os.Remove(name) }() //nolint:gosec // it was made here
	if err := errors.Join(file.Truncate(tryBytes), file.Close()); err != nil {
		return fmt.Errorf("trying how to read the disk: %w", err)
	}
	if cache.direct() {
		if err := tryDirect(name, os.OpenFile); err != nil {
			return err
		}
	}
	if aio == AIOThreads || aio == "" {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, tryTime, errors.New("QEMU took too long"))
	defer cancel()
	return tryAIO(ctx, o, name, cache, aio)
}

// tryBytes is the size of the file that is tried.
const tryBytes = 64 << 10

// tryDirect tells why a file can't be used past the page cache.
func tryDirect(name string, open func(string, int, os.FileMode) (*os.File, error)) error {
	file, err := open(name, os.O_RDWR|unix.O_DIRECT, 0)
	if err == nil {
		return file.Close()
	}
	if !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("trying how to read the disk: %w", err)
	}
	return &DiskModeError{"disk-cache", string(CacheNone), fmt.Sprintf(
		"the file system of %s (%s) cannot go past the page cache (O_DIRECT): use writeback, or put RUNNER_TEMP (TMPDIR) and cache-dir on another file system, such as ext4 or xfs",
		filepath.Dir(name), fileSystem(name))}
}

// fileSystem names the kind of file system that a file is on.
func fileSystem(name string) string {
	var s unix.Statfs_t
	if unix.Statfs(name, &s) != nil {
		return "of an unknown kind"
	}
	names := map[int64]string{
		unix.TMPFS_MAGIC: "tmpfs", unix.RAMFS_MAGIC: "ramfs", unix.OVERLAYFS_SUPER_MAGIC: "overlayfs", unix.EXT4_SUPER_MAGIC: "ext4",
		unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs", unix.NFS_SUPER_MAGIC: "nfs", unix.FUSE_SUPER_MAGIC: "fuse",
	}
	if n, ok := names[s.Type]; ok {
		return n
	}
	return fmt.Sprintf("kind 0x%x", s.Type)
}

// tryAIO has a QEMU read the file.
func tryAIO(ctx context.Context, o StartOptions, name string, cache Cache, aio AIO) error {
	var files inheritance
	defer files.close()
	disk, err := Disk{Image: Image{Path: name, Format: "raw"}, Cache: cache, AIO: aio}.inherit(&files)
	if err != nil {
		return fmt.Errorf("trying how to read the disk: %w", err)
	}
	credential, drop := o.identity(os.Geteuid(), readUIDMap())
	a := &args{}
	a.add("-nodefaults", "-no-user-config", "-machine", "none", "-display", "none", "-S", "-qmp", "stdio")
	Spec{NoSandbox: o.Features != nil && !o.Features.Sandbox, DropUser: drop}.confinementArgs(a)
	disk.Image.args(a, "try", disk.use())
	binary := o.Binary
	if binary == "" {
		binary = DefaultBinary
	}
	cmd := process.Command(ctx, binary, a.list...)
	cmd.SysProcAttr.Credential, cmd.ExtraFiles = credential, files.files
	var stdout, stderr process.Tail
	stdout.Limit, stderr.Limit = tailLimit, tailLimit
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(tryReading), &stdout, &stderr
	err = process.Run(ctx, cmd)
	if ctx.Err() != nil {
		return fmt.Errorf("trying how to read the disk: %w", context.Cause(ctx))
	}
	if err == nil && strings.Contains(stdout.String(), tryDone) && !usesThreads(stderr.String()) {
		return nil
	}
	return aio.refused(stderr.String())
}

// usesThreads tells whether QEMU could not do what it was asked to. Newer
// versions say so on standard error, and read with threads instead.
func usesThreads(stderr string) bool {
	return strings.Contains(stderr, "Unable to use") || strings.Contains(stderr, "falling back")
}

const tailLimit = 4 << 10

// tryReading is what the monitor is told: qemu-io writes its answer to
// standard output, in plain text.
const tryReading = `{"execute":"qmp_capabilities"}
{"execute":"human-monitor-command","arguments":{"command-line":"qemu-io try \"read 0 4096\""}}
{"execute":"quit"}
`

// tryDone is what qemu-io says when it has read the bytes.
const tryDone = "read 4096/4096 bytes"

// refused makes an error of what QEMU said about a way to read.
func (a AIO) refused(stderr string) error {
	e := &DiskModeError{Input: "disk-aio", Value: string(a)}
	e.Message = "this QEMU cannot use it: use threads"
	if a == AIOUring {
		e.Message = whyNoUring(setUpUring()) + ": use threads, or native with disk-cache: none"
	}
	if text := lastLine(stderr); text != "" {
		e.Message += " (QEMU says: " + text + ")"
	}
	return e
}

// lastLine is the last thing that a program said, without what it quotes of
// its own command line.
func lastLine(text string) string {
	text = strings.TrimSpace(text)
	text = text[strings.LastIndexByte(text, '\n')+1:]
	return strings.TrimLeft(text[strings.LastIndexByte(text, '}')+1:], ": ")
}

// setUpUring asks the kernel for a ring, as QEMU does.
func setUpUring() error {
	var params [120]byte                                                                          // struct io_uring_params, all zero
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&params)), 0) //nolint:gosec // no package has this call
	if errno != 0 {
		return errno
	}
	return unix.Close(int(fd))
}

func whyNoUring(err error) string {
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return "the kernel does not let this process use it (Docker's default seccomp profile forbids it since Docker 25, and so can the sysctl kernel.io_uring_disabled)"
	case errors.Is(err, unix.ENOSYS):
		return "this kernel has none"
	case errors.Is(err, unix.ENOMEM):
		return "the limit of locked memory (ulimit -l) is too low for it"
	case err != nil:
		return "the kernel refuses it: " + err.Error()
	}
	return "this QEMU cannot use it, or is not allowed to where we are (the sysctl kernel.io_uring_disabled)"
}
