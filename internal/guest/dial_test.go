package guest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"
)

// simulated runs a test in simulated time against a guest behind a forward.
func simulated(t *testing.T, test func(t *testing.T, f *forward, o Options)) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t)
		s.command = func(_ string, ch sshChannel) (uint32, bool) {
			_, _ = fmt.Fprintln(ch, "uname GNU hurd 0.9 GNU-Mach 1.8/Hurd-0.9 i686-AT386 GNU")
			return 0, true
		}
		f := newForward(s)
		o := s.options()
		o.Dial = f.dial
		test(t, f, o)
		f.stop()
		synctest.Wait()
	})
}

// TestDialGuests dials guests that start in various ways. The time from the
// moment when a connection could succeed to the end of Dial is what counts.
func TestDialGuests(t *testing.T) {
	up := func(at time.Duration, before reaction) func(int, time.Duration) (time.Duration, reaction) {
		return func(_ int, now time.Duration) (time.Duration, reaction) {
			if now < at {
				return 0, before
			}
			return 0, serve
		}
	}
	for _, tc := range []struct {
		name   string
		answer func(number int, at time.Duration) (time.Duration, reaction)
		within time.Duration // of the start
		most   int           // connections at once
		starts int           // connections in all, at most
	}{
		{"at once", up(0, serve), 100 * time.Millisecond, 1, 1},
		{"refusing for 30 s", up(30*time.Second, reset), 30*time.Second + 200*time.Millisecond, 1, 260},
		{"no network for 60 s", up(60*time.Second, silence), 61 * time.Second, 3, 65},
		{"no network, then refusing, then up", func(_ int, at time.Duration) (time.Duration, reaction) {
			switch {
			case at < 20*time.Second:
				return 0, silence
			case at < 40*time.Second:
				return 0, reset
			}
			return 0, serve
		}, 40*time.Second + 200*time.Millisecond, 3, 200},
		{"3 s to the first line", func(int, time.Duration) (time.Duration, reaction) { return 3 * time.Second, serve }, 3*time.Second + 100*time.Millisecond, 3, 5},
		{"9 s to the first line", func(int, time.Duration) (time.Duration, reaction) { return 9 * time.Second, serve }, 9*time.Second + 100*time.Millisecond, 3, 13},
		{"41 s to the first line", func(int, time.Duration) (time.Duration, reaction) { return 41 * time.Second, serve }, 115 * time.Second, 3, 95},
		{"SYN lost: an answer after the back-off", func(_ int, at time.Duration) (time.Duration, reaction) {
			if at < 10*time.Second { // the guest's network comes up; what was sent before is repeated late
				return 45*time.Second - at, serve
			}
			return 0, serve
		}, 11100 * time.Millisecond, 2, 15},
		{"something else answers first", up(5*time.Second, junk), 6 * time.Second, 1, 60},
		{"a server that hangs after its first line", func(n int, _ time.Duration) (time.Duration, reaction) {
			if n == 1 {
				return 0, babble
			}
			return 0, serve
		}, 16 * time.Second, 1, 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			simulated(t, func(t *testing.T, f *forward, o Options) {
				f.answer = tc.answer
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
				defer cancel()
				c, err := Dial(ctx, o)
				if err != nil {
					t.Fatal(err)
				}
				if took := time.Since(f.begin); took > tc.within {
					t.Errorf("took %s, want %s at most", took, tc.within)
				}
				if f.most > tc.most || f.count > tc.starts {
					t.Errorf("%d connections at once, %d in all; want %d and %d at most", f.most, f.count, tc.most, tc.starts)
				}
				if c.Uname() != "GNU hurd 0.9 GNU-Mach 1.8/Hurd-0.9 i686-AT386 GNU" {
					t.Errorf("Uname = %q", c.Uname())
				}
				synctest.Wait()
				if f.live != 1 {
					t.Errorf("%d connections are open after Dial", f.live)
				}
				_ = c.Close()
			})
		})
	}
}

// TestDialAnswer: a server's first word is told at its time, and neither a
// connection that is accepted nor one that is reset is one.
func TestDialAnswer(t *testing.T) {
	simulated(t, func(t *testing.T, f *forward, o Options) {
		f.answer = func(_ int, at time.Duration) (time.Duration, reaction) {
			switch {
			case at < 10*time.Second:
				return 0, silence
			case at < 20*time.Second:
				return 0, reset
			}
			return 700 * time.Millisecond, serve
		}
		answers := make(chan time.Duration, 10)
		o.OnAnswer = func() { answers <- time.Since(f.begin) }
		c, err := Dial(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		if first := <-answers; first < 20700*time.Millisecond || first > 21*time.Second || first > time.Since(f.begin) {
			t.Errorf("the first answer is told after %v", first)
		}
	})
}

// TestDialPenalties has a server that never gets to its first line and counts
// as OpenSSH does: a penalty of 1 s for each connection that ends without a
// login, running off with time, and a source with more than 15 s is refused.
func TestDialPenalties(t *testing.T) {
	simulated(t, func(t *testing.T, f *forward, o Options) {
		f.answer = func(int, time.Duration) (time.Duration, reaction) { return 0, silence }
		var level, highest time.Duration
		before := f.begin
		o.OnFailure = func(int, Stage, error) {
			level = max(level-time.Since(before), 0) + time.Second
			highest, before = max(highest, level), time.Now()
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		if _, err := Dial(ctx, o); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("err = %v", err)
		}
		if highest < time.Second || highest >= 15*time.Second {
			t.Errorf("penalties of %s, want less than 15 s", highest)
		}
		if n := len(f.starts); n > 300 {
			t.Errorf("%d connections in 10 minutes, want 300 at most", n)
		}
	})
}

func TestDialHostKey(t *testing.T) {
	simulated(t, func(t *testing.T, f *forward, o Options) {
		f.answer = func(int, time.Duration) (time.Duration, reaction) { return 0, serve }
		other := mustKey(t, "other")
		got := o.HostKeys[0]
		o.HostKeys = []ssh.PublicKey{other.Public()}
		var told []Stage
		o.OnFailure = func(_ int, stage Stage, _ error) { told = append(told, stage) }
		_, err := Dial(t.Context(), o)
		var e *HostKeyError
		if !errors.As(err, &e) || string(e.Got.Marshal()) != string(got.Marshal()) {
			t.Fatalf("err = %v", err)
		}
		want := "reaching the guest over SSH at guest:22: after 5 attempts it failed while checking the host key: " +
			"the server's host key is not the expected one: expected ssh-ed25519 " + ssh.FingerprintSHA256(other.Public()) +
			", got ssh-ed25519 " + ssh.FingerprintSHA256(got) + " (the guest replaced its key, or something else answers at this port)"
		if err.Error() != want {
			t.Errorf("err  = %v\nwant = %v", err, want)
		}
		if len(told) != 5 || told[4] != StageHostKey {
			t.Errorf("told of %v", told)
		}
	})
}

// TestDialHostKeyType has a server that has only keys of other types.
func TestDialHostKeyType(t *testing.T) {
	simulated(t, func(t *testing.T, f *forward, o Options) {
		f.answer = func(int, time.Duration) (time.Duration, reaction) { return 0, serve }
		key, _, _, _, err := ssh.ParseAuthorizedKey([]byte("ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBEmKSENjQEezOmxkZMy7opKgwFB9nkt5YRrYMjNuG5N87uRgg6CLrbo5wAdT/y6v0mKV0U2w0WZ2YB/++Tpockg="))
		if err != nil {
			t.Fatal(err)
		}
		o.HostKeys = []ssh.PublicKey{key}
		_, err = Dial(t.Context(), o)
		var e *HostKeyError
		if !errors.As(err, &e) || e.Got != nil || !strings.Contains(err.Error(), "got no key of that type, only ssh-ed25519") {
			t.Errorf("err = %v", err)
		}
	})
}

// TestDialHostKeyForAMoment has a guest that begins with another key, as one
// does whose first boot replaces it.
func TestDialHostKeyForAMoment(t *testing.T) {
	simulated(t, func(t *testing.T, f *forward, o Options) {
		f.answer = func(int, time.Duration) (time.Duration, reaction) { return 0, serve }
		f.server.setHostKey(mustKey(t, "early"))
		time.AfterFunc(2500*time.Millisecond, func() { f.server.setHostKey(f.server.hostKey) })
		c, err := Dial(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
	})
}

func TestDialAuth(t *testing.T) {
	simulated(t, func(t *testing.T, f *forward, o Options) {
		f.answer = func(int, time.Duration) (time.Duration, reaction) { return 0, serve }
		o.User = "demo"
		o.Signer = mustKey(t, "stranger").Signer()
		_, err := Dial(t.Context(), o)
		var e *AuthError
		if !errors.As(err, &e) || e.User != "demo" || !strings.Contains(err.Error(), ssh.FingerprintSHA256(o.Signer.PublicKey())) ||
			!strings.Contains(err.Error(), "refused the key ssh-ed25519 ") {
			t.Errorf("err = %v", err)
		}
		var d *DialError
		if !errors.As(err, &d) || d.Stage != StageAuth || d.Attempts != 5 || d.Cause != nil {
			t.Errorf("%+v", d)
		}
	})
}

// TestDialEnds ends the context in every stage: at once, with its cause.
func TestDialEnds(t *testing.T) {
	for _, tc := range []struct {
		name  string
		do    reaction
		hang  bool // of the first command
		stage Stage
	}{
		{"no banner", silence, false, StageBanner},
		{"reset", reset, false, StageBanner},
		{"handshake", babble, false, StageHandshake},
		{"command", serve, true, StageCommand},
	} {
		t.Run(tc.name, func(t *testing.T) {
			simulated(t, func(t *testing.T, f *forward, o Options) {
				f.answer = func(int, time.Duration) (time.Duration, reaction) { return 0, tc.do }
				never := make(chan struct{})
				if tc.hang {
					f.server.command = func(string, sshChannel) (uint32, bool) { <-never; return 0, true }
				}
				cause := errors.New("qemu exited: signal: killed")
				ctx, cancel := context.WithCancelCause(t.Context())
				time.AfterFunc(10*time.Second, func() { cancel(cause) })
				_, err := Dial(ctx, o)
				if took := time.Since(f.begin); took != 10*time.Second {
					t.Errorf("took %s", took)
				}
				var e *DialError
				if !errors.As(err, &e) || !errors.Is(err, cause) || e.Stage != tc.stage {
					t.Errorf("err = %v, %+v", err, e)
				}
				if !strings.HasPrefix(err.Error(), "reaching the guest over SSH at guest:22: qemu exited: signal: killed; after ") {
					t.Errorf("err = %v", err)
				}
				close(never)
				synctest.Wait()
				if f.live != 0 {
					t.Errorf("%d connections are open", f.live)
				}
			})
		})
	}
}

// TestDialCommandFails has a login that works and a command that does not, for
// a while.
func TestDialCommandFails(t *testing.T) {
	simulated(t, func(t *testing.T, f *forward, o Options) {
		f.answer = func(int, time.Duration) (time.Duration, reaction) { return 0, serve }
		f.server.command = func(line string, ch sshChannel) (uint32, bool) {
			if !isHello(line) {
				t.Errorf("the first command is %q", line)
			}
			if time.Since(f.begin) < 5*time.Second {
				_, _ = fmt.Fprint(ch.Stderr(), "uname: not\x1b[31m found\n")
				return 127, true
			}
			_, _ = fmt.Fprint(ch, "uname GNU\n")
			return 0, true
		}
		var last error
		o.OnFailure = func(_ int, stage Stage, err error) {
			if last = err; stage != StageCommand {
				t.Errorf("failed at %s: %v", stage, err)
			}
		}
		c, err := Dial(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		if c.Uname() != "GNU" || last == nil || last.Error() != `the first command exited with status 127: uname: not?[31m found` {
			t.Errorf("uname %q, last failure %v", c.Uname(), last)
		}
		_ = c.Close()
	})
}

func TestDialConnectFails(t *testing.T) {
	simulated(t, func(t *testing.T, _ *forward, o Options) {
		n := 0
		o.Dial = func(context.Context, string, string) (net.Conn, error) {
			n++
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}
		}
		ctx, cancel := context.WithTimeoutCause(t.Context(), 3*time.Second, errors.New("boot-timeout (3s) is over"))
		defer cancel()
		_, err := Dial(ctx, o)
		want := fmt.Sprintf("reaching the guest over SSH at guest:22: boot-timeout (3s) is over; after %d attempts it failed while connecting: dial tcp: connection refused", n)
		if n < 20 || err == nil || err.Error() != want {
			t.Errorf("%d attempts: %v", n, err)
		}
	})
}

func TestDialOptions(t *testing.T) {
	k := mustKey(t, "k")
	for _, tc := range []struct {
		o    Options
		want string
	}{
		{Options{Signer: k.Signer(), HostKeys: []ssh.PublicKey{k.Public()}}, "dialling the guest: no address"},
		{Options{Addr: "a:1", HostKeys: []ssh.PublicKey{k.Public()}}, "dialling the guest: no client key"},
		{Options{Addr: "a:1", Signer: k.Signer()}, "dialling the guest: no host key to expect; an unknown one is never trusted"},
	} {
		if _, err := Dial(t.Context(), tc.o); err == nil || err.Error() != tc.want {
			t.Errorf("err = %v, want %s", err, tc.want)
		}
	}
}

// TestCiphers checks what is negotiated with a server that leaves the choice to
// the client: what is fast where the guest runs.
func TestCiphers(t *testing.T) {
	for emulated, want := range map[bool]string{true: ssh.CipherChaCha20Poly1305, false: ssh.CipherAES128GCM} {
		s := newServer(t)
		o := s.listen()
		o.Emulated = emulated
		c := dialed(t, o)
		algorithms := c.conn.(sshConn).Conn.(ssh.AlgorithmsConnMetadata).Algorithms()
		if algorithms.Write.Cipher != want || algorithms.Read.Cipher != want {
			t.Errorf("emulated %v: %s, want %s", emulated, algorithms.Write.Cipher, want)
		}
		if algorithms.KeyExchange != ssh.KeyExchangeCurve25519 || algorithms.HostKey != ssh.KeyAlgoED25519 {
			t.Errorf("key exchange %s, host key %s", algorithms.KeyExchange, algorithms.HostKey)
		}
	}
}
