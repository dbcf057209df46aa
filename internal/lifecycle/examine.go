package lifecycle

import (
	"context"
	"errors"
	"time"

	"github.com/org/hurd-qemu-action/internal/doctor"
)

// examineTime bounds the look at the host after a boot that failed.
const examineTime = 3 * time.Second

// examine begins to look at the host when a boot has failed, which goes on
// beside the end of the run. The channel gives one report; nil: there is none.
func (r *run) examine(ctx context.Context, err error) <-chan doctor.Report {
	if !isKind(err, BootFailed) || ctx.Err() != nil {
		return nil
	}
	host := r.examined()
	done := make(chan doctor.Report, 1)
	ctx, stop := r.ending.context(ctx, examineTime, stopReserve)
	go func() {
		defer stop()
		done <- doctor.Run(ctx, host, doctor.Options{Offline: true, Quick: true, Limit: examineTime})
	}()
	return done
}

// examined is this host for this run, of which everything is known that costs
// something to find out: neither KVM nor QEMU are asked again.
func (r *run) examined() doctor.Host {
	h := Examined(r.Host, Examination{Image: &r.source, Want: r.want(), Accel: r.config.Accel, Memory: r.config.Memory, CPUs: r.config.CPUs})
	features, decision := r.features, r.accel
	h.QEMU = func(context.Context) (doctor.QEMU, error) {
		if features == nil {
			return doctor.QEMU{}, errors.New("QEMU was not asked")
		}
		return describeQEMU(features), nil
	}
	h.KVM = func(context.Context) (doctor.KVM, error) { return describeKVM(decision, r.Host.KVM), nil }
	h.StoreNeed = nil // the image is there
	return h
}

// addFindings tells what is not fine with the host: in a group of the log, and
// after the advice of the boot's own cause, from where it gets into the reports.
func (r *run) addFindings(err error, findings <-chan doctor.Report) {
	var e *Error
	if _, soon := r.ending.soon(); soon || findings == nil || !errors.As(err, &e) {
		return
	}
	report := <-findings // it is bounded
	var lines []string
	for _, f := range report.Findings {
		lines = append(lines, f.Verdict.Mark()+" "+f.Advice())
	}
	r.Log.Fold("What doctor finds about this host (hurd-qemu-action doctor looks at more)", lines)
	for _, f := range report.Problems() {
		e.Advice = append(e.Advice, "About this host: "+f.Advice())
	}
}
