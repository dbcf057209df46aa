package dialogue

import (
	"bytes"
	"regexp"
	"strconv"
)

// A stream takes apart what comes from a console on which jobs run: the live
// output of one of them, the ends of all, and what belongs to the dialogue
// itself, which begins with the token wherever it stands.
//
//	TOKEN-l7     job 7's output follows
//	TOKEN-x7 0   job 7 has ended
//	TOKEN-b9     the answer to the 9th command follows, until TOKEN-e9 0
//	TOKEN=...    the echo of a command that was typed
//
// How the bytes are cut into writes makes no difference.
type stream struct {
	token    []byte
	live     func(job int, p []byte)                // output of a job
	ended    func(job, status int)                  // once per job; status is -1 when it can't be read
	answered func(command int, text, status string) // once per command

	silent int  // a command that prints nothing: what comes within its answer is a job's
	quiet  bool // the job stands still: nothing that comes is its output

	held    []byte // what may be, or is, the beginning of something of ours
	job     int    // whose output comes now; 0: none's
	cr      bool   // a carriage return was held back
	command int    // whose answer comes now; 0: none's
	answer  []byte // as far as it has come
	doubt   []byte // the end of the answer, as long as it need not be a job's output
}

const (
	// echoMost is how long a line of ours can be at most.
	echoMost = 2 * MaxLine
	// doubtMost is how long the answer to a command is while a job's output comes;
	// what is longer is that output.
	doubtMost = 512
	// answerMost is how long an answer can be in any case.
	answerMost = 64 << 10
)

func (s *stream) write(p []byte) {
	s.held = append(s.held, p...)
	for {
		at := bytes.Index(s.held, s.token)
		if at < 0 {
			keep := overlap(s.held, s.token)
			s.emit(s.held[:len(s.held)-keep])
			s.held = append(s.held[:0], s.held[len(s.held)-keep:]...)
			return
		}
		s.emit(s.held[:at])
		s.held = append(s.held[:0], s.held[at:]...)
		end := bytes.IndexByte(s.held[:min(len(s.held), echoMost)], '\n') + 1
		if end == 0 && len(s.held) < echoMost {
			return
		}
		if end == 0 {
			end = echoMost
		}
		rest := append([]byte(nil), s.held[end:]...)
		s.mark(s.held[len(s.token):end])
		s.held = append(s.held[:0], rest...)
	}
}

// overlap is how many of the last bytes of p could begin a token.
func overlap(p, token []byte) int {
	for n := min(len(p), len(token)-1); n > 0; n-- {
		if bytes.Equal(p[len(p)-n:], token[:n]) {
			return n
		}
	}
	return 0
}

var markForm = regexp.MustCompile(`^-([lxbe])(\d{1,9})(?: (\d{1,3}))?\r*\n$`)

// mark takes a line of ours, without its token.
func (s *stream) mark(line []byte) {
	m := markForm.FindSubmatch(line)
	if m == nil {
		return
	}
	n, err := strconv.Atoi(string(m[2]))
	if err != nil {
		return
	}
	status, err := strconv.Atoi(string(m[3]))
	if err != nil {
		status = -1
	}
	switch m[1][0] {
	case 'l':
		s.job, s.cr = n, false
	case 'x':
		s.flush()
		if s.job == n {
			s.job = 0
		}
		s.ended(n, status)
	case 'b':
		s.command, s.answer, s.doubt = n, nil, nil
	case 'e':
		if n == s.command {
			// What is no answer was printed by the job meanwhile.
			rest := answerForm.ReplaceAll(s.doubt, nil)
			s.command, s.doubt = 0, nil
			s.print(rest)
			s.answered(n, string(s.answer), string(m[3]))
		}
	}
}

// flush passes on what was held back only for what might follow it.
func (s *stream) flush() {
	if s.cr && s.job != 0 {
		s.live(s.job, []byte{'\r'})
	}
	s.cr = false
}

// emit takes bytes that are not ours.
func (s *stream) emit(p []byte) {
	if s.command == 0 || s.command == s.silent {
		if !s.quiet { // else it is what shells say of jobs that have ended
			s.print(p)
		}
		return
	}
	s.answer = append(s.answer, p[:min(len(p), answerMost-len(s.answer))]...)
	if s.job == 0 || s.quiet {
		return
	}
	s.doubt = append(s.doubt, p...)
	if len(s.answer) > doubtMost {
		s.print(s.doubt)
		s.doubt = s.doubt[:0]
	}
}

// print passes a job's output on. A terminal has put a carriage return before
// every newline.
func (s *stream) print(p []byte) {
	if s.job == 0 || len(p) == 0 {
		return
	}
	out := make([]byte, 0, len(p)+1)
	for _, b := range p {
		if s.cr && b != '\n' {
			out = append(out, '\r')
		}
		if s.cr = b == '\r'; !s.cr {
			out = append(out, b)
		}
	}
	if len(out) > 0 {
		s.live(s.job, out)
	}
}
