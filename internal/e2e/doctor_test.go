package e2e

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/org/hurd-qemu-action/internal/doctor"
)

// doctor looks at a run from beside it, as a person would, and gives the
// findings by the check's name.
func (p *program) doctor(args ...string) map[string]doctor.Finding {
	p.t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(p.t.Context(), "/proc/self/exe", append([]string{"doctor", "--json", "--offline", "--accel=tcg", "--workspace=" + p.workspace}, args...)...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = p.workspace, p.cmd.Env, &out, &errs
	began := time.Now()
	err := cmd.Run()
	var report doctor.Report
	if jsonErr := json.Unmarshal(out.Bytes(), &report); jsonErr != nil {
		p.t.Fatalf("doctor: %v, %v\n%s%s", err, jsonErr, &out, &errs)
	}
	if took := time.Since(began); took > 16*time.Second {
		p.t.Errorf("doctor took %v", took)
	}
	if (err != nil) != (report.Verdict == doctor.Broken) {
		p.t.Errorf("doctor ends with %v, and the worst is %s", err, report.Verdict)
	}
	found := map[string]doctor.Finding{}
	for _, f := range report.Findings {
		found[f.Check] = f
	}
	return found
}

// finds holds what doctor says: name of the check, verdict, and words.
func finds(t *testing.T, found map[string]doctor.Finding, want [][3]string) {
	t.Helper()
	for _, w := range want {
		f := found[w[0]]
		if string(f.Verdict) != w[1] || !strings.Contains(f.Text+"\n"+strings.Join(f.Quote, "\n"), w[2]) {
			t.Errorf("%s: want %s with %q: %+v", w[0], w[1], w[2], f)
		}
	}
}
