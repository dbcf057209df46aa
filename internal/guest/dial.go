package guest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// Dial connects to the guest, again and again until a command has run there:
// only that proves a guest that can be used. It ends with ctx (its cause is in
// the error), or when the server keeps refusing our key or showing a host key
// that is not pinned. The error is a *DialError.
//
// Attempts run under a deadline over connecting, the server's first line, the
// key exchange, the login and the command. One that hangs gets company, a
// single one; the first that a server speaks to goes on alone, since each costs an
// emulated guest a tenth of a second of its processor.
func Dial(ctx context.Context, o Options) (*Client, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	d := &dialer{options: o, timing: defaultTiming()}
	return d.dial(ctx)
}

// A dialer is one call of Dial.
type dialer struct {
	options Options
	timing  timing

	live     []*attempt
	done     chan *attempt // an attempt has ended
	answered chan struct{} // a server has spoken to one
	attempts int
	notUntil time.Time // no attempt before this time

	quickOut, slowOut, loginOut int // attempts that ran out of patience, by kind
	refusals                    int // consecutive answers that look final
	stage                       Stage
	last                        error
}

func (d *dialer) dial(ctx context.Context) (*Client, error) {
	// Attempts end with this function: the winner's connection is its own.
	trying, stop := context.WithCancelCause(ctx)
	d.done = make(chan *attempt, d.timing.most)
	d.answered = make(chan struct{}, 1)
	var running sync.WaitGroup
	client, err := d.loop(ctx, func(a *attempt) {
		var own context.Context
		own, a.cancel = context.WithCancelCause(trying)
		options := d.options
		running.Go(func() {
			defer a.cancel(nil)
			a.run(own, options, d.wake)
			d.done <- a
		})
	})
	stop(errOutrun)
	go func() { running.Wait(); close(d.done) }()
	for a := range d.done {
		if a.client != nil {
			_ = a.client.Close() // it came second
		}
	}
	return client, err
}

// wake has the loop look at the attempts again: a server has spoken.
func (d *dialer) wake() {
	if d.options.OnAnswer != nil {
		d.options.OnAnswer()
	}
	select {
	case d.answered <- struct{}{}:
	default: // it is about to
	}
}

var errOutrun = errors.New("another attempt was faster")

// loop starts attempts and takes their outcomes until one has won.
func (d *dialer) loop(ctx context.Context, start func(*attempt)) (*Client, error) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		if ctx.Err() != nil {
			return nil, d.failed(context.Cause(ctx))
		}
		wait := d.pause(time.Now())
		if wait == 0 {
			a := d.next()
			d.live = append(d.live, a)
			start(a)
			continue
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-d.answered:
			d.favor()
		case a := <-d.done:
			d.drop(a)
			if a.client != nil {
				return a.client, nil
			}
			if errors.Is(a.err, errOutrun) {
				continue
			}
			if d.note(a) {
				return nil, d.failed(nil)
			}
		}
	}
}

// forever is a pause that something else than time ends.
const forever = time.Hour

// pause is how long to wait before the next attempt: 0 means now.
func (d *dialer) pause(now time.Time) time.Duration {
	wait := d.notUntil.Sub(now)
	for _, a := range d.live {
		if a.talking() {
			return forever
		}
	}
	if len(d.live) >= d.timing.most {
		return forever
	}
	if n := len(d.live); n > 0 {
		latest, gap := d.live[n-1], d.timing.hedge
		if !latest.slow { // quick ones are spread evenly: the guest may be ready at any time
			gap = max(gap, latest.answer/time.Duration(d.timing.most-1))
		}
		wait = max(wait, latest.started.Add(gap).Sub(now))
	}
	return max(wait, 0)
}

// favor ends all attempts but the first that a server has spoken to.
func (d *dialer) favor() {
	i := slices.IndexFunc(d.live, (*attempt).talking)
	if i < 0 {
		return // it has failed meanwhile
	}
	for j, a := range d.live {
		if j != i {
			a.cancel(errOutrun)
		}
	}
	d.live = d.live[i : i+1]
}

// talking says that a server answers this attempt: others would only slow it down.
func (a *attempt) talking() bool {
	switch a.reached() {
	case StageHandshake, StageHostKey, StageAuth, StageCommand:
		return true
	case StageConnect, StageBanner:
	}
	return false
}

// next prepares an attempt: the one that waits, if none does, or a quick one.
func (d *dialer) next() *attempt {
	d.attempts++
	t := d.timing
	a := &attempt{
		number: d.attempts, slow: true, started: time.Now(), stage: StageConnect,
		answer: grown(t.slow, t.slowMost, d.slowOut), login: grown(t.login, t.loginMost, d.loginOut),
	}
	for _, other := range d.live {
		if other.slow {
			a.slow, a.answer = false, grown(t.quick, t.quickMost, d.quickOut/t.quickEach)
			break
		}
	}
	return a
}

func (d *dialer) drop(a *attempt) {
	for i, other := range d.live {
		if other == a {
			d.live = append(d.live[:i], d.live[i+1:]...)
			return
		}
	}
}

// note learns from an attempt that failed, and tells whether that is final.
func (d *dialer) note(a *attempt) (final bool) {
	d.stage, d.last = a.reached(), a.err
	if d.options.OnFailure != nil {
		d.options.OnFailure(a.number, d.stage, a.err)
	}
	if errors.As(a.err, new(*RenewError)) {
		return true // what a guest can't do once it can't do later
	}
	pause := d.timing.retry
	switch {
	case d.stage == StageHostKey || isRefusal(a.err):
		// A guest that is still starting can have the wrong files for a moment.
		d.refusals++
		pause = d.timing.refused
	case a.talking():
		d.refusals = 0
		d.loginOut++
		if d.stage == StageCommand {
			d.options.LoginShell, d.options.unsure = "", true // it may be another one
		}
	case errors.Is(a.err, errNoAnswer) && a.slow:
		d.slowOut++
		pause = 0
	case errors.Is(a.err, errNoAnswer):
		d.quickOut++
		pause = 0
	}
	d.notUntil = time.Now().Add(pause)
	return d.refusals >= d.timing.repeats
}

func isRefusal(err error) bool {
	var auth *AuthError
	var algorithms *ssh.AlgorithmNegotiationError
	return errors.As(err, &auth) || errors.As(err, &algorithms)
}

// failed makes the error, from the attempt that got furthest of those under way
// and the one that failed last.
func (d *dialer) failed(cause error) *DialError {
	e := &DialError{Addr: d.options.Addr, Stage: d.stage, Attempts: d.attempts, Last: d.last, Cause: cause}
	for _, a := range d.live {
		if rank(a.reached()) > rank(e.Stage) {
			e.Stage = a.reached()
		}
	}
	return e
}

// rank orders the stages.
func rank(s Stage) int {
	for i, other := range []Stage{StageConnect, StageBanner, StageHandshake, StageHostKey, StageAuth, StageCommand} {
		if s == other {
			return i
		}
	}
	return -1
}
