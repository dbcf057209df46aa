package guest

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// harmless has renew.sh call functions in place of date and kill, in every
// shell: a PATH would not do, since busybox's shell prefers its own date, and
// neither this host's clock nor its SSH server is ours to touch. What date is
// called with goes to a file.
func harmless(t *testing.T, dateStatus string) (dates string) {
	t.Helper()
	dates = filepath.Join(t.TempDir(), "dates")
	real := renewScript
	t.Cleanup(func() { renewScript = real })
	renewScript = "date() { echo \"$*\" >>" + quote(dates) + "; return " + dateStatus + "; }\nkill() { :; }\n" + real
	return dates
}

// TestRenew gives files new beginnings in every world: what follows stays, no
// file is truncated or replaced, and what is binary arrives as it is.
func TestRenew(t *testing.T) {
	for _, w := range worlds() {
		t.Run(w.name, func(t *testing.T) {
			dates := harmless(t, "0")
			s := w.in(t)
			c := dialed(t, s.listen())
			dir := t.TempDir()
			keys, host, random := filepath.Join(dir, "authorized keys"), filepath.Join(dir, "it's the host key"), filepath.Join(dir, "created")
			for _, f := range []string{keys, host} {
				if err := os.WriteFile(f, []byte(strings.Repeat("old", 100)), 0o640); err != nil {
					t.Fatal(err)
				}
			}
			before, err := os.Stat(keys)
			if err != nil {
				t.Fatal(err)
			}
			binary := []byte("\x00\n\r\\%s'\"\xff\x00\n\n")
			long := bytes.Repeat([]byte("0123456789abcdef"), 8<<10)
			clock, err := c.Renew(t.Context(), time.Unix(1700000000, 600e6), []Beginning{{keys, []byte("new")}, {host, binary}, {random, long}})
			if err != nil || !clock {
				t.Fatalf("clock %t, %v", clock, err)
			}
			for f, want := range map[string]string{
				keys: "new" + strings.Repeat("old", 99), host: string(binary) + strings.Repeat("old", 100)[len(binary):], random: string(long),
			} {
				if got, err := os.ReadFile(f); err != nil || string(got) != want {
					t.Errorf("%s: %.60q (%d bytes), %v", f, got, len(got), err)
				}
			}
			after, err := os.Stat(keys)
			if err != nil || !os.SameFile(before, after) || after.Mode() != before.Mode() {
				t.Errorf("the file was replaced: %v, %v, %v", before.Mode(), after.Mode(), err)
			}
			if text, err := os.ReadFile(dates); err != nil || string(text) != "-u -s @1700000001\n" {
				t.Errorf("date %q, %v", text, err)
			}
			for _, tmp := range []string{s.dir, "/run", "/tmp", "/var/tmp"} {
				if left, _ := filepath.Glob(filepath.Join(tmp, "hurd-qemu-action.renew.*")); len(left) > 0 {
					t.Errorf("left: %v", left)
				}
			}
		})
	}
}

// TestRenewFails: a clock that can't be set is told, a key that can't be
// written is an error, whatever the rest says.
func TestRenewFails(t *testing.T) {
	harmless(t, "1")
	c := dialed(t, worlds()[0].in(t).listen())
	if clock, err := c.Renew(t.Context(), time.Now(), nil); err != nil || clock {
		t.Errorf("without a clock: %t, %v", clock, err)
	}
	missing := filepath.Join(t.TempDir(), "no", "such", "directory")
	clock, err := c.Renew(t.Context(), time.Now(), []Beginning{{missing, []byte("x")}})
	if err == nil || clock || !strings.HasPrefix(err.Error(), "renewing the guest: ") || !strings.Contains(err.Error(), missing) {
		t.Errorf("a file that can't be made: %t, %v", clock, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Renew(ctx, time.Now(), nil); err == nil || !strings.Contains(err.Error(), "renewing the guest") {
		t.Errorf("a context that has ended: %v", err)
	}
}
