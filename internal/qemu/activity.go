package qemu

import (
	"context"
	"errors"
	"fmt"
	"time"

	goqemu "github.com/digitalocean/go-qemu/qemu"

	"github.com/org/hurd-qemu-action/internal/qemu/domain"
	"github.com/org/hurd-qemu-action/internal/units"
)

// Domain gives go-qemu's view of the machine, on our own monitor connection.
// Its commands take at most timeout each; 0 means 5 s. The caller closes it,
// which does not touch the machine.
func (m *Machine) Domain(timeout time.Duration) (*goqemu.Domain, error) {
	return domain.New(m.monitor, domain.Options{Name: "guest", Timeout: timeout})
}

// Activity is what a silent machine can still be asked: a guest that never
// read its disk has not even begun to boot.
type Activity struct {
	Status  string      // QEMU's word for the machine's state: "running", "paused", ...
	Read    units.Bytes // what the guest has read from all its disks
	Written units.Bytes // what it has written to them
}

// String gives all of it for a log.
func (a Activity) String() string {
	return fmt.Sprintf("%s, the guest has read %s from its disks and written %s", a.Status, a.Read.Human(), a.Written.Human())
}

// Activity asks a machine that runs. ctx bounds it by its deadline, and else
// a few seconds do; the error of a machine that has ended is its end.
func (m *Machine) Activity(ctx context.Context) (Activity, error) {
	var timeout time.Duration
	if limit, ok := ctx.Deadline(); ok {
		timeout = max(time.Until(limit), time.Millisecond)
	}
	a, err := m.activity(timeout)
	if end := m.Err(); err != nil && end != nil {
		err = end
	}
	if err != nil {
		return Activity{}, fmt.Errorf("asking what the machine does: %w", err)
	}
	return a, nil
}

func (m *Machine) activity(timeout time.Duration) (a Activity, err error) {
	d, err := m.Domain(timeout)
	if err != nil {
		return Activity{}, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	status, err := d.Status()
	if err != nil {
		return Activity{}, err
	}
	stats, err := d.BlockStats()
	if err != nil {
		return Activity{}, err
	}
	a.Status = statusName(status)
	for _, s := range stats {
		a.Read += units.Bytes(s.ReadBytes)
		a.Written += units.Bytes(s.WriteBytes)
	}
	return a, nil
}

// statusName is QEMU's own name for what go-qemu has as a number, where it
// matters here.
func statusName(s goqemu.Status) string {
	switch s {
	case goqemu.StatusRunning:
		return "running"
	case goqemu.StatusPaused, goqemu.StatusPreLaunch:
		return "paused"
	case goqemu.StatusShutdown:
		return "shut down"
	case goqemu.StatusIOError:
		return "stopped by an I/O error"
	}
	return s.String()
}
