package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/term"

	"github.com/org/hurd-qemu-action/internal/lifecycle"
)

type consoleCommand struct {
	Guest  string `name:"guest" placeholder:"WHICH" help:"Which guest, where several run: its run directory, or the end of that."`
	Second bool   `name:"second" help:"The second serial port (see serial-port) instead of the console."`
}

// escapeKey begins what is for us and not for the guest, as with telnet.
const escapeKey = 0x1d // Ctrl-]

const consoleHelp = `Ctrl-] q leaves, Ctrl-] r types a command that tells the guest's shell the size of this terminal, Ctrl-] Ctrl-] types Ctrl-].`

// console connects the terminal, or standard input and output, to a guest.
func (c Command) console(cmd *consoleCommand) int {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	defer watchSignals(cancel)()
	err := c.connect(ctx, cancel, cmd)
	var interrupt lifecycle.Interrupt
	switch {
	case errors.As(context.Cause(ctx), &interrupt):
		return 128 + int(interrupt.Signal)
	case err != nil:
		fmt.Fprintf(c.Stderr, "hurd-qemu-action: %v\n", err)
		return statusUsage
	}
	return 0
}

func (c Command) connect(ctx context.Context, cancel context.CancelCauseFunc, cmd *consoleCommand) error {
	host, err := c.host(".")
	if err != nil {
		return err
	}
	dir, err := lifecycle.FindRunning(ctx, host.Temp, cmd.Guest)
	if err != nil {
		return err
	}
	socket := lifecycle.ConsoleSocket
	if cmd.Second {
		socket = lifecycle.SecondSerialSocket
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", filepath.Join(dir, socket))
	switch {
	case errors.Is(err, os.ErrNotExist) && cmd.Second:
		return errors.New("the guest has no second serial port: give its run the input serial-port")
	case err != nil:
		return fmt.Errorf("connecting to the guest's console: %w", err)
	}
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	defer func() { _ = conn.Close() }() // all was said
	if isTerminal(c.Stdin) {
		return c.interact(c.Stdin.(*os.File), conn, filepath.Base(dir))
	}
	if c.getenv("GITHUB_ACTIONS") == "true" && !isTerminal(c.Stdout) {
		// The runner reads it, and must not take what the guest says for commands.
		log := c.log(true, cancel)
		defer log.EndGuest()
		c.Stdout, _ = log.Guest()
	}
	return c.converse(conn.(*net.UnixConn))
}

// converse types what standard input has, and prints what comes until the guest
// has said nothing more for some seconds, which the other side watches.
func (c Command) converse(conn *net.UnixConn) error {
	sent := make(chan error, 1)
	go func() {
		var err error
		if c.Stdin != nil {
			_, err = io.Copy(conn, c.Stdin)
		}
		_ = conn.CloseWrite() // fails when the guest has ended
		sent <- err
	}()
	if _, err := io.Copy(c.Stdout, conn); err != nil {
		return fmt.Errorf("reading the guest's console: %w", err)
	}
	select {
	case err := <-sent:
		if err != nil {
			return fmt.Errorf("typing on the guest's console: %w", err)
		}
	default: // the guest has ended first
	}
	return nil
}

// interact makes the terminal that of the guest, and what it was at the end.
func (c Command) interact(in *os.File, conn net.Conn, guest string) (err error) {
	fmt.Fprintf(c.Stderr, "Connected to %s. %s\n", guest, consoleHelp)
	before, err := term.MakeRaw(int(in.Fd()))
	if err != nil {
		return fmt.Errorf("preparing the terminal: %w", err)
	}
	defer func() {
		err = errors.Join(err, term.Restore(int(in.Fd()), before))
		fmt.Fprintln(c.Stderr, "\nDisconnected.")
	}()
	ended := make(chan error, 2)
	go func() { _, err := io.Copy(c.Stdout, conn); ended <- err }()
	go func() { ended <- c.keys(in, conn) }()
	if err := <-ended; err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("talking to the guest: %w", err)
	}
	return nil
}

// keys types what the person does, until they leave.
func (c Command) keys(in *os.File, conn io.Writer) error {
	var k keyboard
	buf := make([]byte, 256)
	for {
		n, err := in.Read(buf)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		text, left := k.press(buf[:n], keyboardActions{
			size: func() string { return sizeCommand(in) },
			help: func() { fmt.Fprintf(c.Stderr, "\r\n%s\r\n", consoleHelp) },
		})
		if _, err := conn.Write(text); err != nil {
			return err
		}
		if left {
			return nil
		}
	}
}

// sizeCommand tells a shell in the guest how large the terminal is: a serial
// line does not.
func sizeCommand(f *os.File) string {
	cols, rows, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return ""
	}
	return fmt.Sprintf("stty rows %d cols %d\r", rows, cols)
}

// A keyboard finds what is for us among the keys. The zero value is ready for use.
type keyboard struct{ escaped bool }

type keyboardActions struct {
	size func() string
	help func()
}

// press takes keys, and returns those for the guest, and whether the person leaves.
func (k *keyboard) press(keys []byte, do keyboardActions) (text []byte, left bool) {
	var out bytes.Buffer
	for _, key := range keys {
		if !k.escaped {
			if k.escaped = key == escapeKey; !k.escaped {
				out.WriteByte(key)
			}
			continue
		}
		k.escaped = false
		switch key {
		case 'q', 'Q', '.':
			return out.Bytes(), true
		case 'r', 'R':
			out.WriteString(do.size())
		case escapeKey, ']':
			out.WriteByte(escapeKey)
		default:
			do.help()
		}
	}
	return out.Bytes(), false
}
