package dialogue

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// pace is how the live output gets on.
type pace struct {
	chunks  int       // how often there was some, or it was held up
	passing bool      // it is being passed on: who reads it may not keep up
	passed  time.Time // when that ended last
}

// live passes on what a job prints; the stream is locked.
func (sh *Shell) live(number int, p []byte) {
	sh.pace.chunks++
	if j := sh.jobs[number]; j != nil {
		// A reader that does not keep up holds up the guest, and nothing else that
		// needs the lock but the end of this job.
		sh.pace.passing = true
		sh.mu.Unlock()
		_, _ = j.stdout.Write(p) // never fails
		sh.mu.Lock()
		sh.pace.passing, sh.pace.passed = false, time.Now()
	}
}

// Quiet is for how long nothing came from the guest. While a reader of the live
// output does not keep up, nobody listens to the guest, which so is not silent.
func (sh *Shell) Quiet() time.Duration {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.pace.passing {
		return 0
	}
	last := sh.line.LastByte()
	if sh.pace.passed.After(last) {
		last = sh.pace.passed
	}
	return time.Since(last)
}

// SendRequest answers any request when the guest's shell does, and no earlier:
// an error means that the console has ended.
func (sh *Shell) SendRequest(string, bool, []byte) (bool, []byte, error) {
	for {
		if err := sh.alive(); err == nil {
			return false, nil, nil
		}
		select {
		case <-sh.done:
			return false, nil, sh.reason
		case <-time.After(time.Second):
		}
	}
}

// alive has the shell say something. It also finds jobs whose end was lost
// because something else was printed into its mark.
func (sh *Shell) alive() error {
	ctx, cancel := sh.context(context.Background())
	defer cancel()
	out, err := sh.ask(ctx, "echo $d/*s")
	if err != nil {
		return err
	}
	for _, file := range strings.Fields(out) {
		var number int
		name, ours := strings.CutPrefix(file, sh.dir+"/")
		if _, err := fmt.Sscanf(name, "%ds", &number); err != nil || !ours {
			continue // the pattern itself, when there is none
		}
		if err := sh.lateEnd(ctx, number); err != nil {
			return err
		}
	}
	return nil
}

// lateEnd tells a job that it has ended, if it does not know. Of a live one there
// may be output, and the mark of its end, between it and the terminal.
func (sh *Shell) lateEnd(ctx context.Context, number int) error {
	sh.mu.Lock()
	j := sh.jobs[number]
	sh.mu.Unlock()
	if j == nil || len(j.exited) > 0 {
		return nil
	}
	question := fmt.Sprintf("cat $d/%ds", number)
	if j.isLive {
		question = "kill -0 $q 2>/dev/null && printf +; " + question
	}
	text, err := sh.ask(ctx, question)
	if err != nil {
		return err
	}
	text, printing := strings.CutPrefix(text, "+")
	status := -1
	_, _ = fmt.Sscan(text, &status) // -1: not known
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if len(j.exited) > 0 || printing && !sh.drained(j) {
		return nil
	}
	if sh.stream.job == number {
		sh.stream.flush()
		sh.stream.job = 0
	}
	sh.jobEnded(number, status)
	return nil
}

// ended is how far the output was when a live job was found to have ended.
type ended struct {
	at     time.Time
	chunks int
}

// drained tells whether all that a live job printed has come, although who prints
// it lives on: what the job left behind can keep its output open for ever. It has
// when nothing came from one question to a later one. The shell is locked.
func (sh *Shell) drained(j *job) bool {
	if sh.stream.quiet || j.ended.at.IsZero() || j.ended.chunks != sh.pace.chunks {
		j.ended = ended{time.Now(), sh.pace.chunks}
		return false
	}
	return time.Since(j.ended.at) >= sh.session.step()/10
}

// jobEnded notes the end of a job; the stream is locked.
func (sh *Shell) jobEnded(number, status int) {
	if j := sh.jobs[number]; j != nil {
		select {
		case j.exited <- status:
		default: // it is known already
		}
	}
}
