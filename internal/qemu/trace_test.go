package qemu

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// recordedText is something that a QEMU printed.
func recordedText(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestTraceItems(t *testing.T) {
	got := traceItems(recordedText(t, "trace-help-7.2.txt"))
	want := []string{"out_asm", "in_asm", "op", "op_opt", "op_ind", "int", "exec", "cpu", "fpu", "mmu", "pcall", "cpu_reset", "unimp", "guest_errors", "page", "nochain", "plugin", "strace", "tid", "trace:PATTERN"}
	if !slices.Equal(got, want) {
		t.Errorf("items:\n%q\nwant\n%q", got, want)
	}
}

func TestCheckTrace(t *testing.T) {
	known := traceItems(recordedText(t, "trace-help-7.2.txt"))
	events := []string{"ide_reset", "ide_cmd_write", "pic_interrupt"}
	for text, want := range map[string]string{
		"guest_errors": "guest_errors", "guest_errors,unimp": "guest_errors,unimp", " guest_errors\n unimp,,int ": "guest_errors,unimp,int",
		"trace:ide_*,trace:pic_interrupt": "trace:ide_*,trace:pic_interrupt",
	} {
		if got, problems := checkTrace(text, known, events); got != want || len(problems) > 0 {
			t.Errorf("%q: %q, %v", text, got, problems)
		}
	}
	for text, want := range map[string]string{
		"guest_erors":     `"guest_erors": this QEMU logs no such thing: did you mean guest_errors?`,
		"network":         `"network": this QEMU logs no such thing: use some of out_asm, in_asm,`,
		"all":             `"all": it makes a file for each thread`,
		"tid":             `"tid": it makes a file for each thread`,
		"help":            `"help": it only lists the items: use some of out_asm`,
		" , ":             `it names no item`,
		"trace:":          `"trace:": it names no event`,
		"trace:ide_rezet": `"trace:ide_rezet": this QEMU has no event of that name: did you mean ide_reset?`,
		"trace:PATTERN":   `"trace:PATTERN": this QEMU has no event of that name`,
		"trace:[":         `"trace:[": this QEMU has no event of that name`,
	} {
		if _, problems := checkTrace(text, known, events); len(problems) != 1 || !strings.HasPrefix(problems[0].Error(), want) {
			t.Errorf("%q: %v; want %s", text, problems, want)
		}
	}
	if _, problems := checkTrace("x1,unimp,trace:ide_x,x2", known, events); len(problems) != 3 {
		t.Errorf("not all problems are there: %v", problems)
	}
	if _, problems := checkTrace("trace:ide_reset", []string{"unimp"}, nil); len(problems) != 1 || !strings.Contains(problems[0].Error(), "was built without a log for trace events") {
		t.Errorf("%v", problems)
	}
	if got := SilentUnderKVM("guest_errors,in_asm,exec"); !slices.Equal(got, []string{"in_asm", "exec"}) {
		t.Errorf("silent: %q", got)
	}
}

// lockedBuffer is a log that two goroutines use.
type lockedBuffer struct {
	mu    sync.Mutex
	buf   bytes.Buffer
	wrote chan struct{} // closed, and replaced, with each write; nil: nobody waits
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.wrote != nil {
		close(b.wrote)
		b.wrote = nil
	}
	return b.buf.Write(p)
}

// await waits for a text.
func (b *lockedBuffer) await(t *testing.T, text string) {
	t.Helper()
	limit := time.After(30 * time.Second)
	for {
		b.mu.Lock()
		found := strings.Contains(b.buf.String(), text)
		if b.wrote == nil {
			b.wrote = make(chan struct{})
		}
		wrote := b.wrote
		b.mu.Unlock()
		if found {
			return
		}
		select {
		case <-wrote:
		case <-limit:
			t.Fatalf("no %q in:\n%s", text, b)
		}
	}
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// TestE2ETrace holds that all that QEMU logs is there when the machine has
// ended, also when QEMU runs as another user.
func TestE2ETrace(t *testing.T) {
	for _, item := range []string{"guest_errors", "in_asm"} {
		items, problems := CheckTrace(deadline(t, 30*time.Second), qemuForTrace(t), item)
		if len(problems) > 0 || items != item {
			t.Fatalf("%s: %q, %v", item, items, problems)
		}
	}
	if _, problems := CheckTrace(deadline(t, 30*time.Second), *qemuFlag, "trace:ide_*,trace:no_such_event,gest_errors"); len(problems) != 2 {
		t.Errorf("problems: %v", problems)
	}
	wrong := append([]byte{0xb0, 0x01, 0xe6, 0x64}, idle...) // mov al, 1; out 0x64, al: the keyboard controller has no such command
	spec, options := realSpec(t, firmware("traced\n", wrong))
	var log lockedBuffer
	spec.Trace, options.Trace = "in_asm,guest_errors", &log
	m := startReal(t, spec, options)
	waitFor(t, m, "traced", 30*time.Second)
	log.await(t, "unsupported keyboard cmd=0x01")
	if err := m.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if text := log.String(); !strings.Contains(text, "IN: ") || !strings.Contains(text, "$0x3f8") {
		t.Errorf("the trace:\n%s", text)
	}
	for _, arg := range m.Args() {
		if strings.HasPrefix(arg, "/tmp") || strings.Contains(arg, "qemu-trace") {
			t.Errorf("QEMU is told a path: %s", arg)
		}
	}
}

func qemuForTrace(t *testing.T) string {
	t.Helper()
	needQEMU(t)
	return *qemuFlag
}

// TestE2ETraceLimit holds that a trace ends at its limit, that the machine goes
// on, and that QEMU then logs nothing.
func TestE2ETraceLimit(t *testing.T) {
	spec, options := realSpec(t, firmware("traced\n", echo))
	var log lockedBuffer
	spec.Trace, options.Trace, options.TraceLimit = "exec,nochain", &log, 4096
	m := startReal(t, spec, options)
	waitFor(t, m, "traced", 60*time.Second)
	if _, err := m.Console().Write([]byte("typed\n")); err != nil {
		t.Error(err)
	}
	waitFor(t, m, "typed", 60*time.Second)
	<-m.trace.full
	if err := m.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	text := log.String()
	if kept, rest, _ := strings.Cut(text, "\n[The log has reached its limit"); len(kept) != 4096 || !strings.HasSuffix(rest, "nothing more is kept.]\n") {
		t.Errorf("%d bytes are kept, then %q", len(kept), rest)
	}
}
