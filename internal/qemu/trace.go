package qemu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/org/hurd-qemu-action/internal/process"
	"github.com/org/hurd-qemu-action/internal/units"
)

// defaultTraceLimit bounds a trace: some items write megabytes in each second.
const defaultTraceLimit = 64 * units.MiB

// trace takes what QEMU logs of its own work (-d) out of a pipe. QEMU has no
// file to write to then, and what it writes can be masked and bounded.
type trace struct {
	*outlet
	to   io.Writer     // nil drops it
	left units.Bytes   // until the limit
	full chan struct{} // closed at the limit
}

// newTrace makes the pipe.
func newTrace(o StartOptions, s *Spec, files *inheritance) (*trace, error) {
	t := &trace{to: o.Trace, left: o.TraceLimit, full: make(chan struct{})}
	if t.left == 0 {
		t.left = defaultTraceLimit
	}
	var err error
	if t.outlet, s.TraceFD, err = newOutlet(files, t.read); err != nil {
		return nil, fmt.Errorf("making QEMU's trace: %w", err)
	}
	return t, nil
}

// read never stops before QEMU does.
func (t *trace) read(from io.Reader) {
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		t.write(buffer[:n])
		if err != nil {
			return
		}
	}
}

// write drops what cannot be written: QEMU must not die of a full disk under its log.
func (t *trace) write(p []byte) {
	if t.to == nil || t.left == 0 || len(p) == 0 {
		return
	}
	p = p[:min(units.Bytes(len(p)), t.left)]
	_, _ = t.to.Write(p)
	if t.left -= units.Bytes(len(p)); t.left == 0 {
		_, _ = io.WriteString(t.to, "\n[The log has reached its limit; nothing more is kept.]\n")
		close(t.full)
	}
}

// boundTrace has QEMU log nothing more when nothing more is kept.
func (m *Machine) boundTrace(ctx context.Context) {
	if m.trace == nil {
		return
	}
	go func() {
		select {
		case <-m.done:
		case <-m.trace.full:
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), readyTimeout)
			defer cancel()
			// A QEMU that does not is slower, and nothing else.
			_ = m.monitor.Execute(ctx, "human-monitor-command", map[string]string{"command-line": "log none"}, nil)
		}
	}()
}

// traceItem is a line of "qemu -d help"; the text of a long one goes on in
// lines that have no gap.
var traceItem = regexp.MustCompile(`^([A-Za-z_:]+) {2,}\S`)

// tracePattern is the item that stands for many: events by their names.
const tracePattern = "trace:"

// CheckTrace compares items of -d with those that a QEMU knows, and returns
// them as QEMU takes them. All problems are reported.
func CheckTrace(ctx context.Context, binary, text string) (string, []error) {
	help, err := logHelp(ctx, binary, "help")
	if err != nil {
		return "", []error{err}
	}
	known := traceItems(help)
	var events []string
	if strings.Contains(text, tracePattern) && slices.Contains(known, tracePattern+"PATTERN") {
		list, err := logHelp(ctx, binary, "trace:help")
		if err != nil {
			return "", []error{err}
		}
		events = strings.Fields(list)
	}
	return checkTrace(text, known, events)
}

// logHelp has a QEMU print what -d takes. Its exit status is 1 then.
func logHelp(ctx context.Context, binary, item string) (string, error) {
	out, err := process.Output(ctx, binary, "-machine", "none", "-display", "none", "-d", item)
	if err != nil && (len(out) == 0 || ctx.Err() != nil) {
		return "", fmt.Errorf("asking QEMU what it can log: %w", err)
	}
	return string(out), nil
}

func traceItems(help string) []string {
	var items []string
	for line := range strings.Lines(help) {
		if m := traceItem.FindStringSubmatch(line); m != nil {
			items = append(items, m[1])
		}
	}
	return items
}

func checkTrace(text string, known, events []string) (string, []error) {
	var items []string
	var problems []error
	for item := range strings.FieldsFuncSeq(text, func(r rune) bool { return strings.ContainsRune(", \t\r\n", r) }) {
		if err := checkItem(item, known, events); err != nil {
			problems = append(problems, fmt.Errorf("%q: %w", item, err))
		}
		items = append(items, item)
	}
	if len(items) == 0 {
		problems = append(problems, errors.New("it names no item: write some, such as guest_errors,unimp"))
	}
	return strings.Join(items, ","), problems
}

func checkItem(item string, known, events []string) error {
	pattern, isPattern := strings.CutPrefix(item, tracePattern)
	switch {
	case item == "tid" || item == "all":
		return errors.New("it makes a file for each thread, and there is one log here: name the other items that you need")
	case item == "help" || item == "?" || item == "trace:help":
		return fmt.Errorf("it only lists the items: use some of %s", strings.Join(usable(known), ", "))
	case isPattern && slices.Contains(known, tracePattern+"PATTERN"):
		return checkPattern(pattern, events)
	case isPattern:
		return errors.New("this QEMU was built without a log for trace events: leave it out")
	case slices.Contains(known, item):
		return nil
	}
	hint := suggestion(item, usable(known))
	if hint == "" {
		hint = ": use some of " + strings.Join(usable(known), ", ")
	}
	return errors.New("this QEMU logs no such thing" + hint)
}

// usable are the items that can be asked for as they are.
func usable(known []string) []string {
	return slices.DeleteFunc(slices.Clone(known), func(item string) bool { return item == "tid" || strings.HasPrefix(item, tracePattern) })
}

// checkPattern finds out whether a pattern is the name of any event. QEMU
// itself only warns, and logs nothing.
func checkPattern(pattern string, events []string) error {
	if pattern == "" {
		return errors.New("it names no event: write one, or a pattern such as trace:ide_*")
	}
	if slices.ContainsFunc(events, func(event string) bool { ok, err := path.Match(pattern, event); return ok && err == nil }) {
		return nil
	}
	return errors.New("this QEMU has no event of that name" + suggestion(pattern, events))
}

// SilentUnderKVM are the items that only tell what QEMU's own translator does,
// of those in a checked list: under KVM there is none.
func SilentUnderKVM(items string) []string {
	translator := []string{"out_asm", "in_asm", "op", "op_opt", "op_ind", "op_plugin", "exec", "cpu", "fpu", "vpu", "nochain", "plugin"}
	return slices.DeleteFunc(strings.Split(items, ","), func(item string) bool { return !slices.Contains(translator, item) })
}
