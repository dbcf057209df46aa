package qemu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"

	"github.com/org/hurd-qemu-action/internal/process"
	"github.com/org/hurd-qemu-action/internal/qemu/qmp"
	"github.com/org/hurd-qemu-action/internal/units"
)

// SocketName is the file in the run directory where the monitor for tools listens.
const SocketName = "qmp.sock"

// maxSocketPath is the longest path that a Unix socket can have (unix(7)).
const maxSocketPath = 107

// readyTimeout is how long QEMU may take until its monitor answers.
const readyTimeout = 10 * time.Second

// StartOptions say how QEMU is started; what it is to be is in the Spec.
type StartOptions struct {
	Binary   string        // QEMU; "" means DefaultBinary
	Features *Features     // of that binary; nil means that it has a sandbox, and takes -runas
	RunDir   string        // an existing directory of mode 0700 for the tools' socket; "" makes none
	Log      io.Writer     // gets the command line and all that QEMU writes; nil drops it
	User     User          // who QEMU runs as when we are root; zero means Nobody
	Access   Access        // how it gets at KVM: Decision.Access
	Ready    time.Duration // how long until its monitor must answer; 0 means 10 s

	Processors []int       // of the host, that QEMU may run on; none means all that we may
	Trace      io.Writer   // gets what Spec.Trace asks for; nil drops it
	TraceLimit units.Bytes // of Trace; 0 means 64 MiB
}

// command prepares a QEMU with everything that it inherits.
func (o StartOptions) command(ctx context.Context, s Spec, files *inheritance) (*exec.Cmd, error) {
	s, err := s.inherit(files)
	if err != nil {
		return nil, err
	}
	if s.Accel == AccelKVM {
		if s.KVMFD, err = o.Access.open(files); err != nil {
			return nil, err
		}
	}
	credential, drop := o.identity(os.Geteuid(), readUIDMap())
	s.DropUser = drop
	s.NoSandbox = s.NoSandbox || (o.Features != nil && !o.Features.Sandbox)
	binary := o.Binary
	if binary == "" {
		binary = DefaultBinary
	}
	cmd := process.Command(ctx, binary, s.Args()...)
	cmd.SysProcAttr.Credential = credential
	cmd.ExtraFiles = files.files
	return cmd, nil
}

// Start starts a machine and returns when its monitor answers. ctx bounds
// the starting only; the machine runs until Stop, or its own end. It dies
// with this process, and a terminal's interrupt does not reach it. When
// QEMU ends before it is ready the error is an *ExitError.
func Start(ctx context.Context, s Spec, o StartOptions) (*Machine, error) {
	m, err := launch(ctx, s, o)
	if err != nil {
		return nil, fmt.Errorf("starting QEMU: %w", err)
	}
	if err := m.connect(ctx, o); err != nil {
		// Its end, when it has ended, says more than a monitor that is silent.
		if stopErr := m.Stop(context.WithoutCancel(ctx)); stopErr != nil {
			err = errors.Join(err, stopErr)
		}
		return nil, fmt.Errorf("starting QEMU: %w", err)
	}
	return m, nil
}

// launch makes the process and all that it is tied to.
func launch(ctx context.Context, s Spec, o StartOptions) (*Machine, error) {
	m := newMachine(s, o)
	if err := m.launch(ctx, s, o); err != nil {
		m.release()
		return nil, err
	}
	return m, nil
}

func (m *Machine) launch(ctx context.Context, s Spec, o StartOptions) error {
	var files inheritance
	defer files.close() // QEMU has its own by then
	if err := m.channels(&s, o, &files); err != nil {
		return err
	}
	// The machine outlives ctx, which is only for starting it.
	cmd, err := o.command(context.WithoutCancel(ctx), s, &files)
	if err != nil {
		return err
	}
	cmd.Stdout, cmd.Stderr = m.transcript, m.transcript
	m.cmd = cmd
	if o.Log != nil {
		if _, err := fmt.Fprintf(o.Log, "%s\n", quote(cmd.Args)); err != nil {
			return fmt.Errorf("writing QEMU's log: %w", err)
		}
	}
	return m.own(o.Processors)
}

// channels makes the sockets between QEMU, us and the tools.
func (m *Machine) channels(s *Spec, o StartOptions, files *inheritance) error {
	serial, fd, err := connection("serial", files)
	if err != nil {
		return err
	}
	m.console, s.SerialFD = &console{Conn: serial}, fd
	if s.SecondSerial {
		if serial, s.Serial2FD, err = connection("second serial", files); err != nil {
			return err
		}
		m.second = &console{Conn: serial}
	}
	if m.monitorConn, s.MonitorFD, err = connection("monitor", files); err != nil {
		return err
	}
	if s.NIC != "" && s.NIC != NoNIC {
		if m.packets, err = newPackets(s, files); err != nil {
			return err
		}
	}
	if s.Trace != "" {
		if m.trace, err = newTrace(o, s, files); err != nil {
			return err
		}
	}
	if o.RunDir == "" {
		return nil
	}
	path := filepath.Join(o.RunDir, SocketName)
	listener, err := listen(path)
	if err != nil {
		return err
	}
	m.socket = path
	s.ToolsFD = files.add(listener)
	return nil
}

// connection makes a socket pair, gives one end to QEMU and returns ours.
func connection(name string, files *inheritance) (net.Conn, int, error) {
	ours, theirs, err := socketpair(name)
	if err != nil {
		return nil, 0, err
	}
	fd := files.add(theirs)
	conn, err := net.FileConn(ours)
	_ = ours.Close() // conn has its own
	if err != nil {
		return nil, 0, fmt.Errorf("using the %s socket: %w", name, err)
	}
	return conn, fd, nil
}

// listen makes the tools' socket, for this user only, and returns it as a
// file; QEMU could not make it itself in a directory that is not its own.
func listen(path string) (*os.File, error) {
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("making the monitor's socket: the path %s has %d bytes, and a socket's at most %d: use a run directory with a shorter name",
			path, len(path), maxSocketPath)
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("making the monitor's socket: %w", err)
	}
	listener.SetUnlinkOnClose(false)
	file, err := listener.File()
	_ = listener.Close() // file goes on listening
	if err == nil {
		err = os.Chmod(path, 0o600)
	}
	if err != nil {
		_ = os.Remove(path) // the failure above is the news
		return nil, fmt.Errorf("making the monitor's socket: %w", err)
	}
	return file, nil
}

// own starts the process in a goroutine that keeps its thread until the
// process has ended: the kernel's "die with your parent" means that thread.
func (m *Machine) own(processors []int) error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		m.started = time.Now()
		clean, err := m.startOn(processors)
		if clean {
			defer runtime.UnlockOSThread()
		} // else the thread ends with this goroutine
		started <- err
		if err == nil {
			_ = m.cmd.Wait() // how it ended is in cmd.ProcessState
			m.ended()
		}
	}()
	return <-started
}

// startOn starts the process on some processors of the host only: it inherits
// them from this thread, and needs no right to change them itself. It tells
// whether the thread is as it was.
func (m *Machine) startOn(processors []int) (clean bool, err error) {
	if len(processors) == 0 {
		return true, m.cmd.Start()
	}
	restore, err := confine(processors)
	if err != nil {
		return true, err
	}
	err = m.cmd.Start()
	return restore(), err
}

// connect waits for the monitor and learns what state the machine is in.
func (m *Machine) connect(ctx context.Context, o StartOptions) error {
	limit := o.Ready
	if limit == 0 {
		limit = readyTimeout
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("QEMU's monitor did not answer within %v", limit))
	defer cancel()
	conn, err := qmp.New(ctx, m.monitorConn)
	if err != nil {
		return m.orExit(err)
	}
	m.watch(conn)
	m.boundTrace(ctx)
	var status struct {
		Status string `json:"status"`
	}
	if err := conn.Execute(ctx, "query-status", nil, &status); err != nil {
		return m.orExit(err)
	}
	m.setInitial(status.Status)
	return nil
}

// orExit prefers the process's end as the cause of a monitor that is gone.
func (m *Machine) orExit(err error) error {
	if errors.Is(err, qmp.ErrHangup) {
		timer := time.NewTimer(exitGrace)
		defer timer.Stop()
		select {
		case <-m.done:
		case <-timer.C:
		}
	}
	if m.hasEnded() {
		return m.Err()
	}
	return err
}
