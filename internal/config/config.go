package config

import (
	"fmt"
	"math"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/org/hurd-qemu-action/internal/platform"
	"github.com/org/hurd-qemu-action/internal/units"
)

// Config is a validated set of inputs. Zero values mean what is written at the
// fields; nothing in it depends on the environment any more.
type Config struct {
	Script           string        // never empty
	Shell            string        // template with {0}; empty: bash, or sh where bash is missing
	WorkingDirectory string        // absolute, or relative to the workspace; empty: the workspace, or home where there is none
	User             string        // empty: SSHUser
	Env              string        // as written; package environment parses it
	Timeout          time.Duration // 0: none
	IdleTimeout      time.Duration // 0: none

	Sync          string      // auto, disk, tar or none
	SyncInclude   string      // patterns as written; package workspace parses them
	SyncExclude   string      // as SyncInclude
	WorkspaceSize units.Bytes // a multiple of 4096, the block size of the drive's file system
	CopyBack      string      // changed, mirror, all, none, or globs
	ArtifactName  string      // empty: no artifact
	ArtifactPath  string      // globs as written; empty: only the logs
	RetentionDays int

	Image string        // as written; package image parses it
	Arch  platform.Arch // empty: from the image

	ImageSHA256, ImageSHA512 string      // hexadecimal; empty: none
	ImageSignature, ImageKey string      // as written; package image reads them
	ImageVerify              string      // pinned, published or none
	ImageMirror              string      // URL; empty: the publisher's
	ImageCache               string      // auto or off
	CacheDir                 string      // empty: the user's
	DiskSize                 units.Bytes // 0: as the image is
	ImageOutput              string      // path in the workspace; empty: none
	RootPartition            int         // 0: found by looking
	AptSnapshot              string      // as 20260314T000000Z; empty: none
	Token                    string      // secret

	Memory   units.Bytes
	CPUs     int
	Accel    string // auto, kvm or tcg
	Machine  string // empty: from the profile, like the next three
	CPUModel string
	DiskBus  string
	NIC      string

	Provision  string // auto, ext2, nocloud, console or none
	UserData   string // content
	MetaData   string // content
	SSHUser    string
	SSHPort    int
	PrivateKey ssh.Signer      // nil: made for the run
	HostKeys   []ssh.PublicKey // empty: made for the run

	Prepare         string      // empty: none
	Snapshot        string      // auto, save, restore or off
	SnapshotFrom    string      // as written; package registry parses it; empty: none
	SnapshotMaxSize units.Bytes // not 0

	BootTimeout  time.Duration // 0: by accelerator
	BootAttempts int
	ReadyPattern *regexp.Regexp // of a console line; nil: none

	Forward string // lines as written
	Network string // user, restricted or none

	Transport     string        // ssh or serial
	ConsoleScript string        // content as written; empty: none
	SerialPort    SerialPort    // zero: none
	QMP           string        // content as written; empty: none
	Debug         string        // off or on-failure
	DebugTimeout  time.Duration // not 0
	DebugKeys     []ssh.PublicKey
	DebugTunnel   Tunnel // zero: none

	HugePages   bool
	CPUAffinity string // list as written; empty: any processor
	DiskCache   string // writeback, none or unsafe
	DiskAIO     string // threads, native or io_uring
	QEMUTrace   string // items as written; empty: none
	QEMUArgs    string // as written

	Benchmark int // runs of the script; 0: one, without a report
}

// Tunnel is an SSH server to which the guest's SSH port can be forwarded.
type Tunnel struct {
	User     string
	Addr     string // host:port
	Signer   ssh.Signer
	HostKeys []ssh.PublicKey // that the server may show; not empty
}

// SerialPort says where the guest's second serial port is served.
type SerialPort struct {
	Set    bool
	Port   int  // of 127.0.0.1; 0: a free one
	Telnet bool // speak telnet (RFC 854) instead of raw bytes
}

// Limits of the numeric inputs. QEMU itself allows more; these are where a
// value is more likely a mistake than a wish.
const (
	minMemory   = 32 * units.MiB
	maxMemory   = 1 * units.TiB
	maxCPUs     = 64
	maxAttempts = 10
	maxDuration = 7 * 24 * time.Hour

	maxBenchmark = 1000
	maxRetention = 90 // days, the artifact service's own
	maxPartition = 128

	// The smallest leaves room for the file system itself; the largest is what
	// ext2 holds with blocks of 4 KiB and block numbers that a Hurd reads as signed.
	minWorkspace = 16 * units.MiB
	maxWorkspace = 1 * units.TiB
)

// Files reads files that inputs name. It is os.ReadFile outside tests.
type Files func(name string) ([]byte, error)

// Parse validates inputs. The error, if any, is Problems with every problem
// found; the Config then holds what could be understood.
func Parse(in Inputs, read Files) (Config, error) {
	if read == nil {
		read = os.ReadFile
	}
	p := &parser{in: in, read: read}
	p.enums()
	c := Config{
		Script:           p.script(),
		Shell:            p.shell(),
		WorkingDirectory: p.directory(),
		Timeout:          p.duration("timeout", in.Timeout),
		IdleTimeout:      p.duration("idle-timeout", in.IdleTimeout),
		User:             p.user("user", in.User),
		Env:              in.Env,
		Sync:             in.Sync,
		SyncInclude:      in.SyncInclude,
		SyncExclude:      in.SyncExclude,
		WorkspaceSize:    p.workspaceSize(),
		CopyBack:         strings.TrimSpace(in.CopyBack),
		ArtifactName:     p.artifactName(),
		ArtifactPath:     in.ArtifactPath,
		RetentionDays:    p.number("retention-days", in.RetentionDays, maxRetention),
		Image:            p.image(),
		Arch:             platform.Arch(in.Arch),
		ImageSHA256:      strings.ToLower(strings.TrimSpace(in.ImageSHA256)),
		ImageSHA512:      strings.ToLower(strings.TrimSpace(in.ImageSHA512)),
		ImageSignature:   in.ImageSignature,
		ImageKey:         in.ImageKey,
		ImageVerify:      in.ImageVerify,
		ImageMirror:      strings.TrimSpace(in.ImageMirror),
		ImageCache:       in.ImageCache,
		CacheDir:         in.CacheDir,
		DiskSize:         p.diskSize(),
		ImageOutput:      p.imageOutput(),
		RootPartition:    p.rootPartition(),
		AptSnapshot:      p.aptSnapshot(),
		Token:            in.Token,
		Memory:           p.memory(),
		CPUs:             p.number("cpus", in.CPUs, maxCPUs),
		Accel:            in.Accel,
		Machine:          p.name("machine", in.Machine),
		CPUModel:         p.cpuModel(),
		DiskBus:          p.name("disk-bus", in.DiskBus),
		NIC:              p.name("nic", in.NIC),
		Provision:        in.Provision,
		UserData:         p.textOrFile("user-data", in.UserData),
		MetaData:         p.textOrFile("meta-data", in.MetaData),
		SSHUser:          p.user("ssh-user", in.SSHUser),
		SSHPort:          p.number("ssh-port", in.SSHPort, math.MaxUint16),
		Prepare:          p.prepare(),
		Snapshot:         in.Snapshot,
		SnapshotFrom:     strings.TrimSpace(in.SnapshotFrom),
		SnapshotMaxSize:  p.snapshotSize(),
		BootTimeout:      p.duration("boot-timeout", in.BootTimeout),
		BootAttempts:     p.number("boot-attempts", in.BootAttempts, maxAttempts),
	}
	c.PrivateKey = p.privateKey("ssh-private-key", in.SSHPrivateKey)
	c.HostKeys = p.publicKeys("ssh-host-key", in.SSHHostKey)
	p.control(&c)
	p.together(c)
	if len(p.problems) > 0 {
		return c, p.problems
	}
	return c, nil
}

// parser collects problems while the fields are read.
type parser struct {
	in       Inputs
	read     Files
	problems Problems
}

func (p *parser) add(input, value, problem, allowed string) {
	p.problems = append(p.problems, &InputError{Input: input, Value: value, Problem: problem, Allowed: allowed})
}

func (p *parser) enums() {
	for _, f := range Fields() {
		v := f.Value(&p.in)
		if v == "" || len(f.Allowed) == 0 {
			continue
		}
		ok := false
		for _, a := range f.Allowed {
			ok = ok || a == v
		}
		if !ok {
			hint := "allowed are " + list(f.Allowed)
			if near := Nearest(v, f.Allowed); near != "" {
				hint += fmt.Sprintf(" (did you mean %s?)", near)
			}
			p.add(f.Name, v, "is not known", hint)
		}
	}
}

func list(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " and " + words[len(words)-1]
}

func (p *parser) script() string {
	if strings.TrimSpace(p.in.Run) == "" {
		p.add("run", "", "is missing or empty", "it is the script to run in the guest, such as run: uname -a")
		return ""
	}
	if strings.ContainsRune(p.in.Run, 0) {
		p.add("run", p.in.Run, "holds a NUL byte", "a script is text")
	}
	return p.in.Run
}

func (p *parser) prepare() string {
	if strings.ContainsRune(p.in.Prepare, 0) {
		p.add("prepare", p.in.Prepare, "holds a NUL byte", "a script is text")
	}
	if strings.TrimSpace(p.in.Prepare) == "" {
		return ""
	}
	return p.in.Prepare
}

func (p *parser) snapshotSize() units.Bytes {
	b, err := units.ParseBytes(p.in.SnapshotMaxSize)
	if err != nil || b <= 0 {
		p.add("snapshot-max-size", p.in.SnapshotMaxSize, "is not a size", "write a size such as 2G or 500M")
	}
	return b
}

// shellTemplate is checked the way the runner checks the shell of a run step:
// a command line in which {0} stands for the script.
func (p *parser) shell() string {
	s := strings.TrimSpace(p.in.Shell)
	if s == "" {
		return ""
	}
	if strings.ContainsAny(s, "\n\x00") {
		p.add("shell", s, "is more than one line", "write one command line with {0} for the script's path")
		return ""
	}
	switch strings.Count(s, "{0}") {
	case 1:
	case 0:
		if len(strings.Fields(s)) > 1 {
			p.add("shell", s, "has no {0}", "write {0} where the script's path belongs, such as bash -eo pipefail {0}")
		}
		s += " {0}" // a bare program name, as in shell: sh
	default:
		p.add("shell", s, "has {0} more than once", "write {0} once, where the script's path belongs")
	}
	return s
}

func (p *parser) directory() string {
	d := p.in.WorkingDirectory
	if d == "" {
		return ""
	}
	clean := path.Clean(d)
	if strings.ContainsAny(d, "\n\x00") || clean == ".." || strings.HasPrefix(clean, "../") {
		p.add("working-directory", d, "is neither a path in the workspace nor an absolute one in the guest", "write a path such as src or /root/src")
		return ""
	}
	return clean
}

func (p *parser) workspaceSize() units.Bytes {
	b, err := units.ParseBytes(p.in.WorkspaceSize)
	if err != nil || b%units.MiB != 0 || b < minWorkspace || b > maxWorkspace {
		p.add("workspace-size", p.in.WorkspaceSize, "is not a size that the drive can have", "write a size of whole MiB from 16M to 1T, such as 8G; only what is written to it takes room")
	}
	return b
}

// artifactRefused is what the service refuses in a name (actions/upload-artifact, README).
const artifactRefused = "\":<>|*?\r\n\\/\x00"

func (p *parser) artifactName() string {
	name := strings.TrimSpace(p.in.ArtifactName)
	if strings.ContainsAny(name, artifactRefused) || len(name) > 255 {
		p.add("artifact-name", name, "is not a name for an artifact", `leave out " : < > | * ? \ / and line ends, and keep it under 256 bytes`)
	}
	if name == "" && strings.TrimSpace(p.in.ArtifactPath) != "" {
		p.add("artifact-path", p.in.ArtifactPath, "is given without artifact-name", "name the artifact as well")
	}
	return name
}

func (p *parser) rootPartition() int {
	if p.in.RootPartition == "" {
		return 0
	}
	return p.number("root-partition", p.in.RootPartition, maxPartition)
}

func (p *parser) duration(input, text string) time.Duration {
	if text == "" {
		return 0
	}
	const allowed = "write a duration such as 90s, 10m or 1h30m, up to 168h"
	d, err := time.ParseDuration(strings.TrimSpace(text))
	switch {
	case err != nil:
		p.add(input, text, "is not a duration", allowed)
	case d <= 0:
		p.add(input, text, "is not longer than nothing", allowed)
	case d > maxDuration:
		p.add(input, text, "is too long", allowed)
	}
	return d
}

func (p *parser) memory() units.Bytes {
	b, err := units.ParseBytes(p.in.Memory)
	const allowed = "write a size from 32M to 1T, such as 2G or 1536M (a plain number is MiB)"
	switch {
	case err != nil:
		p.add("memory", p.in.Memory, "is not a size", allowed)
	case b < minMemory:
		p.add("memory", p.in.Memory, "is too little", allowed)
	case b > maxMemory:
		p.add("memory", p.in.Memory, "is too much", allowed)
	case b%units.MiB != 0:
		p.add("memory", p.in.Memory, "is not a multiple of 1M", allowed)
	}
	return b
}

func (p *parser) number(input, text string, limit int) int {
	n, err := strconv.Atoi(strings.TrimSpace(text))
	if err != nil || n < 1 || n > limit {
		p.add(input, text, "is not a number that is allowed here", fmt.Sprintf("write a whole number from 1 to %d", limit))
	}
	return n
}

func (p *parser) image() string {
	s := strings.TrimSpace(p.in.Image)
	if s == "" || strings.ContainsAny(s, "\n\x00") {
		p.add("image", p.in.Image, "is not one line of text", "name one image: a preset, a path, a URL, owner/repo@tag:asset, artifact:name or selftest")
	}
	return s
}

func (p *parser) diskSize() units.Bytes {
	if p.in.DiskSize == "" {
		return 0
	}
	b, err := units.ParseBytes(p.in.DiskSize)
	if err != nil || b%units.MiB != 0 {
		p.add("disk-size", p.in.DiskSize, "is not a size of whole MiB", "write a size such as 8G")
	}
	return b
}

// imageOutput stays in the workspace: an action has no business elsewhere.
func (p *parser) imageOutput() string {
	name := p.in.ImageOutput
	if name != "" && (!filepath.IsLocal(name) || strings.ContainsAny(name, "\n\x00")) {
		p.add("image-output", name, "is not a file in the workspace", "write a relative path without .., such as out/hurd.qcow2")
	}
	return name
}

// snapshotTime is the form of the addresses of snapshot.debian.org.
const snapshotTime = "20060102T150405Z"

func (p *parser) aptSnapshot() string {
	text := p.in.AptSnapshot
	if text == "" {
		return ""
	}
	if _, err := time.Parse(snapshotTime, text); err != nil {
		p.add("apt-snapshot", text, "is not a moment", "write it as 20260314T000000Z: year, month, day, T, hour, minute, second, Z (UTC)")
	}
	return text
}

// deviceName is what QEMU's own names are made of; a comma would start another option.
var deviceName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

func (p *parser) name(input, text string) string {
	if text != "" && !deviceName.MatchString(text) {
		p.add(input, text, "is not a name that QEMU could know", "write letters, digits, dot, hyphen and underscore")
	}
	return text
}

var cpuModelText = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*(,[+-]?[A-Za-z0-9._-]+(=[A-Za-z0-9._-]+)?)*$`)

func (p *parser) cpuModel() string {
	if s := p.in.CPUModel; s != "" && !cpuModelText.MatchString(s) {
		p.add("cpu-model", s, "is not a CPU model", "write a model with optional features, such as qemu64 or core2duo,+ssse3")
	}
	return p.in.CPUModel
}

// userName is the portable set of useradd(8); anything else could not be typed
// into a console or a path safely either.
var userName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]{0,31}$`)

func (p *parser) user(input, name string) string {
	if !userName.MatchString(name) && (name != "" || input == "ssh-user") {
		p.add(input, name, "is not a user name", "write letters, digits, dot, hyphen and underscore, beginning with a letter")
	}
	return name
}
