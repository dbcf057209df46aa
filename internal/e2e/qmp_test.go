package e2e

import (
	"bytes"
	"encoding/json"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// qmpScript uses all four moments. The first key is pressed in the guest's real
// boot menu, which waits for it.
const qmpScript = `before-boot: query-status
on-console "Press enter to boot the selected OS": sendkey ret
on-console "Linux version \d": {"execute":"query-name"}
on-console "nothing says this": stop
after-boot: query-cpus
after-boot: frobnicate
after-boot: screendump up.png
after-run: human-monitor-command "info status"
`

// qmpRecord is a line of qmp.jsonl.
type qmpRecord struct {
	Line    int
	Moment  string
	Execute string
	Return  json.RawMessage
	Error   *struct{ Class string }
	Notes   []string
}

// qmpLog reads the answers of a run.
func (p *program) qmpLog(run string) map[int]qmpRecord {
	p.t.Helper()
	text, err := os.ReadFile(filepath.Join(p.workspace, ".hurd", run, "qmp.jsonl"))
	if err != nil {
		p.t.Fatal(err)
	}
	records := map[int]qmpRecord{}
	for line := range bytes.Lines(text) {
		var r qmpRecord
		if err := json.Unmarshal(line, &r); err != nil {
			p.t.Fatalf("%s: %v", line, err)
		}
		if _, twice := records[r.Line]; twice {
			p.t.Errorf("line %d was carried out twice", r.Line)
		}
		records[r.Line] = r
	}
	return records
}

// qmp calls the command qmp against the guest of a run.
func (p *program) qmp(stdin string, args ...string) (status int, stdout, stderr string) {
	p.t.Helper()
	var out, diag bytes.Buffer
	cmd := exec.Command("/proc/self/exe", append([]string{"qmp"}, args...)...)
	cmd.Env = []string{asProgram + "=1", "RUNNER_TEMP=" + p.temp}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &diag
	_ = cmd.Run() // its status is looked at
	return cmd.ProcessState.ExitCode(), out.String(), diag.String()
}

// TestE2EQMP carries commands out at all four moments, and from outside while
// the script waits for what is typed on the guest's keyboard. Its machine is
// saved, and the second run restores it.
func TestE2EQMP(t *testing.T) {
	needGuest(t)
	cache, err := sharedCache()
	if err != nil {
		t.Fatal(err)
	}
	run := func(script string) *program {
		return start(t, setup{action: true, warm: true, cache: cache, env: []string{
			"INPUT_IMAGE=selftest", "INPUT_ACCEL=tcg", "INPUT_MEMORY=512M", "INPUT_RUN=" + script, "INPUT_QMP=" + qmpScript,
		}})
	}
	// The guest's keyboard interrupts twice for each key.
	p := run(`keys() { while read -r irq n rest; do case "$irq $rest" in "1: "*i8042) echo "$n"; esac; done </proc/interrupts; }
		before=$(keys); printf 'WAI%s\n' TING # the log shows this line before it is run
		for i in $(seq 100); do [ "$(keys)" -lt $((before + 2 * 8)) ] || break; sleep 0.2; done
		echo "keys: $((($(keys) - before) / 2))"`)
	p.stdout.await(t, "WAITING")
	p.record()
	p.useQMP()
	p.ends("saved")
	log := p.stdout.String()
	has(t, "the log", log, "keys: 8\n", "::warning title=A command of qmp was refused::qmp: line 6, after-boot: frobnicate",
		`::warning title=A command of qmp was not due::qmp: line 4: no line of the console has matched "nothing says this"`,
		"query-cpus was carried out as query-cpus-fast", "qmp: line 2: the console says ", `"return":"VM status: running\r\n"`)
	records := p.qmpLog("run-1")
	for line, want := range map[int]string{
		1: `"status":"prelaunch"`, 2: `{}`, 3: `"name":"hurd-qemu-action"`, 5: `"cpu-index":0`, 7: `"file":".hurd/run-1/up.png"`, 8: `running`,
	} {
		if r := records[line]; !strings.Contains(string(r.Return), want) {
			t.Errorf("line %d: %+v, want %s", line, r, want)
		}
	}
	if len(records) != 7 || records[6].Error == nil || records[6].Error.Class != "CommandNotFound" {
		t.Errorf("%d records: %+v", len(records), records)
	}
	picture, err := os.ReadFile(filepath.Join(p.workspace, ".hurd/run-1/up.png"))
	if err != nil {
		t.Fatal(err)
	}
	if c, err := png.DecodeConfig(bytes.NewReader(picture)); err != nil || c.Width < 300 {
		t.Errorf("the picture: %+v, %v", c, err)
	}

	// What was done before the machine was saved is behind it; QEMU is set up again.
	p = run("true")
	p.ends("restored")
	records = p.qmpLog("run-1")
	if len(records) != 5 || !strings.Contains(string(records[1].Return), `"inmigrate"`) || records[5].Return == nil || records[8].Return == nil {
		t.Errorf("%d records of the restored machine: %+v", len(records), records)
	}
}

// useQMP talks to the guest while its script waits.
func (p *program) useQMP() {
	t := p.t
	t.Helper()
	wants := func(wantStatus int, want, stdin string, args ...string) {
		t.Helper()
		if status, out, diag := p.qmp(stdin, args...); status != wantStatus || !strings.Contains(out, want) {
			t.Errorf("qmp %q %q: status %d, stdout %q, stderr %q; want %d, %q", args, stdin, status, out, diag, wantStatus, want)
		}
	}
	wants(0, `"status":"running"`, "", "query-status")
	wants(0, `"status":"paused"`, `{"execute":"stop"}`+"\n"+`{"execute":"query-status"}`+"\n"+`{"execute":"cont"}`)
	picture := filepath.Join(p.temp, "outside.png")
	wants(0, `"size":`, "", "screendump", picture)
	if err := os.Remove(picture); err != nil {
		t.Error(err)
	}
	// QEMU runs confined: it may not open what we can.
	wants(1, "Could not open", "", "blockdev-add", "driver=file", "node-name=a", "filename=/etc/shadow")
	wants(0, `{"return":{}}`, "", "type", "outside")
	wants(0, `{"return":{}}`, "", "sendkey", "ret")
}

// TestE2EQMPEnds holds that commands which end the machine, or stop it, lead to
// an end that says so, at once.
func TestE2EQMPEnds(t *testing.T) {
	needGuest(t)
	for _, tc := range []struct {
		name, qmp, script, result string
		says                      []string
		not                       string
	}{
		{"refused before the boot", "before-boot: query-status\nbefore-boot: device_add driver=warp-drive", "true", "input-invalid",
			[]string{"::error title=Invalid input::qmp: line 2, before-boot: device_add driver=\"warp-drive\": QEMU refuses it: 'warp-drive' is not a valid device model name"}, "Linux version"},
		{"quit before the boot", "before-boot: quit", "true", "boot-failed",
			[]string{"::error title=A command of the input qmp ended the machine::qmp: line 1, before-boot: quit"}, "Booting again"},
		{"stopped while it boots", `on-console "Linux version": stop`, "echo THE E''ND", "input-invalid",
			[]string{"::error title=Invalid input::qmp: line 1, on-console: stop: the machine stands still after it (paused)", "Add a line with the command cont"}, "THE END"},
		{"reset under the script", `on-console "RESET NOW": system_reset`, "echo RESET NOW >/dev/console; sleep 60; echo THE E''ND", "guest-lost",
			[]string{"::error title=A command of the input qmp ended the machine::qmp: line 1, on-console: system_reset", "set-action reboot=reset"}, "THE END"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := start(t, setup{action: true, env: []string{
				"INPUT_IMAGE=selftest", "INPUT_ACCEL=tcg", "INPUT_MEMORY=512M", "INPUT_RUN=" + tc.script, "INPUT_QMP=" + tc.qmp, "INPUT_BOOT-TIMEOUT=3m",
			}})
			if status := p.wait(); status != 125 {
				t.Errorf("exit status = %d, want 125", status)
			}
			if got := p.outputs()["result"]; got != tc.result {
				t.Errorf("result = %q, want %q", got, tc.result)
			}
			has(t, "the log", p.stdout.String(), tc.says...)
			if log := p.stdout.String(); strings.Contains(log, tc.not) {
				t.Errorf("the log has %q:\n%s", tc.not, log)
			}
		})
	}
}

// TestE2EQMPMachMenu chooses an entry of the boot menu before a real GNU Mach
// with keys of the emulated keyboard: the second one lacks the boot modules,
// and its kernel says so. A pattern matches as soon as its text is there, so
// that it has to hold all that the log is asked for.
func TestE2EQMPMachMenu(t *testing.T) {
	needGuest(t)
	disk := machDisk(t, func(cfg string) string {
		cfg = strings.Replace(cfg, "set timeout=1\n", "set timeout=300\n", 1)
		return cfg[:strings.LastIndex(cfg, "menuentry")] + "menuentry \"without modules\" {\n  multiboot /boot/gnumach.gz console=com0\n}\n"
	}, nil)
	p := start(t, setup{action: true, env: []string{
		"INPUT_IMAGE=" + disk, "INPUT_ACCEL=tcg", "INPUT_MEMORY=512M", "INPUT_RUN=true",
		"INPUT_QMP=on-console \"Press enter to boot the selected OS\": sendkey down ret\non-console \"^GNU Mach 1[.]8\": query-status",
	}})
	if status := p.wait(); status != 125 {
		t.Errorf("exit status = %d, want 125", status)
	}
	has(t, "the log", p.stdout.String(), "qmp: line 1, on-console: send-key down ret", "qmp: line 2: the console says GNU Mach 1.8",
		`"status":"running"`, "bootstrap_create: No bootstrap code loaded with the kernel!", "::error title=GNU Mach")
	if strings.Contains(p.stdout.String(), "PROBE") {
		t.Error("the first entry was booted")
	}
}
