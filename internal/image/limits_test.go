package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestAnnouncedTooLarge holds that the space is checked before anything is
// received, and told in numbers.
func TestAnnouncedTooLarge(t *testing.T) {
	web := newSite(t, httptest.NewTLSServer)
	web.first["/disk.img"] = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(1<<47))
		_, _ = w.Write(rawDisk(1 << 20)) // the client gives up
	}
	s := web.store(t)
	_, err := s.Obtain(t.Context(), mustParse(t, web.URL+"/disk.img"), Want{Verify: VerifyNone})
	if !errors.Is(err, ErrSpace) || !strings.Contains(err.Error(), "not enough disk space in "+s.Dir+": 256 TiB are needed and ") ||
		!strings.HasSuffix(err.Error(), " are free; free some space, or set cache-dir to a directory with more") {
		t.Errorf("error %v", err)
	}
}

// bigDisk is a disk of 40 MiB without any holes.
func bigDisk() []byte {
	data := make([]byte, 40<<20)
	_, _ = rand.NewChaCha8([32]byte{3}).Read(data) // never fails
	clear(data[446:510])
	data[510], data[511] = 0x55, 0xaa
	return data
}

// roleLimited may write no file of more than 16 MiB.
func roleLimited(args []string) error {
	signal.Ignore(unix.SIGXFSZ)
	const limit = 16 << 20
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: limit, Max: limit}); err != nil {
		return err
	}
	src, err := ParseSource(args[1])
	if err != nil {
		return err
	}
	s := &Store{Dir: args[0]}
	_, err = s.Obtain(context.Background(), src, Want{})
	fmt.Println(err)
	return nil
}

// TestWriteFails has a file system that takes no more in the middle of an image.
func TestWriteFails(t *testing.T) {
	s := newStore(t)
	_, out := play(t, "limited", s.Dir, file(t, "disk.img.gz", gzipped(bigDisk())))
	line, err := out.ReadString('\n')
	if err != nil || !strings.Contains(line, "writing the unpacked disk, at 16 MiB, with ") || !strings.Contains(line, "file too large; the file system or a limit forbids files of that size") {
		t.Errorf("it says %q, %v", line, err)
	}
	if left := s.entries(imagesDir); len(left) > 0 {
		t.Errorf("kept: %q", left)
	}
}

// roleReader uses what is in a store that it may not write to.
func roleReader(args []string) error {
	for _, key := range []string{"v1", "v2"} {
		s := &Store{Dir: args[0]}
		var p Prepared
		b, err := s.Obtain(context.Background(), Source{Kind: KindPath, Path: args[1]}, Want{})
		if err == nil {
			p, err = s.Prepare(context.Background(), b, key, keep)
		}
		fmt.Printf("%t %v\n", p.Reused, errors.Join(err, b.Close(), p.Close()))
	}
	return nil
}

// TestStoreOfSomebodyElse lets nobody use a store of ours: what is there can be
// used, and the rest is told.
func TestStoreOfSomebodyElse(t *testing.T) {
	s := newStore(t)
	path := file(t, "disk.img.gz", gzipped(rawDisk(1<<20)))
	parent := filepath.Dir(filepath.Dir(path)) // of all temporary directories of this test
	if err := errors.Join(os.Chmod(path, 0o644), os.Chmod(parent, 0o755)); err != nil {
		t.Fatal(err)
	}
	b := mustObtain(t, s, path, Want{})
	if err := mustPrepare(t, s, b, "v1", keep).Close(); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(s.Dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			return os.Chmod(path, 0o555)
		}
		return errors.Join(err, os.Chmod(path, 0o444))
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // else the directory can't be removed by who is not root
		_ = filepath.WalkDir(s.Dir, func(path string, _ fs.DirEntry, err error) error {
			return errors.Join(err, os.Chmod(path, 0o700))
		})
	})
	cmd := exec.Command("/proc/self/exe", s.Dir, path)
	cmd.Env = append(os.Environ(), roleVariable+"=reader")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if os.Getuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: 65534, Gid: 65534}
	}
	out, err := cmd.Output() // and not what a test with coverage says in the end
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if err != nil || len(lines) != 2 || lines[0] != "true <nil>" || !strings.HasPrefix(lines[1], "false preparing "+path+": writing to the image store: ") ||
		!strings.HasSuffix(lines[1], "permission denied; check the permissions, or set cache-dir to a directory that can be written to") {
		t.Errorf("it says\n%s%v", out, err)
	}
}

// inNamespace plays a role that may mount.
func inNamespace(t *testing.T, role string) string {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", t.TempDir())
	cmd.Env = append(os.Environ(), roleVariable+"="+role)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Pdeathsig: syscall.SIGKILL, Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.Output() // and not what a test with coverage says in the end
	var ended *exec.ExitError
	if err != nil && !errors.As(err, &ended) || strings.Contains(string(out), "error: mount: ") {
		// Also with E2E_REQUIRED: containers usually forbid it, and what can be
		// tested without it was.
		t.Skipf("this kernel or container allows no namespaces with a disk of their own: %v\n%s", err, out)
	}
	if err != nil {
		t.Fatalf("%s%v", out, err)
	}
	return string(out)
}

func mountTmpfs(dir, size string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	return nil
}

func roleFull(args []string) error {
	data := bigDisk()
	chunked := false
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if !chunked {
			w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		}
		_, _ = w.Write(data) // the client gives up
	}))
	defer web.Close()
	src, err := ParseSource(web.URL + "/disk.img")
	if err != nil {
		return err
	}
	for i, name := range []string{"announced", "not announced"} {
		chunked = i == 1
		dir := filepath.Join(args[0], name)
		if err := mountTmpfs(dir, "72m"); err != nil {
			return err
		}
		s := &Store{Dir: dir}
		_, err := s.Obtain(context.Background(), src, Want{SHA256: sha(data)})
		fmt.Printf("%s: %v (tmp %q, images %q, downloads %q)\n", name, err, s.entries("tmp"), s.entries(imagesDir), s.entries(downloadsDir))
	}
	return nil
}

// TestFullDisk runs with a disk of 72 MiB: what is announced is refused before,
// what is not announced fails in the middle, and nothing stays.
func TestFullDisk(t *testing.T) {
	out := inNamespace(t, "full")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) != 2 {
		t.Fatalf("output:\n%s", out)
	}
	for i, says := range [][]string{
		{"not enough disk space in ", "144 MiB are needed and 72 MiB are free; free some space, or set cache-dir to a directory with more"},
		{"no space left on device", " free in ", "; free some space"},
	} {
		for _, part := range append(says, `(tmp [], images [], downloads [])`) {
			if !strings.Contains(lines[i], part) {
				t.Errorf("it says\n%s\nwant %q", lines[i], part)
			}
		}
	}
}

func roleReadOnly(args []string) error {
	dir := filepath.Join(args[0], "store")
	if err := mountTmpfs(dir, "96m"); err != nil {
		return err
	}
	disk := filepath.Join(args[0], "disk.img")
	raw := rawDisk(1 << 20)
	if err := os.WriteFile(disk, raw, 0o600); err != nil {
		return err
	}
	if err := os.WriteFile(disk+".gz", gzipped(raw), 0o600); err != nil {
		return err
	}
	s := &Store{Dir: dir, Embedded: embedded(raw)}
	use := func(source, key string) {
		var p Prepared
		b, err := s.Obtain(context.Background(), Source{Kind: KindPath, Path: source}, Want{})
		if err == nil {
			p, err = s.Prepare(context.Background(), b, key, keep)
		}
		fmt.Printf("%t %v\n", p.Reused, errors.Join(err, b.Close(), p.Close()))
	}
	use(disk, "v1")
	use(disk+".gz", "v1")
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	use(disk, "v1")
	use(disk+".gz", "v1")
	use(disk, "v2")
	_, err := s.Obtain(context.Background(), Source{Kind: KindSelftest, Name: "selftest"}, Want{})
	fmt.Println(err)
	return nil
}

// TestReadOnlyStore uses what is in a store that can't be written, and says so
// of what is not.
func TestReadOnlyStore(t *testing.T) {
	out := inNamespace(t, "read-only")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) != 6 || strings.Join(lines[:4], ",") != "false <nil>,false <nil>,true <nil>,true <nil>" {
		t.Fatalf("output:\n%s", out)
	}
	for i, what := range []string{"false preparing ", "obtaining selftest: "} {
		line := lines[4+i]
		if !strings.HasPrefix(line, what) || !strings.Contains(line, "read-only file system; the image store can't be written to: set cache-dir to a directory that can") {
			t.Errorf("it says\n%s", line)
		}
	}
}
