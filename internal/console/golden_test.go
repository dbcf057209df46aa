package console

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/org/hurd-qemu-action/internal/units"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// logs are the recordings of real consoles.
func logs(t testing.TB) []string {
	t.Helper()
	var all []string
	for _, dir := range []string{"serial", "mach"} {
		found, err := filepath.Glob(filepath.Join("../../testdata", dir, "*.log"))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, found...)
	}
	if len(all) < 12 {
		t.Fatalf("only %d recordings under testdata/serial and testdata/mach", len(all))
	}
	return all
}

// evidence is what a console that sent this text shows, some time later.
func evidence(text []byte) Evidence {
	c := New(nil, Options{Now: func() time.Time { return time.Time{} }})
	c.take(text)
	return Evidence{
		Findings: c.Findings(), Lines: c.Tail(-1), Bytes: units.Bytes(len(text)),
		Silence: time.Minute, Waited: 90 * time.Second,
	}
}

// TestRecordings checks what is found in real logs, and what is made of it
// when the boot ended there without SSH.
func TestRecordings(t *testing.T) {
	for _, path := range logs(t) {
		t.Run(filepath.Base(path), func(t *testing.T) {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			e := evidence(text)
			var b strings.Builder
			for _, f := range e.Findings {
				fmt.Fprintf(&b, "%s %s: %s\n", f.Severity, f.Kind, f.Line.Text)
			}
			cause := Classify(e)
			fmt.Fprintf(&b, "\n%s: %s\n%s\n", cause.Name, cause.Title, cause.Detail)
			for _, a := range cause.Advice {
				fmt.Fprintf(&b, "- %s\n", a)
			}
			for _, q := range cause.Quote {
				fmt.Fprintf(&b, "> %s\n", q)
			}
			golden(t, strings.TrimSuffix(filepath.Base(path), ".log")+".golden", b.String())
		})
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v (run go test -update)", err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("differs from %s (-want +got):\n%s", path, diff)
	}
}
