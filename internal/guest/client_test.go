package guest

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/org/hurd-qemu-action/internal/units"
)

// connected is a simulated guest with a client in it.
func connected(t *testing.T, silence time.Duration, test func(t *testing.T, f *forward, c *Client)) {
	simulated(t, func(t *testing.T, f *forward, o Options) {
		f.answer = func(int, time.Duration) (time.Duration, reaction) { return 0, serve }
		o.Silence = silence
		c, err := Dial(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		test(t, f, c)
		_ = c.Close()
	})
}

// TestTraffic: what goes each way is counted, and still known after the end.
func TestTraffic(t *testing.T) {
	connected(t, 30*time.Second, func(t *testing.T, f *forward, c *Client) {
		sent, received := c.Traffic()
		if sent < 500 || received < 500 { // the key exchange alone
			t.Errorf("after the login %v were sent and %v received", sent, received)
		}
		f.server.command = func(_ string, ch sshChannel) (uint32, bool) {
			_, _ = ch.Write(make([]byte, 1<<20))
			return 0, true
		}
		if _, err := c.Run(t.Context(), Command{Line: "much", Stdout: io.Discard}); err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
		more, muchMore := c.Traffic()
		if more -= sent; more < 50 || more > 100*units.KiB {
			t.Errorf("%v were sent for a command", more)
		}
		if muchMore -= received; muchMore < units.MiB || muchMore > units.MiB*11/10 {
			t.Errorf("%v were received of a megabyte", muchMore)
		}
	})
}

// TestKeepAlive leaves a connection idle for a day, and then goes deaf.
func TestKeepAlive(t *testing.T) {
	connected(t, 30*time.Second, func(t *testing.T, f *forward, c *Client) {
		time.Sleep(24 * time.Hour)
		if err := c.Err(); err != nil {
			t.Fatalf("an idle connection was given up: %v", err)
		}
		f.server.deaf.Store(true)
		begin := time.Now()
		<-c.Lost()
		if took := time.Since(begin); took < 20*time.Second || took > 41*time.Second {
			t.Errorf("noticed after %s", took)
		}
		err := c.Err()
		if !errors.Is(err, ErrLost) || !errors.Is(err, ErrSilent) {
			t.Errorf("err = %v", err)
		}
		want := "the connection to the guest was lost: the guest does not answer (for 3"
		if !strings.HasPrefix(err.Error(), want) {
			t.Errorf("err = %v", err)
		}
	})
}

// TestRest: a guest that nobody asks may be silent, until somebody does again.
func TestRest(t *testing.T) {
	connected(t, 30*time.Second, func(t *testing.T, f *forward, c *Client) {
		f.server.deaf.Store(true)
		resume := c.Rest()
		time.Sleep(time.Hour)
		if err := c.Err(); err != nil {
			t.Fatalf("given up while it rested: %v", err)
		}
		resume()
		begin := time.Now()
		<-c.Lost()
		if took := time.Since(begin); took > 41*time.Second {
			t.Errorf("noticed after %s", took)
		}
	})
}

// TestKeepAliveDuringACommand has a guest that answers no keepalives and sends
// output all the time: it is not silent.
func TestKeepAliveDuringACommand(t *testing.T) {
	connected(t, 30*time.Second, func(t *testing.T, f *forward, c *Client) {
		f.server.deaf.Store(true)
		f.server.command = func(_ string, ch sshChannel) (uint32, bool) {
			for range 60 {
				time.Sleep(10 * time.Second)
				_, _ = ch.Write([]byte("."))
			}
			return 5, true
		}
		status, err := c.Run(t.Context(), Command{Line: "long"})
		if err != nil || status.Code != 5 {
			t.Errorf("%+v, %v", status, err)
		}
	})
}

// TestRunLostBySilence has the guest die without a word during a command.
func TestRunLostBySilence(t *testing.T) {
	connected(t, 30*time.Second, func(t *testing.T, f *forward, c *Client) {
		never := make(chan struct{})
		f.server.command = func(string, sshChannel) (uint32, bool) {
			f.server.deaf.Store(true)
			<-never
			return 0, true
		}
		_, err := c.Run(t.Context(), Command{Line: "make check"})
		if !errors.Is(err, ErrSilent) || !strings.HasPrefix(err.Error(), `running "make check" in the guest: the connection to the guest was lost: the guest does not answer`) {
			t.Errorf("err = %v", err)
		}
		close(never)
	})
}

// TestRunDrainMost has a background process that writes for ever.
func TestRunDrainMost(t *testing.T) {
	connected(t, time.Hour, func(t *testing.T, f *forward, c *Client) {
		f.server.command = func(_ string, ch sshChannel) (uint32, bool) {
			f.server.report(ch, 3)
			for {
				time.Sleep(time.Second)
				if _, err := ch.Write([]byte(".")); err != nil {
					return 0, true
				}
			}
		}
		begin := time.Now()
		status, err := c.Run(t.Context(), Command{Line: "daemon"})
		if took := time.Since(begin); err != nil || status != (ExitStatus{Code: 3, Detached: true}) || took != drainMost {
			t.Errorf("%+v, %v, after %s", status, err, took)
		}
		f.stop()
	})
}

func TestAlive(t *testing.T) {
	connected(t, 30*time.Second, func(t *testing.T, f *forward, c *Client) {
		if err := c.Alive(t.Context()); err != nil {
			t.Errorf("err = %v", err)
		}
		f.server.deaf.Store(true)
		late := errors.New("no answer within 5s")
		ctx, cancel := context.WithTimeoutCause(t.Context(), 5*time.Second, late)
		defer cancel()
		if err := c.Alive(ctx); !errors.Is(err, late) || errors.Is(err, ErrLost) {
			t.Errorf("deaf: %v", err)
		}
		f.stop()
		synctest.Wait()
		if err := c.Alive(t.Context()); !errors.Is(err, ErrLost) {
			t.Errorf("lost: %v", err)
		}
	})
}

func TestClose(t *testing.T) {
	connected(t, 30*time.Second, func(t *testing.T, _ *forward, c *Client) {
		if err := c.Err(); err != nil {
			t.Errorf("before: %v", err)
		}
		_ = c.Close()
		_ = c.Close()
		<-c.Lost()
		if err := c.Err(); !errors.Is(err, ErrClosed) {
			t.Errorf("after: %v", err)
		}
	})
}

// TestHostileServer checks that what a server says of itself is made harmless.
func TestHostileText(t *testing.T) {
	got := printable("a\x1b[31m\u202eb\xff\r\n\u0085" + strings.Repeat("x", 2*textLimit))
	if !strings.HasPrefix(got, "a?[31m?b??") || len(got) > textLimit+10 || strings.ContainsAny(got, "\x1b\r\n") {
		t.Errorf("%.40q, %d bytes", got, len(got))
	}
}
