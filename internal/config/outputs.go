package config

// Output describes one output of the action.
type Output struct {
	Name string
	Help string
}

// The names of the outputs.
const (
	OutResult       = "result"
	OutExitCode     = "exit-code"
	OutAccel        = "accel"
	OutAccelReason  = "accel-reason"
	OutBootSeconds  = "boot-seconds"
	OutSSHSeconds   = "ssh-seconds"
	OutRunSeconds   = "run-seconds"
	OutBootAttempts = "boot-attempts"
	OutGuestUname   = "guest-uname"
	OutImageDigest  = "image-digest"
	OutSnapshot     = "snapshot"
	OutPrepareHit   = "prepare-hit"
	OutArtifactID   = "artifact-id"
	OutSerialLog    = "serial-log"
	OutQEMULog      = "qemu-log"
	OutMetrics      = "metrics"
	OutBenchmark    = "benchmark"

	OutMedianSeconds = "median-seconds"
)

// Outputs lists the outputs in the order of the tables.
func Outputs() []Output {
	return []Output{
		{OutResult, "How the run ended: success, script-failed, script-signaled, timeout, canceled, guest-lost, boot-failed, image-failed, service-failed, input-invalid or internal-error."},
		{OutExitCode, "Exit status of the step: the script's own, 128+n when signal n killed it, 124 on a timeout, 130 or 143 when canceled, 125 when this action or the guest failed."},
		{OutAccel, "Accelerator that the guest ran with: kvm or tcg."},
		{OutAccelReason, "Why that accelerator."},
		{OutBootSeconds, "Seconds from the start of QEMU until a command had run over SSH."},
		{OutSSHSeconds, "Of these, the seconds that the connection took that succeeded: TCP, handshake, login and first command."},
		{OutRunSeconds, "Seconds that the script ran; with benchmark, all repetitions together."},
		{OutBootAttempts, "Number of times that a machine was booted."},
		{OutGuestUname, "What uname -a prints in the guest."},
		{OutImageDigest, "Digest of the image that was booted, as algorithm:hex."},
		{OutSnapshot, "How the machine began: restored (from a saved one), saved (booted, and saved for later runs), cold (booted), failed (a saved one could not be used, and the machine was booted)."},
		{OutPrepareHit, "Whether a saved machine spared this run the prepare script: true or false. Empty without prepare."},
		{OutArtifactID, "Number of the artifact that was made; empty when there is none."},
		{OutSerialLog, "Path of the log of the serial console, relative to the workspace."},
		{OutQEMULog, "Path of QEMU's own messages and command line, relative to the workspace."},
		{OutMetrics, "Path of metrics.json, relative to the workspace: boot phases, processor time, memory, disk and network bytes, with units in the names. metrics.prom beside it has the same as OpenMetrics text."},
		{OutBenchmark, "Path of benchmark.json, relative to the workspace: each repetition's time and the statistics. Empty without benchmark."},
		{OutMedianSeconds, "Median of the seconds that the script's repetitions took. Empty without benchmark."},
	}
}
