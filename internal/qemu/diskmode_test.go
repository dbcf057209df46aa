package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func TestDiskModes(t *testing.T) {
	disk := overlaid(6)
	disk.Cache, disk.AIO = CacheNone, AIONative
	uring := Disk{Image: Image{Format: "raw", FD: 8}, Cache: CacheWriteback, AIO: AIOUring}
	threads := Disk{Image: Image{Format: "raw", FD: 9}, Cache: CacheUnsafe, AIO: AIOThreads}
	spec := Spec{Hardware: Plan(hurd64, Overrides{}, recorded(t, "7.2")), Accel: AccelTCG, Disks: []Disk{disk, uring, threads}}
	golden(t, "argv/disk-modes.txt", lines(spec.Args()))
	for cache, want := range map[Cache]string{CacheUnsafe: "may be lost", CacheWriteback: "safe on the host's disk", CacheNone: "past the host's page cache", "": "may be lost"} {
		if got := cache.Cost(); !strings.Contains(got, want) {
			t.Errorf("%s costs %q", cache, got)
		}
	}
}

// diskOptions is a QEMU to try disks with.
func diskOptions(t *testing.T) StartOptions {
	t.Helper()
	needQEMU(t)
	f, err := Probe(deadline(t, 30*time.Second), *qemuFlag, "")
	if err != nil {
		t.Fatal(err)
	}
	return StartOptions{Binary: *qemuFlag, Features: f}
}

// TestE2EDiskModes holds that what TryDisk allows is what a machine then has,
// and that what it refuses could not be had.
func TestE2EDiskModes(t *testing.T) {
	o := diskOptions(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "disk.raw")
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []struct {
		cache Cache
		aio   AIO
	}{{CacheUnsafe, AIOThreads}, {CacheWriteback, AIOThreads}, {CacheNone, AIOThreads}, {CacheNone, AIONative}, {CacheWriteback, AIOUring}, {CacheNone, AIOUring}} {
		t.Run(string(mode.cache)+"+"+string(mode.aio), func(t *testing.T) {
			allowed := TryDisk(deadline(t, 30*time.Second), o, dir, mode.cache, mode.aio)
			spec, options := realSpec(t, firmware("", idle))
			spec.Disks = []Disk{{Image: Image{Path: path, Format: "raw"}, Cache: mode.cache, AIO: mode.aio}}
			if allowed != nil {
				refusedMode(t, allowed, mode.cache, mode.aio)
				return
			}
			m := startReal(t, spec, options)
			var blocks []struct {
				Inserted struct {
					Cache struct {
						Writeback, Direct bool
						NoFlush           bool `json:"no-flush"`
					}
				}
			}
			if err := m.Monitor().Execute(deadline(t, 20*time.Second), "query-block", nil, &blocks); err != nil || len(blocks) != 1 {
				t.Fatalf("query-block: %+v, %v", blocks, err)
			}
			if c := blocks[0].Inserted.Cache; !c.Writeback || c.Direct != (mode.cache == CacheNone) || c.NoFlush != (mode.cache == CacheUnsafe) {
				t.Errorf("the cache is %+v", c)
			}
			if got := hasFlag(t, m.PID(), path, unix.O_DIRECT); got != (mode.cache == CacheNone) {
				t.Errorf("O_DIRECT is %v", got)
			}
		})
	}
}

// refusedMode checks a refusal by what the kernel says when it is asked directly.
func refusedMode(t *testing.T, err error, cache Cache, aio AIO) {
	t.Helper()
	t.Logf("%v", err)
	var e *DiskModeError
	switch {
	case !errors.As(err, &e):
		t.Errorf("err = %v", err)
	case e.Input == "disk-aio" && (aio != AIOUring || setUpUring() == nil):
		t.Errorf("%v, and the kernel does it", err)
	case e.Input == "disk-cache" && cache != CacheNone:
		t.Error(err)
	}
}

// hasFlag tells whether a process has a file open with a flag (proc(5), fdinfo).
func hasFlag(t *testing.T, pid int, path string, flag int) bool {
	t.Helper()
	all, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range all {
		if target, err := os.Readlink(fd); err != nil || target != path {
			continue
		}
		info, err := os.ReadFile(strings.Replace(fd, "/fd/", "/fdinfo/", 1))
		if err != nil {
			t.Fatal(err)
		}
		var flags int
		for line := range strings.Lines(string(info)) {
			_, _ = fmt.Sscanf(line, "flags:\t%o", &flags)
		}
		return flags&flag != 0
	}
	t.Fatalf("process %d does not have %s open", pid, path)
	return false
}

// TestNoDirect pins what is said of a file system that refuses O_DIRECT, as
// tmpfs does before Linux 6.6.
func TestNoDirect(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "disk")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for cause, want := range map[error]string{
		unix.EINVAL: `disk-cache: "none": the file system of ` + dir + " (" + fileSystem(path) + ") cannot go past the page cache (O_DIRECT): use writeback, or put RUNNER_TEMP",
		unix.EACCES: "trying how to read the disk: open " + path + ": permission denied",
	} {
		err := tryDirect(path, func(name string, flags int, _ os.FileMode) (*os.File, error) {
			if flags != os.O_RDWR|unix.O_DIRECT {
				t.Errorf("opened with %#o", flags)
			}
			return nil, &os.PathError{Op: "open", Path: name, Err: cause}
		})
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v: %v; want %s", cause, err, want)
		}
	}
	if fileSystem("/proc") == fileSystem("/dev/shm") || fileSystem("/nowhere") != "of an unknown kind" {
		t.Errorf("/proc is %s, /dev/shm is %s, /nowhere is %s", fileSystem("/proc"), fileSystem("/dev/shm"), fileSystem("/nowhere"))
	}
}

// TestRefusedAIO pins what is said where a QEMU or a kernel cannot do it.
func TestRefusedAIO(t *testing.T) {
	if got := AIONative.refused("qemu-system-x86_64: -blockdev {\"a\": {}}: aio=native was specified, but is not supported in this build.\n").Error(); got !=
		`disk-aio: "native": this QEMU cannot use it: use threads (QEMU says: aio=native was specified, but is not supported in this build.)` {
		t.Error(got)
	}
	for cause, want := range map[error]string{
		unix.EPERM:  "Docker's default seccomp profile forbids it since Docker 25",
		unix.ENOSYS: "this kernel has none",
		unix.ENOMEM: "ulimit -l",
		unix.EIO:    "the kernel refuses it: input/output error",
		nil:         "this QEMU cannot use it",
	} {
		if got := whyNoUring(cause); !strings.Contains(got, want) {
			t.Errorf("%v: %s", cause, got)
		}
	}
	if !usesThreads("qemu: Unable to use linux io_uring, falling back to thread pool: Operation not permitted") || usesThreads("warning: something else") {
		t.Error("what QEMU 10 says of io_uring is not understood")
	}
}

// forbidUring does to this process, and all that it starts, what Docker's
// default seccomp profile does: io_uring_setup fails with EPERM.
func forbidUring() error {
	const nr = 0 // the offset in struct seccomp_data
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: nr},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: unix.SYS_IO_URING_SETUP},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return errno
	}
	return nil
}

// forbiddenUring is the main program of a process that tries io_uring where it
// is forbidden.
func forbiddenUring(binary, dir string) int {
	if err := forbidUring(); err != nil {
		fmt.Println("seccomp:", err)
		return 1
	}
	// No Context of a test is here; TryDisk has its own limit.
	for _, aio := range []AIO{AIOUring, AIONative} {
		fmt.Println(TryDisk(context.Background(), StartOptions{Binary: binary}, dir, CacheNone, aio))
	}
	return 0
}

// TestE2EForbiddenUring tries io_uring under a filter like Docker's.
func TestE2EForbiddenUring(t *testing.T) {
	diskOptions(t)
	cmd := exec.Command("/proc/self/exe", "-forbidden-uring", *qemuFlag, t.TempDir())
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s%s", err, out, stderr.String())
	}
	got := strings.Split(strings.TrimSpace(string(out)), "\n")
	const want = `disk-aio: "io_uring": the kernel does not let this process use it (Docker's default seccomp profile forbids it since Docker 25, and so can the sysctl kernel.io_uring_disabled): use threads, or native with disk-cache: none (QEMU says: `
	if len(got) != 2 || !strings.HasPrefix(got[0], want) || got[1] != "<nil>" {
		t.Errorf("got %q", got)
	}
}

// TestDirectDescriptors holds that a disk that goes past the cache is opened
// so, with all that lies below it.
func TestDirectDescriptors(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"overlay", "base"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	disk := overlaid(0)
	disk.Image.FD, disk.Image.Base.FD = 0, 0
	disk.Image.Path, disk.Image.Base.Path = filepath.Join(dir, "overlay"), filepath.Join(dir, "base")
	for _, cache := range []Cache{CacheUnsafe, CacheNone} {
		var files inheritance
		disk.Cache = cache
		if _, err := disk.inherit(&files); err != nil {
			t.Fatal(err)
		}
		var direct []bool
		for _, f := range files.files {
			flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
			if err != nil {
				t.Fatal(err)
			}
			direct = append(direct, flags&unix.O_DIRECT != 0)
		}
		files.close()
		if want := cache == CacheNone; !slices.Equal(direct, []bool{want, want}) {
			t.Errorf("%s: O_DIRECT of base and overlay is %v", cache, direct)
		}
	}
}
