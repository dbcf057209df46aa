package cli

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/org/hurd-qemu-action/internal/doctor"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// ailing has every verdict, and what a guest may have printed.
func ailing() doctor.Report {
	return doctor.Report{Verdict: doctor.Broken, Seconds: 2.34, Findings: []doctor.Finding{
		{Check: "qemu", Group: "QEMU", Title: "QEMU", Verdict: doctor.Limited, Text: "7.2.22: machines share no memory", Fix: []string{"Install QEMU 10."}},
		{Check: "kvm", Group: "QEMU", Title: "KVM", Verdict: doctor.Slow, Text: "/dev/kvm may not be opened by user 1001", Fix: []string{"sudo usermod -aG kvm runner.", "Or change the rule."}},
		{Check: "memory", Group: "Room", Title: "Memory", Verdict: doctor.Fine, Text: "6 GiB free of this host's 8 GiB"},
		{Check: "temp-space", Group: "Room", Title: "Temporary files", Verdict: doctor.Broken, Text: "/tmp: no space left on device", Fix: []string{"Free space there."}},
		{Check: "image", Group: "Images", Title: "Image", Verdict: doctor.Skipped, Text: "none was named (--image)"},
		{Check: "guest-console", Group: "Guests that run here", Title: "Console", Verdict: doctor.Fine, Text: "hurd-qemu-action-1: the last was printed 5s ago", Quote: []string{"::error::a guest says so", "login:"}},
	}}
}

// TestShowFindings is what people read, at a terminal and in a job's log.
func TestShowFindings(t *testing.T) {
	for name, environ := range map[string][]string{"terminal": nil, "job": {"GITHUB_ACTIONS=true"}} {
		var out, errs bytes.Buffer
		c := Command{Stdout: &out, Stderr: &errs, Environ: environ, Version: "v1.2.3"}
		if err := c.showReport(ailing(), false); err != nil {
			t.Fatal(err)
		}
		got := strings.Replace(withoutTokens(out.String()), runtime.GOARCH, "amd64", 1)
		file := filepath.Join("testdata", "doctor-"+name+".golden")
		if *update {
			if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatalf("%v (make it with -update)", err)
		}
		if got != string(want) {
			t.Errorf("%s:\n%s\nwant (rewrite it with -update):\n%s", name, got, want)
		}
		if errs.Len() > 0 {
			t.Errorf("%s: on standard error: %q", name, errs.String())
		}
	}
}

// withoutTokens replaces the random tokens of the fences.
func withoutTokens(log string) string {
	var b strings.Builder
	token := ""
	for line := range strings.Lines(log) {
		if t, ok := strings.CutPrefix(line, "::stop-commands::"); ok {
			token = strings.TrimSpace(t)
		}
		if token != "" {
			line = strings.ReplaceAll(line, token, "TOKEN")
		}
		b.WriteString(line)
	}
	return b.String()
}

// TestShowReportAsJSON is what programs read.
func TestShowReportAsJSON(t *testing.T) {
	var out bytes.Buffer
	c := Command{Stdout: &out, Version: "v1.2.3", Environ: []string{"GITHUB_ACTIONS=true"}}
	if err := c.showReport(ailing(), true); err != nil {
		t.Fatal(err)
	}
	var got struct {
		Version, Verdict string
		Seconds          float64
		Findings         []doctor.Finding
	}
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatalf("%v: %s", err, &out)
	}
	if got.Version != "v1.2.3" || got.Verdict != "broken" || got.Seconds != 2.34 || len(got.Findings) != 6 || got.Findings[1].Fix[1] != "Or change the rule." {
		t.Errorf("%+v", got)
	}
}
