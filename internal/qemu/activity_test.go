package qemu

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	goqemu "github.com/digitalocean/go-qemu/qemu"

	"github.com/org/hurd-qemu-action/internal/units"
)

func TestActivity(t *testing.T) {
	m := startFake(t, fakeOptions{Answers: map[string]string{"query-blockstats": `[
		{"node-name": "disk0", "qdev": "disk0-dev", "stats": {"rd_bytes": 3145728, "wr_bytes": 512}},
		{"node-name": "cdrom1", "stats": {"rd_bytes": 1048576, "wr_bytes": 0}}]`}})
	a, err := m.Activity(deadline(t, 20*time.Second))
	if err != nil || a.Status != "running" || a.Read != 4*units.MiB || a.Written != 512 {
		t.Errorf("Activity = %+v, %v", a, err)
	}
	if got, want := a.String(), "running, the guest has read 4 MiB from its disks and written 512 B"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if err := m.Monitor().Execute(t.Context(), "query-status", nil, nil); err != nil {
		t.Errorf("asking ended the monitor: %v", err)
	}
	if err := m.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	_, err = m.Activity(t.Context())
	var exit *ExitError
	if !errors.As(err, &exit) || !strings.HasPrefix(err.Error(), "asking what the machine does: qemu ended: ") {
		t.Errorf("err = %v; want the machine's end", err)
	}
}

// TestActivityOfADeafQEMU pins that the context's deadline holds.
func TestActivityOfADeafQEMU(t *testing.T) {
	m := startFake(t, fakeOptions{IgnoreAll: true})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := m.Activity(ctx)
	if err == nil || !strings.Contains(err.Error(), "asking what the machine does: executing query-blockstats: no reply: QEMU took too long") {
		t.Errorf("err = %v", err)
	}
}

func TestStatusNames(t *testing.T) {
	for status, want := range map[goqemu.Status]string{
		goqemu.StatusRunning: "running", goqemu.StatusPreLaunch: "paused", goqemu.StatusShutdown: "shut down",
		goqemu.StatusIOError: "stopped by an I/O error", goqemu.StatusWatchdog: "StatusWatchdog",
	} {
		if got := statusName(status); got != want {
			t.Errorf("%v is named %q, want %q", status, got, want)
		}
	}
}

// checkDomain asks a real QEMU through go-qemu.
func checkDomain(t *testing.T, m *Machine) {
	t.Helper()
	d, err := m.Domain(0)
	if err != nil {
		t.Fatal(err)
	}
	if status, err := d.Status(); err != nil || status != goqemu.StatusRunning {
		t.Errorf("Status = %v, %v", status, err)
	}
	if version, err := d.Version(); err != nil || version != m.Monitor().Version().String() {
		t.Errorf("Version = %v, %v; the greeting says %v", version, err, m.Monitor().Version())
	}
	if known, err := d.Supported("snapshot-save"); err != nil || !known {
		t.Errorf("Supported = %v, %v", known, err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if a, err := m.Activity(deadline(t, 20*time.Second)); err != nil || a.Status != "running" {
		t.Errorf("Activity = %+v, %v", a, err)
	}
}
