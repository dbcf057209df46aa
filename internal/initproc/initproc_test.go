package initproc

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

const roleVariable = "INITPROC_TEST_ROLE"

// TestMain plays the init, or the program that it runs, in a new process.
func TestMain(m *testing.M) {
	role := os.Getenv(roleVariable)
	if program, ok := strings.CutPrefix(role, "init:"); ok {
		// Of a variable that is set twice the first value counts: with the old
		// one left in, the program would be another init, without end.
		if err := os.Setenv(roleVariable, program); err != nil {
			panic(err)
		}
		status, err := Run("/proc/self/exe", os.Args, os.Environ())
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(status)
	}
	if play, ok := programs[role]; ok {
		play()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

var programs = map[string]func(){
	"exit7":  func() { os.Exit(7) },
	"killed": func() { _ = syscall.Kill(os.Getpid(), syscall.SIGKILL); select {} },
	"signal": func() {
		c := make(chan os.Signal, 1)
		signal.Notify(c, syscall.SIGINT)
		fmt.Println("ready")
		fmt.Println((<-c).String())
	},
	"orphan": func() {
		// The shell ends at once and leaves a process to the init; its number
		// is the last thing that it says before it ends too.
		out, err := exec.Command("sh", "-c", "sh -c 'echo $$' &").Output()
		if err != nil {
			fmt.Println("error", err)
			return
		}
		pid, _ := strconv.Atoi(strings.TrimSpace(string(out)))
		for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
			if err := syscall.Kill(pid, 0); errors.Is(err, syscall.ESRCH) {
				fmt.Println("reaped")
				return
			}
		}
		fmt.Println("a zombie is left:", pid)
	},
	"leaves": func() {
		cmd := exec.Command("sh", "-c", "echo started; exec sleep 1000")
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			fmt.Println("error", err)
			return
		}
		line, _ := bufio.NewReader(out).ReadString('\n')
		fmt.Print(line)
	},
}

// inNamespace starts an init for the program in a PID namespace of its own.
func inNamespace(t *testing.T, program string) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), roleVariable+"=init:"+program)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
	}
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		if os.Getenv("E2E_REQUIRED") == "" && errors.Is(err, syscall.EPERM) {
			t.Skipf("this host lets nobody make a PID namespace: %v", err)
		}
		t.Fatal(err)
	}
	return cmd, bufio.NewReader(out)
}

func TestInit(t *testing.T) {
	for _, tc := range []struct {
		program, output string
		status          int
	}{
		{"exit7", "", 7},
		{"killed", "", 128 + 9},
		{"orphan", "reaped\n", 0},
		{"leaves", "started\n", 0},
	} {
		t.Run(tc.program, func(t *testing.T) {
			cmd, out := inNamespace(t, tc.program)
			text, err := io.ReadAll(out)
			if err != nil || string(text) != tc.output {
				t.Errorf("output = %q, %v; want %q", text, err, tc.output)
			}
			_ = cmd.Wait()
			if got := cmd.ProcessState.ExitCode(); got != tc.status {
				t.Errorf("exit status = %d, want %d", got, tc.status)
			}
		})
	}
}

func TestSignalsArePassedOn(t *testing.T) {
	cmd, out := inNamespace(t, "signal")
	if line, err := out.ReadString('\n'); line != "ready\n" {
		t.Fatalf("read %q, %v", line, err)
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if line, err := out.ReadString('\n'); line != "interrupt\n" {
		t.Errorf("the program got %q, %v", line, err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

func TestProgramThatIsNotThere(t *testing.T) {
	status, err := Run("/no/such/program", nil, nil)
	if status != statusBroken || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Run = %d, %v", status, err)
	}
}

func TestNotAnInit(t *testing.T) {
	if Needed() {
		t.Skip("the tests run as process 1")
	}
	if err := killRest(); err != nil {
		t.Errorf("killRest = %v", err) // and this process is still here
	}
}
