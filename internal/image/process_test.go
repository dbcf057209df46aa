package image

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/org/hurd-qemu-action/internal/units"
)

// roleVariable makes the test program play one of the roles instead: what
// happens to a process that is killed, or has a disk of its own, needs one.
const roleVariable = "HURD_QEMU_ACTION_IMAGE_ROLE"

var roles = map[string]func(args []string) error{
	"fetch": roleFetch, "peak": rolePeak, "prepare": rolePrepare,
	"limited": roleLimited, "reader": roleReader, "full": roleFull, "read-only": roleReadOnly,
}

func TestMain(m *testing.M) {
	role := roles[os.Getenv(roleVariable)]
	if role == nil {
		goleak.VerifyTestMain(m)
		return
	}
	if err := role(os.Args[1:]); err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
}

// play starts the test program in a role.
func play(t *testing.T, role string, args ...string) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), roleVariable+"="+role)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	return cmd, bufio.NewReader(out)
}

// kill waits for a line of the process and kills it as nobody can notice.
func kill(t *testing.T, cmd *exec.Cmd, out *bufio.Reader, line string) {
	t.Helper()
	got, err := out.ReadString('\n')
	if err != nil || got != line+"\n" {
		t.Errorf("the process said %q, %v; want %q", got, err, line)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
}

func roleFetch(args []string) error {
	dir, address, hash := args[0], args[1], args[2]
	src, err := ParseSource(address)
	if err != nil {
		return err
	}
	s := &Store{Dir: dir, Now: ticking()}
	s.Progress = func(r Report) {
		if r.Done >= units.MiB {
			fmt.Println("a part is there")
		}
	}
	_, err = s.Obtain(context.Background(), src, Want{SHA256: hash})
	return err
}

// rolePeak fetches, and says what memory it and its programs have taken at most.
func rolePeak(args []string) error {
	if err := roleFetch(args); err != nil {
		return err
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	var programs unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_CHILDREN, &programs); err != nil {
		return err
	}
	_, self, _ := strings.Cut(string(status), "VmHWM:")
	fmt.Println("peak", strings.Fields(self)[0], programs.Maxrss) // KiB
	return nil
}

// TestPeakMemory holds that fetching takes 32 MiB beside the decompressor's
// dictionary, however large the disk is.
func TestPeakMemory(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector takes several times the memory")
	}
	data := make([]byte, 64<<20)
	_, _ = rand.NewChaCha8([32]byte{4}).Read(data[:12<<20]) // never fails
	clear(data[:512])
	data[510], data[511] = 0x55, 0xaa
	for _, tc := range []struct {
		pack       string
		dictionary int // MiB
	}{{"gzip -1", 0}, {"xz -0 --lzma2=preset=0,dict=8MiB", 8}, {"zstd -1 --zstd=wlog=23", 8}, {"cat", 0}} {
		program, _, _ := strings.Cut(tc.pack, " ")
		needs(t, program)
		cmd := exec.Command("sh", "-c", tc.pack)
		cmd.Stdin = bytes.NewReader(data)
		packed, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		web := newSite(t, httptest.NewServer)
		web.mu.Lock() // see TestKilledWhileFetching
		web.files["/disk"] = packed
		web.mu.Unlock()
		role, out := play(t, "peak", filepath.Join(t.TempDir(), "store"), web.URL+"/disk", sha(packed))
		text, err := io.ReadAll(out)
		if err := errors.Join(err, role.Wait()); err != nil {
			t.Fatalf("%s%v", text, err)
		}
		var self, programs int
		_, last, _ := strings.Cut(string(text), "peak ")
		if _, err := fmt.Sscan(last, &self, &programs); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		t.Logf("%s: %d MiB, programs %d MiB", program, self>>10, programs>>10)
		if (self+programs)>>10 > 32+tc.dictionary {
			t.Errorf("%s: %d MiB, programs %d MiB, want at most 32 MiB and the dictionary of %d MiB", program, self>>10, programs>>10, tc.dictionary)
		}
	}
}

// TestKilledWhileFetching kills the process in the middle: the next one goes
// on with what was received, and sweeps the rest away.
func TestKilledWhileFetching(t *testing.T) {
	web := newSite(t, httptest.NewServer)
	data := rawDisk(4 << 20)
	web.mu.Lock() // the other process can't tell our race detector what came first
	web.files["/disk.img"] = data
	web.first["/disk.img"] = func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"`+sha(data)[:16]+`"`)
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		_, _ = w.Write(data[:2<<20]) // the client is killed
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}
	web.mu.Unlock()
	s := web.store(t)
	cmd, out := play(t, "fetch", s.Dir, web.URL+"/disk.img", sha(data))
	kill(t, cmd, out, "a part is there")
	if len(s.entries("tmp")) != 1 || len(s.entries(imagesDir)) != 0 {
		t.Errorf("after the kill: tmp %q, images %q", s.entries("tmp"), s.entries(imagesDir))
	}
	web.requests()
	mustObtain(t, s, web.URL+"/disk.img", Want{SHA256: sha(data)})
	if got := web.requests(); !strings.HasPrefix(got, "/disk.img bytes=") {
		t.Errorf("it did not go on, but asked %q", got)
	}
}

func rolePrepare(args []string) error {
	dir, path := args[0], args[1]
	s := &Store{Dir: dir, Progress: func(r Report) { fmt.Println(r.Step) }}
	src, err := ParseSource(path)
	if err != nil {
		return err
	}
	b, err := s.Obtain(context.Background(), src, Want{})
	if err != nil {
		return err
	}
	_, err = s.Prepare(context.Background(), b, "v1", func(context.Context, string) ([]byte, error) {
		fmt.Println("editing")
		select {} // until it is killed
	})
	return err
}

// TestKilledWhilePreparing kills the maker while another process waits: that
// one then makes the disk.
func TestKilledWhilePreparing(t *testing.T) {
	s := newStore(t)
	path := file(t, "a.img", rawDisk(1<<20))
	cmd, out := play(t, "prepare", s.Dir, path)
	b := mustObtain(t, s, path, Want{})
	said, err := out.ReadString('\n')
	if said != "editing\n" || err != nil {
		t.Fatalf("the process said %q, %v", said, err)
	}
	s.Progress = func(r Report) {
		if r.Step == StepWait {
			if err := cmd.Process.Kill(); err != nil {
				t.Error(err)
			}
		}
	}
	p := mustPrepare(t, s, b, "v1", keep)
	if p.Reused {
		t.Error("the disk of the killed process was used")
	}
	_ = cmd.Wait() // it was killed
}

// TestWaitCanceled holds that a wait for another process ends with the context.
func TestWaitCanceled(t *testing.T) {
	s := newStore(t)
	path := file(t, "a.img", rawDisk(1<<20))
	cmd, out := play(t, "prepare", s.Dir, path)
	if said, err := out.ReadString('\n'); said != "editing\n" || err != nil {
		t.Fatalf("the process said %q, %v", said, err)
	}
	b := mustObtain(t, s, path, Want{})
	stop := errors.New("stop requested")
	ctx, cancel := context.WithCancelCause(t.Context())
	s.Progress = func(Report) { cancel(stop) }
	if _, err := s.Prepare(ctx, b, "v1", keep); !errors.Is(err, stop) {
		t.Errorf("error %v, want the cause", err)
	}
	// The waiting goroutine ends with the other process; goleak looks for it.
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	s.sweep()
}
