package lifecycle

import (
	"errors"
	"strconv"
	"time"

	"github.com/org/hurd-qemu-action/internal/config"
)

// setOutputs writes what is known; an output that would be empty is left out.
func (r *run) setOutputs() error {
	res := r.result
	values := []struct{ name, value string }{
		{config.OutResult, string(res.Kind)},
		{config.OutExitCode, strconv.Itoa(res.ExitCode)},
		{config.OutAccel, res.Accel},
		{config.OutAccelReason, res.AccelReason},
		{config.OutBootSeconds, seconds(res.Boot)},
		{config.OutSSHSeconds, seconds(res.SSH)},
		{config.OutRunSeconds, seconds(res.Script)},
		{config.OutBootAttempts, count(res.Attempts)},
		{config.OutGuestUname, res.Uname},
		{config.OutImageDigest, res.ImageDigest},
		{config.OutSnapshot, res.Snapshot},
		{config.OutPrepareHit, r.prepareHit()},
		{config.OutArtifactID, number(res.Artifact.ID)},
		{config.OutSerialLog, res.SerialLog},
		{config.OutQEMULog, res.QEMULog},
		{config.OutMetrics, res.Metrics},
		{config.OutBenchmark, res.Benchmark},
		{config.OutMedianSeconds, seconds(r.bench.median())},
	}
	var errs []error
	for _, v := range values {
		if v.value != "" {
			errs = append(errs, r.Log.Files().SetOutput(v.name, v.value))
		}
	}
	return errors.Join(errs...)
}

// prepareHit tells whether the prepare script was spared; empty without one.
func (r *run) prepareHit() string {
	if r.config.Prepare == "" || r.result.Snapshot == "" {
		return ""
	}
	return strconv.FormatBool(r.result.Snapshot == stateRestored)
}

func number(n int64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatInt(n, 10)
}

// seconds is a duration as an output has it: 12.345.
func seconds(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return strconv.FormatFloat(d.Seconds(), 'f', 3, 64)
}

func count(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}
