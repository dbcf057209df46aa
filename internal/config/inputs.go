// Package config turns the inputs of the action, or the flags of the same
// names, into one validated Config, and reports everything that is wrong with
// them at once. Inputs is the single source of action.yml, of the flags and of
// the README's tables; a test fails when they drift.
package config

import (
	"reflect"
	"strings"
)

// Inputs holds the inputs as they were written. The tags are read by kong (the
// flags) and by Fields (action.yml, README): name and default are the public
// contract, help is shown to users everywhere, group orders the tables.
type Inputs struct {
	Run   string `name:"run" group:"Script" placeholder:"SCRIPT" help:"Script to run in the guest. It is a file there, so a command that reads standard input does not swallow the rest."`
	Shell string `name:"shell" group:"Script" placeholder:"TEMPLATE" help:"Command that runs the script; {0} stands for its path. Default: bash -eo pipefail {0}, or sh -e {0} where the guest has no bash."`

	WorkingDirectory string `name:"working-directory" group:"Script" placeholder:"DIR" help:"Directory in which the script runs: relative to the workspace, or an absolute path in the guest. Default: the workspace, or the user's home where sync is none."`
	User             string `name:"user" group:"Script" placeholder:"NAME" help:"User who runs the script; made where the guest has none of that name. Default: ssh-user."`
	Env              string `name:"env" group:"Script" placeholder:"LINES" help:"Environment of the script, one KEY=VALUE per line; KEY alone passes on the variable of this step. GITHUB_*, RUNNER_* and CI are there in any case; PATH and HOME are the guest's own."`
	Timeout          string `name:"timeout" group:"Script" placeholder:"DURATION" help:"Wall-clock limit of the script, such as 90s or 10m; then it is killed in the guest and the result is timeout. Default: none."`
	IdleTimeout      string `name:"idle-timeout" group:"Script" placeholder:"DURATION" help:"Like timeout, but for a script that has printed nothing for this long. Default: none."`

	Sync          string `name:"sync" group:"Workspace" default:"auto" placeholder:"MODE" allowed:"auto,disk,tar,none" help:"How the workspace gets to /github/workspace in the guest: disk (a second drive that the guest uses in place), tar (a stream over SSH), none, or auto, the first that works."`
	SyncInclude   string `name:"sync-include" group:"Workspace" placeholder:"PATTERNS" help:"Patterns, one per line and written as in .gitignore, of the only files to take along. Default: all files."`
	SyncExclude   string `name:"sync-exclude" group:"Workspace" placeholder:"PATTERNS" help:"Patterns of files to leave behind, one per line and written as in .gitignore."`
	WorkspaceSize string `name:"workspace-size" group:"Workspace" default:"4G" placeholder:"SIZE" help:"Size of the workspace's drive in the guest. It takes no more room on the host than what is written to it."`
	CopyBack      string `name:"copy-back" group:"Workspace" default:"changed" placeholder:"WHAT" help:"What comes back into the workspace, also when the script has failed or the guest was lost: changed (new and changed files), mirror (changed, and what the script deleted is deleted), all, none, or patterns of paths such as build/**/*.log, one per line."`
	ArtifactName  string `name:"artifact-name" group:"Workspace" placeholder:"NAME" help:"Name of an artifact that gets the logs, the report and the files of artifact-path. Default: none is uploaded."`
	ArtifactPath  string `name:"artifact-path" group:"Workspace" placeholder:"PATTERNS" help:"Patterns of paths in the workspace, or absolute paths in the guest, one per line, whose files go into the artifact."`
	RetentionDays string `name:"retention-days" group:"Workspace" default:"7" placeholder:"DAYS" help:"Days that the artifact is kept, 1 to 90."`

	Image string `name:"image" group:"Image" default:"debian" placeholder:"IMAGE" help:"Disk image of the guest: a preset (debian), a path, an https URL, owner/repo@tag:asset, artifact:name, or selftest (a small Linux guest that tests this action, not a Hurd)."`
	Arch  string `name:"arch" group:"Image" placeholder:"ARCH" allowed:"amd64,i386" help:"Architecture of the guest: amd64 or i386. Default: what the image holds, else amd64."`

	ImageSHA256    string `name:"image-sha256" group:"Image" placeholder:"HEX" help:"SHA-256 that the image file must have, as it is published (before it is unpacked)."`
	ImageSHA512    string `name:"image-sha512" group:"Image" placeholder:"HEX" help:"SHA-512 that the image file must have."`
	ImageSignature string `name:"image-signature" group:"Image" placeholder:"SIGNATURE" help:"Detached OpenPGP signature of the image file: an https URL, a path, or the armoured text. Needs image-key."`
	ImageKey       string `name:"image-key" group:"Image" placeholder:"KEY" help:"OpenPGP public key that made image-signature: a path or the armoured text."`
	ImageVerify    string `name:"image-verify" group:"Image" default:"published" placeholder:"MODE" allowed:"pinned,published,none" help:"What an image from the network must match: pinned (a hash that is known to this action or given, or a signature), published (also the publisher's SHA512SUMS, fetched over https and pinned in the store at first use), none."`
	ImageMirror    string `name:"image-mirror" group:"Image" placeholder:"URL" help:"Address that replaces https://cdimage.debian.org/cdimage/ in those of the presets."`
	CacheDir       string `name:"cache-dir" group:"Image" placeholder:"DIR" help:"Directory of the image store and of what is known about this host. Default: hurd-qemu-action in the user's cache directory."`
	ImageCache     string `name:"image-cache" group:"Image" default:"auto" placeholder:"MODE" allowed:"auto,off" help:"Whether the prepared disk of a preset, or of an https URL whose hash is known, is kept in the job's cache and read from there as the guest needs it, where the image store does not have it: auto, or off. An entry takes about what the compressed image does."`
	DiskSize       string `name:"disk-size" group:"Image" placeholder:"SIZE" help:"Size to which the disk, its root partition and file system grow before the boot. Default: as the image is."`
	ImageOutput    string `name:"image-output" group:"Image" placeholder:"FILE" help:"File in the workspace to which the disk is exported as a compressed qcow2 when the script has succeeded; the guest is brought down first, and the keys of the run are removed."`
	RootPartition  string `name:"root-partition" group:"Image" placeholder:"N" help:"Number of the partition that holds the root file system, for an image in which more than one could. Default: found by looking."`
	AptSnapshot    string `name:"apt-snapshot" group:"Image" placeholder:"TIME" help:"Moment of snapshot.debian.org, such as 20260314T000000Z, from which the guest's apt takes its packages."`
	Token          string `name:"token" group:"Image" default:"${{ github.token }}" placeholder:"TOKEN" secret:"" help:"GitHub token for release assets and artifacts."`

	Memory   string `name:"memory" group:"Machine" default:"2G" placeholder:"SIZE" help:"Memory of the guest: 2G, 1536M, or a plain number of MiB."`
	CPUs     string `name:"cpus" group:"Machine" default:"1" placeholder:"N" help:"Virtual CPUs. The Hurd's kernel uses one."`
	Accel    string `name:"accel" group:"Machine" default:"auto" placeholder:"MODE" allowed:"auto,kvm,tcg" help:"Accelerator: auto (KVM where it works, else TCG), kvm (fail without it), tcg (emulate)."`
	Machine  string `name:"machine" group:"Machine" placeholder:"TYPE" help:"QEMU machine type, such as q35, pc or pc-q35-7.2. Default: from the guest's profile."`
	CPUModel string `name:"cpu-model" group:"Machine" placeholder:"MODEL" help:"QEMU CPU model. Default: from the guest's profile."`
	DiskBus  string `name:"disk-bus" group:"Machine" placeholder:"BUS" help:"Bus of the disk: ahci, ide or virtio (no Hurd has drivers for virtio). Default: from the guest's profile."`
	NIC      string `name:"nic" group:"Machine" placeholder:"MODEL" help:"Network card: e1000, rtl8139, ne2k_pci, pcnet, tulip or virtio-net-pci. Default: from the guest's profile."`

	Provision string `name:"provision" group:"Login" default:"auto" placeholder:"MODE" allowed:"auto,ext2,nocloud,console,none" help:"How the SSH key gets into the guest: ext2 (written into the disk image), nocloud (cloud-init seed), console (typed at the serial console), none (needs ssh-private-key and ssh-host-key), or auto, the first that fits."`
	UserData  string `name:"user-data" group:"Login" placeholder:"YAML" help:"cloud-init user-data, as text or as the path of a file. In a guest without cloud-init the parts that a build guest needs (users, keys, packages, write_files, runcmd, hostname) are carried out over SSH before the script, and the rest is named."`
	MetaData  string `name:"meta-data" group:"Login" placeholder:"YAML" help:"cloud-init meta-data, as text or as the path of a file."`
	SSHUser   string `name:"ssh-user" group:"Login" default:"root" placeholder:"NAME" help:"User to log in as."`
	SSHPort   string `name:"ssh-port" group:"Login" default:"22" placeholder:"PORT" help:"Port of the SSH server in the guest."`

	SSHPrivateKey string `name:"ssh-private-key" group:"Login" placeholder:"KEY" secret:"" help:"Private key to log in with, as text (a secret) or as the path of a file. Default: made for each run."`
	SSHHostKey    string `name:"ssh-host-key" group:"Login" placeholder:"KEY" help:"Public host key that the guest must show, as in a .pub or known_hosts file (ssh-ed25519 AAAA...), one per line. Default: made for each run and put into the guest."`

	Prepare         string `name:"prepare" group:"Warm start" placeholder:"SCRIPT" help:"Script that root runs in the guest once, before the machine is saved: install packages, start daemons. It sees neither the workspace nor the environment of the step. Later runs with the same script start where it has ended."`
	Snapshot        string `name:"snapshot" group:"Warm start" default:"auto" placeholder:"MODE" allowed:"auto,save,restore,off" help:"Saved machine: auto (start from one if there is one, else boot and save one), save (boot and save a new one), restore (start from one or boot, but save none), off."`
	SnapshotFrom    string `name:"snapshot-from" group:"Warm start" placeholder:"REF" help:"Published machine to start from where none is saved yet, as snapshot push has printed it: ghcr.io/owner/name@sha256:..., or https://HOST/FILE@sha256:... It must be the machine of this run in every respect, else this one is booted. Not with snapshot: save or off."`
	SnapshotMaxSize string `name:"snapshot-max-size" group:"Warm start" default:"2G" placeholder:"SIZE" help:"Size, without zeros, above which a saved machine is not kept."`

	BootTimeout  string `name:"boot-timeout" group:"Boot" placeholder:"DURATION" help:"Limit from the start of QEMU until a command has run over SSH. Default: 5m with KVM, 15m with TCG."`
	BootAttempts string `name:"boot-attempts" group:"Boot" default:"2" placeholder:"N" help:"How often to boot a machine that died or stayed silent before SSH answered, each time from a fresh overlay. The script itself is never retried."`
	ReadyPattern string `name:"ready-pattern" group:"Boot" placeholder:"REGEX" help:"Regular expression, such as login:, of the console line that says that the guest is up. With transport: serial it replaces the wait for a login prompt; with SSH the connection is tried from then on."`

	Forward string `name:"forward" group:"Network" placeholder:"LINES" help:"Ports to forward to the guest, one per line: tcp 8080:80, udp 8081:80, or tcp 0.0.0.0:8080:80 to listen beyond 127.0.0.1. A host port of 0 takes a free one, which the log names. In a job the host is the container of this action."`
	Network string `name:"network" group:"Network" default:"user" placeholder:"MODE" allowed:"user,restricted,none" help:"What the guest reaches: user (what the host reaches), restricted (nothing but what is forwarded to it), none (it has no network card; needs transport: serial)."`

	Transport          string `name:"transport" group:"Console" default:"ssh" placeholder:"HOW" allowed:"ssh,serial" help:"How the script gets into the guest: ssh, or serial (typed at the serial console, for guests without an SSH server)."`
	ConsoleScript      string `name:"console-script" group:"Console" placeholder:"DIALOGUE" help:"Dialogue with the serial console before anything else is done in the guest: lines such as expect \"login:\" within 60s, and send \"root\\n\". Text or the path of a file."`
	SerialPort         string `name:"serial-port" group:"Console" placeholder:"PORT" help:"TCP port of 127.0.0.1 on which the guest's second serial port is served, raw; 5555 telnet speaks telnet, 0 takes a free port. Default: the guest has no second serial port."`
	QMP                string `name:"qmp" group:"Console" placeholder:"LINES" help:"Commands for QEMU's monitor, one per line: a moment (before-boot, after-boot, after-run, or on-console \"REGEX\") and a colon, then the command, as command key=value or as JSON. Text or the path of a file."`
	Debug              string `name:"debug" group:"Console" default:"off" placeholder:"WHEN" allowed:"off,on-failure" help:"With on-failure, a guest whose boot or script has failed is kept for debug-timeout, and the log says how to get in. The result stays what it was."`
	DebugTimeout       string `name:"debug-timeout" group:"Console" default:"30m" placeholder:"DURATION" help:"How long a guest is kept for debug."`
	DebugKey           string `name:"debug-key" group:"Console" placeholder:"KEYS" help:"Public keys, one per line as in authorized_keys, that may log in to a guest that is kept for debug. Default: none but the run's own, which is in the run directory."`
	DebugTunnel        string `name:"debug-tunnel" group:"Console" placeholder:"USER@HOST" help:"SSH server of yours, as user@host or user@host:port, to which the SSH port of a guest that is kept for debug is forwarded: the way in where the runner cannot be reached. Needs debug-tunnel-key, debug-tunnel-host-key and debug-key."`
	DebugTunnelKey     string `name:"debug-tunnel-key" group:"Console" placeholder:"KEY" secret:"" help:"Private key for debug-tunnel, as text (a secret) or as the path of a file."`
	DebugTunnelHostKey string `name:"debug-tunnel-host-key" group:"Console" placeholder:"KEY" help:"Public host key that the server of debug-tunnel must show, as in a .pub or known_hosts file, one per line."`

	HugePages   string `name:"hugepages" group:"Resources" default:"false" placeholder:"BOOL" allowed:"true,false" help:"Back the guest's memory with the host's huge pages, which must have been set aside (vm.nr_hugepages)."`
	CPUAffinity string `name:"cpu-affinity" group:"Resources" placeholder:"CPUS" help:"Processors of the host that QEMU may run on, such as 0-3,6."`
	DiskCache   string `name:"disk-cache" group:"Resources" default:"unsafe" placeholder:"MODE" allowed:"writeback,none,unsafe" help:"How the host caches the guest's disk: unsafe (what the guest flushes may still be lost if the host dies, which a throwaway disk does not mind), writeback (flushes are honoured), none (past the host's page cache)."`
	DiskAIO     string `name:"disk-aio" group:"Resources" default:"threads" placeholder:"MODE" allowed:"threads,native,io_uring" help:"How QEMU reads and writes the disk: threads, native (needs disk-cache: none) or io_uring (which Docker's default seccomp profile forbids)."`
	QEMUTrace   string `name:"qemu-trace" group:"Resources" placeholder:"ITEMS" help:"Items of QEMU's -d option, such as guest_errors,unimp, which are logged to qemu-trace.log."`
	QEMUArgs    string `name:"qemu-args" group:"Resources" placeholder:"ARGS" help:"More arguments for QEMU, as a shell would split them: the last resort. Options that this action needs for itself are refused. A machine started with them is not saved."`

	Benchmark string `name:"benchmark" group:"Benchmark" placeholder:"N" help:"Run the script N times, and report the median and the spread of its time. Default: once, without a report."`
}

// Field describes one input.
type Field struct {
	Name    string   // as written in workflows and, after --, on the command line
	Default string   // empty where the default depends on something
	Help    string   // one or two sentences
	Group   string   // heading in the tables
	Allowed []string // the only values allowed, if they are few
	Secret  bool     // never printed

	index int
}

// Fields lists the inputs in the order of the struct.
func Fields() []Field {
	t := reflect.TypeFor[Inputs]()
	fields := make([]Field, 0, t.NumField())
	for i := range t.NumField() {
		tag := t.Field(i).Tag
		f := Field{Name: tag.Get("name"), Default: tag.Get("default"), Help: tag.Get("help"), Group: tag.Get("group"), index: i}
		if enum := tag.Get("allowed"); enum != "" {
			f.Allowed = strings.Split(enum, ",")
		}
		_, f.Secret = tag.Lookup("secret")
		fields = append(fields, f)
	}
	return fields
}

// Value returns the field's text in inputs.
func (f Field) Value(in *Inputs) string {
	return reflect.ValueOf(in).Elem().Field(f.index).String()
}

// Set puts text into the field of inputs.
func (f Field) Set(in *Inputs, text string) {
	reflect.ValueOf(in).Elem().Field(f.index).SetString(text)
}

// expression tells whether the default is one that only the runner can evaluate.
func (f Field) expression() bool { return strings.HasPrefix(f.Default, "${{") }

// EnvName is the variable in which the runner hands the input to a container:
// upper case, hyphens kept (actions/runner, Handler.AddInputsToEnvironment).
func (f Field) EnvName() string { return "INPUT_" + strings.ToUpper(f.Name) }

// FromFlags completes inputs that were read from the command line, where the
// expressions that only the runner evaluates stand for nothing.
func FromFlags(in Inputs) Inputs {
	for _, f := range Fields() {
		if f.expression() && f.Value(&in) == f.Default {
			f.Set(&in, "")
		}
	}
	return in
}

// FromEnvironment reads the inputs that the runner passed. Unset and empty
// inputs get their defaults. The second result names the INPUT_ variables that
// no input answers to.
func FromEnvironment(environ []string) (Inputs, []string) {
	values := make(map[string]string)
	for _, entry := range environ {
		if name, value, ok := strings.Cut(entry, "="); ok && strings.HasPrefix(name, "INPUT_") {
			values[name] = value
		}
	}
	var in Inputs
	for _, f := range Fields() {
		text := values[f.EnvName()]
		delete(values, f.EnvName())
		if strings.TrimSpace(text) == "" && !f.expression() {
			text = f.Default
		}
		f.Set(&in, text)
	}
	// The runner's own: with.args and with.entryPoint of container actions.
	delete(values, "INPUT_ARGS")
	delete(values, "INPUT_ENTRYPOINT")
	return in, unknownNames(values)
}
