package dialogue

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// A Script is a dialogue that a user has written, one step a line:
//
//	# a comment
//	expect "login:" within 60s
//	expect /[#$] $/ within 2m
//	send "root\n"
//	send env PASSWORD "\n"
//	pause 1s
type Script []Statement

// A Statement is one line of a Script. Exactly one of Expect, Send and Pause is set.
type Statement struct {
	Line   int // in the text, from 1
	Expect *Pattern
	Within time.Duration // of Expect
	Send   []Piece
	Pause  time.Duration
}

// A Pattern is what an expect waits for.
type Pattern struct {
	Text   string
	Regexp *regexp.Regexp // nil: Text itself
}

// A Piece of what is sent: text, or the value of a variable of the step's environment.
type Piece struct {
	Text     string
	Variable string // empty: Text
}

const (
	// defaultWithin is how long an expect without a limit waits.
	defaultWithin = time.Minute
	maxStatements = 1000
	maxPause      = time.Hour
)

// A ScriptError is a line of a script that can't be read.
type ScriptError struct {
	Line    int
	Problem string
	Advice  string // how to write it
}

// Error names the line, the problem and the remedy.
func (e *ScriptError) Error() string {
	return fmt.Sprintf("line %d: %s; %s", e.Line, e.Problem, e.Advice)
}

// ParseScript reads a script. The errors are *ScriptErrors, one for each line
// that can't be read.
func ParseScript(text string) (Script, []error) {
	var script Script
	var errs []error
	number := 0
	for line := range strings.Lines(text) {
		number++
		statement, err := parseStatement(strings.TrimRight(line, "\r\n"))
		switch {
		case err != nil:
			err.Line = number
			errs = append(errs, err)
		case statement != nil:
			statement.Line = number
			script = append(script, *statement)
		}
	}
	if len(script) > maxStatements {
		errs = append(errs, &ScriptError{Line: script[maxStatements].Line, Problem: fmt.Sprintf("there are more than %d statements", maxStatements), Advice: "do the rest in the script that is run in the guest"})
	}
	return script, errs
}

// reader goes through one line.
type reader struct{ rest string }

func (r *reader) blanks() { r.rest = strings.TrimLeft(r.rest, " \t") }

// word takes everything up to the next blank.
func (r *reader) word() string {
	r.blanks()
	word := r.rest
	if i := strings.IndexAny(r.rest, " \t"); i >= 0 {
		word = r.rest[:i]
	}
	r.rest = r.rest[len(word):]
	return word
}

// done tells whether nothing but a comment follows.
func (r *reader) done() bool {
	r.blanks()
	return r.rest == "" || r.rest[0] == '#'
}

const statementsAdvice = `write expect "TEXT" within 60s, expect /REGEX/, send "TEXT\n", send env NAME, or pause 1s`

func parseStatement(line string) (*Statement, *ScriptError) {
	r := &reader{line}
	if !utf8.ValidString(line) {
		return nil, &ScriptError{Problem: "is not UTF-8", Advice: `write other bytes as \xNN`}
	}
	if r.done() {
		return nil, nil //nolint:nilnil // an empty line is neither
	}
	var s Statement
	var err *ScriptError
	switch word := r.word(); word {
	case "expect":
		err = s.expect(r)
	case "send":
		err = s.send(r)
	case "pause":
		s.Pause, err = r.duration(maxPause)
	default:
		err = &ScriptError{Problem: fmt.Sprintf("%q is no statement", word), Advice: statementsAdvice}
	}
	if err == nil && !r.done() {
		err = &ScriptError{Problem: fmt.Sprintf("%q is too much", r.rest), Advice: statementsAdvice}
	}
	return &s, err
}

func (s *Statement) expect(r *reader) *ScriptError {
	pattern, err := r.pattern()
	if err != nil {
		return err
	}
	s.Expect, s.Within = pattern, defaultWithin
	if r.done() {
		return nil
	}
	if word := r.word(); word != "within" {
		return &ScriptError{Problem: fmt.Sprintf("%q follows what is expected", word), Advice: "write within and a time, such as within 60s"}
	}
	s.Within, err = r.duration(24 * time.Hour)
	return err
}

func (s *Statement) send(r *reader) *ScriptError {
	for !r.done() {
		if r.rest[0] == '"' {
			text, err := r.quoted()
			if err != nil {
				return err
			}
			s.Send = append(s.Send, Piece{Text: text})
			continue
		}
		if word := r.word(); word != "env" {
			return &ScriptError{Problem: fmt.Sprintf("%q can't be sent", word), Advice: `write "TEXT" in quotes, or env NAME for the value of a variable`}
		}
		name := r.word()
		if !variableName.MatchString(name) {
			return &ScriptError{Problem: fmt.Sprintf("%q is no name of a variable", name), Advice: "write env NAME, and set NAME in the step's env"}
		}
		s.Send = append(s.Send, Piece{Variable: name})
	}
	if len(s.Send) == 0 {
		return &ScriptError{Problem: "nothing is sent", Advice: `write send "TEXT\n", or send env NAME`}
	}
	return nil
}

var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

func (r *reader) duration(most time.Duration) (time.Duration, *ScriptError) {
	word := r.word()
	d, err := time.ParseDuration(word)
	if err != nil || d <= 0 || d > most {
		return 0, &ScriptError{Problem: fmt.Sprintf("%q is no time", word), Advice: fmt.Sprintf("write one such as 500ms, 60s or 2m, no more than %s", most)}
	}
	return d, nil
}

// pattern takes "text" or /regex/, in which a slash is written \/.
func (r *reader) pattern() (*Pattern, *ScriptError) {
	r.blanks()
	advice := `write "TEXT" in quotes, or /REGEX/`
	switch {
	case strings.HasPrefix(r.rest, `"`):
		text, err := r.quoted()
		if err == nil && text == "" {
			err = &ScriptError{Problem: "an empty text is expected", Advice: advice}
		}
		return &Pattern{Text: text}, err
	case !strings.HasPrefix(r.rest, "/"):
		return nil, &ScriptError{Problem: "it does not say what is expected", Advice: advice}
	}
	var b strings.Builder
	for i := 1; i < len(r.rest); i++ {
		switch c := r.rest[i]; {
		case c == '\\' && strings.HasPrefix(r.rest[i+1:], "/"):
			b.WriteByte('/')
			i++
		case c == '\\' && i+1 < len(r.rest):
			b.WriteString(r.rest[i : i+2])
			i++
		case c == '/':
			r.rest = r.rest[i+1:]
			return compiled(b.String())
		default:
			b.WriteByte(c)
		}
	}
	return nil, &ScriptError{Problem: "the regular expression has no end", Advice: "write a / behind it"}
}

func compiled(text string) (*Pattern, *ScriptError) {
	re, err := regexp.Compile(text)
	switch {
	case err != nil:
		return nil, &ScriptError{Problem: fmt.Sprintf("/%s/ is no regular expression (%v)", text, err), Advice: "write it as Go does (RE2)"}
	case re.MatchString(""):
		return nil, &ScriptError{Problem: fmt.Sprintf("/%s/ matches nothing at all", text), Advice: "write what must have come"}
	}
	return &Pattern{Text: text, Regexp: re}, nil
}

// escapeLetters are the escapes of quoted text beside \xNN.
const (
	escapeLetters = `nrte"\`
	escapeBytes   = "\n\r\t\x1b\"\\"
)

// quoted takes text in double quotes.
func (r *reader) quoted() (string, *ScriptError) {
	var b strings.Builder
	for i := 1; i < len(r.rest); i++ {
		c := r.rest[i]
		if c == '"' {
			r.rest = r.rest[i+1:]
			return b.String(), nil
		}
		if c != '\\' {
			b.WriteByte(c)
			continue
		}
		i++
		rest := r.rest[i:]
		switch at := strings.IndexByte(escapeLetters, (rest + "?")[0]); {
		case rest == "":
		case at >= 0:
			b.WriteByte(escapeBytes[at])
			continue
		case len(rest) >= 3 && rest[0] == 'x':
			if n, err := strconv.ParseUint(rest[1:3], 16, 8); err == nil {
				b.WriteByte(byte(n))
				i += 2
				continue
			}
		}
		return "", &ScriptError{Problem: fmt.Sprintf(`\%s is no escape`, rest[:min(len(rest), 1)]), Advice: `there are \n \r \t \e \" \\ and \xNN`}
	}
	return "", &ScriptError{Problem: "the quoted text has no end", Advice: `write a " behind it`}
}

// quote writes text as quoted reads it.
func quote(text string) string {
	var b strings.Builder
	b.WriteByte('"')
	for len(text) > 0 {
		c, size := utf8.DecodeRuneInString(text)
		at := strings.IndexByte(escapeBytes, text[0])
		switch {
		case at >= 0:
			b.WriteString(`\` + escapeLetters[at:at+1])
		case c == utf8.RuneError && size == 1, c < ' ', c == 0x7f:
			fmt.Fprintf(&b, `\x%02x`, text[0])
		default:
			b.WriteString(text[:size])
		}
		text = text[size:]
	}
	return b.String() + `"`
}

// String writes the pattern as a script has it.
func (p Pattern) String() string {
	if p.Regexp == nil {
		return quote(p.Text)
	}
	var b strings.Builder
	for i := 0; i < len(p.Text); i++ {
		switch c := p.Text[i]; {
		case c == '\\' && i+1 < len(p.Text):
			b.WriteString(p.Text[i : i+2])
			i++
		case c == '/':
			b.WriteString(`\/`)
		default:
			b.WriteByte(c)
		}
	}
	return "/" + b.String() + "/"
}

func (p Pattern) regexp() *regexp.Regexp {
	if p.Regexp != nil {
		return p.Regexp
	}
	return regexp.MustCompile(regexp.QuoteMeta(p.Text))
}

// String writes the statement as a script has it, without any value of a variable.
func (s Statement) String() string {
	switch {
	case s.Expect != nil:
		return fmt.Sprintf("expect %s within %s", s.Expect, s.Within)
	case s.Pause > 0:
		return "pause " + s.Pause.String()
	}
	words := []string{"send"}
	for _, p := range s.Send {
		if p.Variable != "" {
			words = append(words, "env "+p.Variable)
		} else {
			words = append(words, quote(p.Text))
		}
	}
	return strings.Join(words, " ")
}

// String writes the script so that ParseScript reads the same one.
func (s Script) String() string {
	var b strings.Builder
	for _, statement := range s {
		b.WriteString(statement.String() + "\n")
	}
	return b.String()
}

// Variables are the names of those whose values are sent, each once.
func (s Script) Variables() []string {
	var names []string
	seen := map[string]bool{}
	for _, statement := range s {
		for _, p := range statement.Send {
			if p.Variable != "" && !seen[p.Variable] {
				seen[p.Variable] = true
				names = append(names, p.Variable)
			}
		}
	}
	return names
}

// An ExpectError says that what a script expects did not come in its time.
type ExpectError struct {
	Statement Statement
}

// Error names the line and what was waited for.
func (e *ExpectError) Error() string {
	return fmt.Sprintf("line %d: %s did not come on the serial console within %s", e.Statement.Line, e.Statement.Expect, e.Statement.Within)
}

// Run holds the dialogue. value gives those of the variables. An *ExpectError
// says that the guest did not say what it should have; other errors are those
// of the console and of ctx, whose cause they wrap.
func (s Script) Run(ctx context.Context, c Console, value func(name string) string) error {
	for _, statement := range s {
		if err := statement.run(ctx, c, value); err != nil {
			var expected *ExpectError
			if errors.As(err, &expected) {
				return err
			}
			return fmt.Errorf("line %d: %w", statement.Line, err)
		}
	}
	return nil
}

func (s Statement) run(ctx context.Context, c Console, value func(name string) string) error {
	switch {
	case s.Expect != nil:
		late := &ExpectError{Statement: s}
		limited, cancel := context.WithTimeoutCause(ctx, s.Within, late)
		defer cancel()
		_, err := c.Expect(limited, s.Expect.regexp())
		if err != nil && ctx.Err() == nil && limited.Err() != nil {
			return late
		}
		return err
	case s.Pause > 0:
		timer := time.NewTimer(s.Pause)
		defer timer.Stop()
		select {
		case <-timer.C:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	var text strings.Builder
	for _, p := range s.Send {
		if p.Variable != "" {
			text.WriteString(value(p.Variable))
		} else {
			text.WriteString(p.Text)
		}
	}
	return c.Send(ctx, text.String())
}
