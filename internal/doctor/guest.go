package doctor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// perGuest makes a check of one that looks at one guest.
func perGuest(check func(context.Context, *exam, Guest) Finding) func(context.Context, *exam) []Finding {
	return func(ctx context.Context, e *exam) []Finding {
		guests, err := e.guests(ctx)
		if err != nil {
			return one(broken(err.Error(), "Name a guest that runs: hurd-qemu-action doctor without --guest lists all of them."))
		}
		alive := slices.DeleteFunc(slices.Clone(guests), func(g Guest) bool { return !g.Alive }) // see checkLeftovers
		if len(alive) == 0 {
			return one(skipped("no guest runs (in " + e.Paths.Temp + ")"))
		}
		found := make([]Finding, len(alive))
		var wait sync.WaitGroup
		for i, g := range alive {
			wait.Go(func() { // a silent guest must not take the others' time
				found[i] = check(ctx, e, g)
				found[i].Text = filepath.Base(g.Dir) + ": " + found[i].Text
			})
		}
		wait.Wait()
		return found
	}
}

// checkProcess finds the process that listens at the monitor's socket.
func checkProcess(_ context.Context, e *exam, g Guest) Finding {
	p, err := e.listener(g.Socket)
	if err != nil {
		return skipped(err.Error())
	}
	text := fmt.Sprintf("process %d (%s)", p.pid, p.name)
	switch p.state {
	case 'T', 't':
		return broken(text+" is stopped", fmt.Sprintf("Let it go on: kill -CONT %d; a debugger or a Ctrl-Z has stopped it.", p.pid))
	case 'Z', 'X':
		return broken(text+" has ended", "End the run: it has not noticed.")
	case 'D':
		return slow(text+" waits for a disk", "Look at the host's disks (dmesg): when it stays so, a disk or a network file system hangs.")
	}
	return fine(text + " lives")
}

type processInfo struct {
	pid   int
	name  string
	state byte
}

// listener finds who has a listening socket open: its inode is in
// /proc/net/unix, and among the open files of the process (proc(5)).
func (e *exam) listener(socket string) (processInfo, error) {
	if e.Root == nil {
		return processInfo{}, errors.New("not asked")
	}
	inode := ""
	for line := range strings.Lines(e.text("proc/net/unix")) {
		if fields := strings.Fields(line); len(fields) == 8 && fields[7] == socket && fields[3] == "00010000" {
			inode = fields[6]
		}
	}
	if inode == "" {
		return processInfo{}, errors.New("its socket belongs to another container")
	}
	links, err := fs.Glob(e.Root, "proc/[0-9]*/fd/*")
	if err != nil {
		return processInfo{}, err
	}
	for _, link := range links {
		to, err := fs.ReadLink(e.Root, link)
		if err != nil || to != "socket:["+inode+"]" {
			continue
		}
		pid, err := strconv.Atoi(strings.Split(link, "/")[1])
		if err != nil || pid == os.Getpid() {
			continue
		}
		return e.process(pid)
	}
	return processInfo{}, errors.New("its process can't be seen: it belongs to another user or container")
}

// process reads name and state from /proc/PID/stat: "1 (name) S ...".
func (e *exam) process(pid int) (processInfo, error) {
	text := e.text(path.Join("proc", strconv.Itoa(pid), "stat"))
	begin, end := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')')
	if begin < 0 || end < begin || len(text) < end+3 {
		return processInfo{}, fmt.Errorf("process %d has just ended", pid)
	}
	return processInfo{pid, text[begin+1 : end], text[end+2]}, nil
}

// statuses are the states of a machine that are not well, and what to do
// (QAPI, RunState).
var statuses = map[string]struct {
	verdict   Verdict
	text, fix string
}{
	"paused":         {Broken, "the machine is paused", "Let it go on: hurd-qemu-action qmp cont."},
	"debug":          {Broken, "the machine is stopped by a debugger", "Let it go on: hurd-qemu-action qmp cont."},
	"prelaunch":      {Broken, "the machine was never started", "Let it go on: hurd-qemu-action qmp cont."},
	"suspended":      {Broken, "the guest has put itself to sleep", "Wake it: hurd-qemu-action qmp system_wakeup."},
	"inmigrate":      {Limited, "the machine is being loaded", "Wait; when it stays so, end the run and look at qemu.log."},
	"io-error":       {Broken, "a disk of the machine can't be read or written, and it waits", "Free space in the temporary directory, then: hurd-qemu-action qmp cont."},
	"internal-error": {Broken, "the accelerator has failed", "End the run, look at qemu.log and dmesg, and try accel: tcg."},
	"guest-panicked": {Broken, "the guest has panicked", "Look at the console's last lines."},
	"shutdown":       {Broken, "the guest has shut down or was reset, and QEMU waits", "Look at the console's last lines."},
	"watchdog":       {Broken, "the machine's watchdog has stopped it", "Look at the console's last lines."},
}

func checkMonitor(ctx context.Context, e *exam, g Guest) Finding {
	if e.Machine == nil {
		return skipped("not asked")
	}
	m, err := e.machine(ctx, g.Socket)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return broken("the monitor's socket is gone", "The run has ended, or somebody has removed its directory: look at the run's log.")
	case errors.Is(err, syscall.ECONNREFUSED):
		return broken("the monitor's socket refuses connections: QEMU is gone", "Look at the run's log and at qemu.log.")
	case errors.Is(err, fs.ErrPermission):
		return broken("the monitor's socket may not be used by this user", "Ask as the user who runs the guest, or as root.")
	case errors.Is(err, context.DeadlineExceeded):
		return broken("the monitor takes connections and says nothing", "It serves one client at a time: end the other one (qmp, socat). When there is none, QEMU hangs: see its process.")
	case err != nil:
		return broken(fmt.Sprintf("the monitor does not answer: %v", err), "Look at the run's log and at qemu.log.")
	}
	if s, ok := statuses[m.Status]; ok {
		return Finding{Verdict: s.verdict, Text: s.text + " (" + tidy(m.Status) + ")", Fix: []string{s.fix}}
	}
	return fine(fmt.Sprintf("QEMU %s answers, the machine is %s", tidy(m.Version), tidy(m.Status)))
}

// bannerTime bounds the wait for a server's first line: an emulated guest on a
// busy host has taken 4 s.
const bannerTime = 8 * time.Second

// sshPort is the guest's usual one.
const sshPort = 22

func checkSSH(ctx context.Context, e *exam, g Guest) Finding {
	if e.Machine == nil || e.Dial == nil {
		return skipped("not asked")
	}
	m, err := e.machine(ctx, g.Socket)
	if err != nil {
		return skipped("the monitor does not tell which port leads to it")
	}
	ports := m.sshFirst()
	found := make([]Finding, len(ports))
	var wait sync.WaitGroup
	for i, p := range ports { // at once: all that are silent take no longer than one
		wait.Go(func() { found[i] = e.ssh(ctx, p) })
	}
	wait.Wait()
	if i := slices.IndexFunc(found, func(f Finding) bool { return f.Verdict == Fine }); i >= 0 {
		return found[i]
	}
	if len(found) == 0 {
		return skipped("no port of the host leads into the guest, which runs without a network (network: none, or nic: none)")
	}
	return found[0]
}

// sshFirst are the ports, the guest's usual one for SSH before the others.
func (m Machine) sshFirst() []Port {
	var first, rest []Port
	for _, p := range m.Ports {
		if p.Guest == sshPort {
			first = append(first, p)
		} else {
			rest = append(rest, p)
		}
	}
	return append(first, rest...)
}

func (e *exam) ssh(ctx context.Context, p Port) Finding {
	to := fmt.Sprintf("%s, which leads to the guest's port %d", p.Address, p.Guest)
	ctx, cancel := context.WithTimeoutCause(ctx, bannerTime, errSilent)
	defer cancel()
	conn, err := e.Dial(ctx, "tcp", p.Address)
	if err != nil {
		return broken(fmt.Sprintf("%s, can't be reached: %v", to, err), "QEMU does not listen any more, or a firewall stands before 127.0.0.1: see its process and the loopback interface.")
	}
	defer func() { _ = conn.Close() }() // it was only listened to
	line, err := banner(ctx, conn)
	switch {
	case err == nil && strings.HasPrefix(line, "SSH-"):
		return fine(fmt.Sprintf("%s, answers: %s", to, tidy(line)))
	case err == nil:
		return broken(fmt.Sprintf("%s, does not speak SSH: %q", to, tidy(line)), "Say which port the guest's sshd has (ssh-port).")
	case errors.Is(err, errSilent):
		return slow(fmt.Sprintf("%s: %v", to, err), "The guest boots still, is too busy to answer, or hangs: look at the console's last lines.")
	case errors.Is(err, errClosed), errors.Is(err, syscall.ECONNRESET):
		return limited(fmt.Sprintf("%s: nothing in the guest listens there", to),
			"With transport: serial that is as it should be. Else the guest boots still, or its sshd does not run: look at the console for sshd, and whether the image has it (provision: console and transport: serial do without).")
	}
	return broken(fmt.Sprintf("%s: %v", to, err), "Look at the console's last lines.")
}

var errSilent = fmt.Errorf("nothing was said within %s", bannerTime)

// What is shown of a console.
const (
	consoleTail  = 8
	consoleBytes = 16 << 10
	quietTime    = 2 * time.Minute
)

func checkConsole(_ context.Context, e *exam, g Guest) Finding {
	if g.Serial == "" {
		return skipped("where its serial log is, is not known")
	}
	text, info, err := tail(g.Serial, consoleBytes)
	if err != nil {
		return skipped(fmt.Sprintf("its serial log can't be read: %v", reason(err)))
	}
	var lines []string
	for line := range strings.Lines(text) {
		if line = strings.TrimRight(tidy(line), " "); line != "" {
			lines = append(lines, line)
		}
	}
	if len(lines) == 0 {
		return slow("nothing was printed on it yet", "When it stays so, the boot loader has no serial console, or the disk does not boot: look at the screen (hurd-qemu-action qmp screendump screen.png).")
	}
	lines = lines[max(0, len(lines)-consoleTail):]
	quiet := max(0, e.Now().Sub(info.ModTime())).Round(time.Second)
	f := fine(fmt.Sprintf("the last was printed %s ago", quiet))
	if e.Explain != nil {
		if lost := e.Explain(text); len(lost) > 0 {
			f = broken(strings.Join(lost, "; "), "Look at the lines around it in "+g.Serial+".")
		}
	}
	if quiet > quietTime && f.Verdict == Fine {
		f = slow(fmt.Sprintf("nothing was printed for %s", quiet), "A script that prints nothing is quiet as well; when the guest boots, it hangs.")
	}
	f.Quote = lines
	return f
}

// tail reads the end of a regular file.
func tail(name string, limit int64) (string, fs.FileInfo, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0) // the opening of a fifo would wait for ever
	if err != nil {
		return "", nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	info, err := f.Stat()
	if err != nil {
		return "", nil, err
	}
	if !info.Mode().IsRegular() {
		return "", nil, errors.New("it is no file")
	}
	buf := make([]byte, min(limit, info.Size()))
	n, err := f.ReadAt(buf, info.Size()-int64(len(buf)))
	if err != nil && n == 0 && len(buf) > 0 {
		return "", nil, err
	}
	return string(bytes.ToValidUTF8(buf[:n], []byte("?"))), info, nil
}

// tidy makes a guest's line fit for a report: one line of what can be seen.
func tidy(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case r < ' ' || r >= 0x7f && r < 0xa0 || r >= 0x2028 && r <= 0x202e || r >= 0x2066 && r <= 0x2069:
			return -1
		}
		return r
	}, s)
	const longest = 200
	if runes := []rune(s); len(runes) > longest {
		return string(runes[:longest]) + "…"
	}
	return s
}
