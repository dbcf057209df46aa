package lifecycle

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/org/hurd-qemu-action/internal/config"
	"github.com/org/hurd-qemu-action/internal/monitor"
	"github.com/org/hurd-qemu-action/internal/qemu"
)

// withScript is a run with the input qmp.
func withScript(t *testing.T, text string) *run {
	t.Helper()
	r, _ := newRun()
	r.config = config.Config{QMP: text}
	if problems := r.readMonitor(); len(problems) > 0 {
		t.Fatal(problems)
	}
	r.machine = &qemu.Machine{}
	return r
}

func TestCommandsThatEndAMachine(t *testing.T) {
	for text, want := range map[string]struct{ can, ends bool }{
		"quit": {true, true}, "system_reset": {true, true}, "hmp q": {true, true}, "hmp system_reset": {true, true},
		"system_powerdown": {true, false}, "inject-nmi": {true, false}, "hmp sendkey ctrl-alt-delete": {true, false},
		"sendkey a ctrl-alt-delete": {true, false}, "sendkey ctrl-alt-f2": {false, false}, "query-status": {false, false}, "hmp info status": {false, false}, "stop": {false, false},
	} {
		c, err := monitor.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if can, ends := canEnd(c), endsQEMU(c); can != want.can || ends != want.ends {
			t.Errorf("%s: can end a machine: %v, ends QEMU: %v; want %v", text, can, ends, want)
		}
	}
}

// TestWhoEndedTheMachine tells a command of the input from another program.
func TestWhoEndedTheMachine(t *testing.T) {
	r := withScript(t, "after-boot: quit")
	quit := error(&qemu.ExitError{Reason: qemu.ExitHostQuit})
	e := r.monitorFailure(GuestLost, quit)
	if e == nil || e.Kind != GuestLost || e.Title != "Another program ended the machine" {
		t.Errorf("without a command: %+v", e)
	}
	r.commands.last.Store(&carriedOut{r.commands.script[0], time.Now()})
	e = r.monitorFailure(BootFailed, nil, quit)
	if e == nil || e.Kind != BootFailed || !strings.Contains(e.Error(), "line 1, after-boot: quit") {
		t.Errorf("after a command: %+v", e)
	}
	refused := &commandError{step: r.commands.script[0], text: "no"}
	if e := r.monitorFailure(BootFailed, errors.New("other"), refused); e == nil || e.Kind != InputInvalid || e.Error() != "qmp: line 1, after-boot: quit: no" {
		t.Errorf("a command that went wrong: %+v", e)
	}
	if e := r.monitorFailure(BootFailed, &qemu.ExitError{Reason: qemu.ExitGuestReset}, nil); e != nil {
		t.Errorf("the guest's own end: %+v", e)
	}
	e = r.culprit(fail(GuestLost, "Title", errors.New("the guest powered the machine off")))
	if !strings.HasPrefix(e.Error(), "the guest powered the machine off (qmp: line 1, after-boot: quit came 0.0") {
		t.Errorf("culprit: %v", e)
	}
	r.commands.last.Load().at = time.Now().Add(-2 * culpritTime)
	if e := r.culprit(fail(GuestLost, "Title", errors.New("x"))); e.Error() != "x" {
		t.Errorf("a command of long ago: %v", e)
	}
}

func TestMenuIsWanted(t *testing.T) {
	for text, want := range map[string]bool{
		`on-console "a": sendkey down`: true, `on-console "a": type x`: true, `on-console "a": hmp sendkey ret`: true,
		`on-console "a": {"execute":"send-key","arguments":{"keys":[]}}`: true,
		`on-console "a": query-status`:                                   false, `after-boot: sendkey ret`: false, ``: false,
	} {
		if got := withScript(t, text).wantsMenu(); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}

// TestPicturesDoNotCollide keeps what each attempt to boot has left.
func TestPicturesDoNotCollide(t *testing.T) {
	r := withScript(t, "")
	var err error
	if r.logs, err = newLogs(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"menu.png", "menu-2.png", "menu-3.png"} {
		path, err := r.keepPicture("menu.png", []byte(want))
		if err != nil || path != r.logs.path(want) {
			t.Errorf("%s, %v; want %s", path, err, want)
		}
		if data, err := os.ReadFile(r.logs.dir + "/" + want); err != nil || string(data) != want {
			t.Errorf("%s: %s, %v", want, data, err)
		}
	}
}
