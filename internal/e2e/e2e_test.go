package e2e

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/org/hurd-qemu-action/internal/cli"
)

// asProgram makes the test binary be the program itself.
const asProgram = "HURD_QEMU_ACTION_TEST_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		c := cli.Command{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Args: os.Args[1:], Environ: os.Environ()}
		os.Exit(c.Main())
	}
	status := m.Run()
	for _, dir := range scratch {
		_ = os.RemoveAll(dir) // what is left takes room and nothing else
	}
	os.Exit(status)
}

// scratch are directories that all tests share, removed at the end.
var (
	scratchMu sync.Mutex
	scratch   []string
)

func makeScratch(name string) (string, error) {
	dir, err := os.MkdirTemp("", name)
	scratchMu.Lock()
	defer scratchMu.Unlock()
	scratch = append(scratch, dir)
	return dir, err
}

// needGuest skips, loudly, what cannot run here; with E2E_REQUIRED it fails instead.
func needGuest(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("boots a guest")
	}
	missing := ""
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		missing = "qemu-system-x86_64 is not installed"
	} else if _, err := os.Stat("../selftest/assets/selftest.img.zst"); err != nil {
		missing = "the selftest guest is not built (make guest)"
	}
	if missing != "" && os.Getenv("E2E_REQUIRED") == "1" {
		t.Fatal(missing)
	} else if missing != "" {
		t.Skip(missing)
	}
}

// sharedCache keeps the prepared guest for all tests of one run.
var sharedCache = sync.OnceValues(func() (string, error) { return makeScratch("hurd-e2e-cache-") })

// program is one run of the program.
type program struct {
	t              *testing.T
	cmd            *exec.Cmd
	stdout, stderr *watched
	workspace      string
	temp           string
	output         string // GITHUB_OUTPUT
	started        map[int]string
	keep           []string // what may stay in the workspace beside the logs
	filled         bool     // anything may
}

type setup struct {
	args   []string
	env    []string
	action bool              // as the runner runs it
	cache  string            // empty: the shared one
	stdout *os.File          // instead of a buffer
	warm   bool              // saved machines may be used; else each run boots
	files  map[string]string // in the workspace

	workspace string // which may hold anything; empty: an empty one
}

// start begins a run in a workspace of its own.
func start(t *testing.T, s setup) *program {
	t.Helper()
	p := &program{t: t, workspace: t.TempDir(), temp: t.TempDir(), stdout: newWatched(), stderr: newWatched(), started: map[int]string{}}
	p.output = filepath.Join(t.TempDir(), "output")
	if p.filled = s.workspace != ""; p.filled {
		p.workspace = s.workspace
	}
	if s.cache == "" {
		dir, err := sharedCache()
		if err != nil {
			t.Fatal(err)
		}
		s.cache = dir
	}
	if !s.warm {
		s.env = append(s.env, "INPUT_SNAPSHOT=off")
		if len(s.args) > 0 && s.args[0] == "run" {
			s.args = slices.Insert(slices.Clone(s.args), 1, "--snapshot=off")
		}
	}
	for name, content := range s.files {
		if err := os.WriteFile(filepath.Join(p.workspace, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p.cmd = exec.Command("/proc/self/exe", s.args...)
	p.cmd.Dir = p.workspace
	p.cmd.Env = append([]string{
		asProgram + "=1", "PATH=" + os.Getenv("PATH"), "HOME=" + s.cache, "XDG_CACHE_HOME=" + s.cache, "RUNNER_TEMP=" + p.temp,
		"GORACE=halt_on_error=1",
	}, s.env...)
	if s.action {
		p.cmd.Env = append(p.cmd.Env, "GITHUB_ACTIONS=true", "GITHUB_WORKSPACE="+p.workspace, "GITHUB_OUTPUT="+p.output)
	}
	p.cmd.Stdout, p.cmd.Stderr = p.stdout, p.stderr
	if s.stdout != nil {
		p.cmd.Stdout = s.stdout
	}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return p
}

// wait waits for the end, and holds what every end leaves: no process, no
// file but the logs. It returns the exit status.
func (p *program) wait() int {
	p.t.Helper()
	p.record()
	timer := time.AfterFunc(4*time.Minute, func() { _ = p.cmd.Process.Kill() })
	defer timer.Stop()
	_ = p.cmd.Wait()
	for pid, name := range p.started {
		if now := processName(pid); now != "" && now == name {
			p.t.Errorf("process %d (%s) is left", pid, name)
		}
	}
	if entries, err := os.ReadDir(p.temp); err != nil || len(entries) != 0 {
		p.t.Errorf("left in the temporary directory: %v, %v", entries, err)
	}
	entries, err := os.ReadDir(p.workspace)
	entries = slices.DeleteFunc(entries, func(e os.DirEntry) bool {
		return e.Name() == ".hurd" || slices.Contains(p.keep, e.Name()) || p.filled && !strings.HasPrefix(e.Name(), ".hurd-")
	})
	if err != nil || len(entries) != 0 {
		p.t.Errorf("left in the workspace: %v, %v", entries, err)
	}
	status := p.cmd.ProcessState.ExitCode()
	if p.t.Failed() {
		p.t.Logf("status %d\nstdout:\n%s\nstderr:\n%s", status, p.stdout, p.stderr)
	}
	return status
}

// record remembers the processes that the run has now, and their descendants.
func (p *program) record() {
	parents := map[int][]int{}
	entries, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range entries {
		pid, _ := strconv.Atoi(strings.Split(file, "/")[2])
		if _, fields, ok := stat(pid); ok {
			parent, _ := strconv.Atoi(fields[1])
			parents[parent] = append(parents[parent], pid)
		}
	}
	var walk func(int)
	walk = func(pid int) {
		for _, child := range parents[pid] {
			p.started[child] = processName(child)
			walk(child)
		}
	}
	walk(p.cmd.Process.Pid)
}

// stat splits /proc/PID/stat into the command and what follows it: state, parent, ...
func stat(pid int) (name string, fields []string, ok bool) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", nil, false
	}
	open, end := bytes.IndexByte(text, '('), bytes.LastIndexByte(text, ')')
	if open < 0 || end < open {
		return "", nil, false
	}
	return string(text[open+1 : end]), strings.Fields(string(text[end+1:])), true
}

// processName is the command of a process together with its start time, so
// that a number that was given to another process does not deceive.
func processName(pid int) string {
	name, fields, ok := stat(pid)
	if !ok || len(fields) < 20 || fields[0] == "Z" {
		return ""
	}
	return name + " started " + fields[19]
}

// qemu returns the process number of the run's QEMU.
func (p *program) qemu() int {
	p.t.Helper()
	p.record()
	for pid, name := range p.started {
		if strings.HasPrefix(name, "qemu-") {
			return pid
		}
	}
	p.t.Fatalf("no QEMU among %v", p.started)
	return 0
}

// interrupt sends SIGINT to the run.
func (p *program) interrupt() {
	p.t.Helper()
	p.record()
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		p.t.Fatal(err)
	}
}

func (p *program) outputs() map[string]string {
	p.t.Helper()
	return commandFile(p.t, p.output)
}

// commandFile reads what was written to a file of the runner.
func commandFile(t *testing.T, file string) map[string]string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]string{}
	lines := strings.Split(string(text), "\n")
	for i := 0; i < len(lines); i++ {
		name, delimiter, ok := strings.Cut(lines[i], "<<")
		if !ok {
			continue
		}
		end := slices.Index(lines[i+1:], delimiter) + i + 1
		values[name] = strings.Join(lines[i+1:end], "\n")
		i = end
	}
	return values
}

// watched is a buffer that can be waited upon.
type watched struct {
	mu   sync.Mutex
	cond *sync.Cond
	buf  bytes.Buffer
}

func newWatched() *watched {
	w := &watched{}
	w.cond = sync.NewCond(&w.mu)
	return w
}

func (w *watched) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cond.Broadcast()
	return w.buf.Write(p)
}

func (w *watched) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buf.String()
}

// await returns when one of the texts has been written.
func (w *watched) await(t *testing.T, texts ...string) {
	t.Helper()
	expired := false
	timer := time.AfterFunc(3*time.Minute, func() {
		w.mu.Lock()
		expired = true
		w.cond.Broadcast()
		w.mu.Unlock()
	})
	defer timer.Stop()
	w.mu.Lock()
	defer w.mu.Unlock()
	written := func(text string) bool { return strings.Contains(w.buf.String(), text) }
	for !slices.ContainsFunc(texts, written) {
		if expired {
			t.Fatalf("%q was not written in time, but\n%s", texts, w.buf.String())
		}
		w.cond.Wait()
	}
}

func has(t *testing.T, what, text string, wanted ...string) {
	t.Helper()
	wanted = slices.DeleteFunc(wanted, func(w string) bool { return strings.Contains(text, w) })
	if len(wanted) > 0 {
		t.Errorf("%s lacks %q:\n%s", what, wanted, text)
	}
}

var _ io.Writer = (*watched)(nil)
