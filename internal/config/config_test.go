package config

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"

	"github.com/org/hurd-qemu-action/internal/platform"
	"github.com/org/hurd-qemu-action/internal/units"
)

// defaults gives inputs that are valid, with one script.
func defaults(t testing.TB) Inputs {
	t.Helper()
	in, unknown := FromEnvironment([]string{"INPUT_RUN=uname -a"})
	if len(unknown) != 0 {
		t.Fatalf("unknown inputs: %v", unknown)
	}
	return in
}

func testKey(t testing.TB, passphrase string) (private, public string) {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(key, "test")
	if passphrase != "" {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(key, "test", []byte(passphrase))
	}
	if err != nil {
		t.Fatal(err)
	}
	sshPub, err := ssh.NewPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(block)), strings.TrimSpace(string(ssh.MarshalAuthorizedKey(sshPub)))
}

func TestDefaults(t *testing.T) {
	got, err := Parse(defaults(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		Script: "uname -a", Image: "debian", Memory: 2 * units.GiB, CPUs: 1, Accel: "auto",
		Provision: "auto", SSHUser: "root", SSHPort: 22, BootAttempts: 2, ImageVerify: "published", ImageCache: "auto",
		Sync: "auto", WorkspaceSize: 4 * units.GiB, CopyBack: "changed", RetentionDays: 7,
		Snapshot: "auto", SnapshotMaxSize: 2 * units.GiB,
		Network: "user", Transport: "ssh", Debug: "off", DebugTimeout: 30 * time.Minute,
		DiskCache: "unsafe", DiskAIO: "threads",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// effects says, for each input, a value and how the Config shows that it was heard.
func effects(t *testing.T) map[string]struct {
	value string
	heard func(Config) bool
} {
	private, public := testKey(t, "")
	return map[string]struct {
		value string
		heard func(Config) bool
	}{
		"run":                   {"echo hi", func(c Config) bool { return c.Script == "echo hi" }},
		"shell":                 {"sh -x {0}", func(c Config) bool { return c.Shell == "sh -x {0}" }},
		"working-directory":     {"/tmp/x/../y", func(c Config) bool { return c.WorkingDirectory == "/tmp/y" }},
		"user":                  {"demo", func(c Config) bool { return c.User == "demo" }},
		"env":                   {"CC=gcc", func(c Config) bool { return c.Env == "CC=gcc" }},
		"sync":                  {"tar", func(c Config) bool { return c.Sync == "tar" }},
		"sync-include":          {"src/", func(c Config) bool { return c.SyncInclude == "src/" }},
		"sync-exclude":          {"*.o", func(c Config) bool { return c.SyncExclude == "*.o" }},
		"workspace-size":        {"8G", func(c Config) bool { return c.WorkspaceSize == 8*units.GiB }},
		"copy-back":             {"*.log\nout/**\n", func(c Config) bool { return c.CopyBack == "*.log\nout/**" }},
		"artifact-name":         {"logs", func(c Config) bool { return c.ArtifactName == "logs" }},
		"artifact-path":         {"out/**", func(c Config) bool { return c.ArtifactPath == "out/**" }},
		"retention-days":        {"30", func(c Config) bool { return c.RetentionDays == 30 }},
		"root-partition":        {"5", func(c Config) bool { return c.RootPartition == 5 }},
		"prepare":               {"apt-get update", func(c Config) bool { return c.Prepare == "apt-get update" }},
		"snapshot":              {"off", func(c Config) bool { return c.Snapshot == "off" }},
		"snapshot-from":         {" ghcr.io/o/n@sha256:00", func(c Config) bool { return c.SnapshotFrom == "ghcr.io/o/n@sha256:00" }},
		"snapshot-max-size":     {"1G", func(c Config) bool { return c.SnapshotMaxSize == units.GiB }},
		"timeout":               {"90s", func(c Config) bool { return c.Timeout == 90*time.Second }},
		"idle-timeout":          {"10m", func(c Config) bool { return c.IdleTimeout == 10*time.Minute }},
		"image":                 {"selftest", func(c Config) bool { return c.Image == "selftest" }},
		"arch":                  {"i386", func(c Config) bool { return c.Arch == platform.I386 }},
		"image-sha256":          {"AB", func(c Config) bool { return c.ImageSHA256 == "ab" }},
		"image-sha512":          {"CD", func(c Config) bool { return c.ImageSHA512 == "cd" }},
		"image-signature":       {"x.sig", func(c Config) bool { return c.ImageSignature == "x.sig" }},
		"image-key":             {"x.asc", func(c Config) bool { return c.ImageKey == "x.asc" }},
		"image-verify":          {"pinned", func(c Config) bool { return c.ImageVerify == "pinned" }},
		"image-mirror":          {"https://mirror.example/", func(c Config) bool { return c.ImageMirror == "https://mirror.example/" }},
		"image-cache":           {"off", func(c Config) bool { return c.ImageCache == "off" }},
		"cache-dir":             {"/cache", func(c Config) bool { return c.CacheDir == "/cache" }},
		"disk-size":             {"8G", func(c Config) bool { return c.DiskSize == 8*units.GiB }},
		"image-output":          {"out/x.qcow2", func(c Config) bool { return c.ImageOutput == "out/x.qcow2" }},
		"apt-snapshot":          {"20260314T000000Z", func(c Config) bool { return c.AptSnapshot == "20260314T000000Z" }},
		"token":                 {"ghs_secret", func(c Config) bool { return c.Token == "ghs_secret" }},
		"memory":                {"1536M", func(c Config) bool { return c.Memory == 1536*units.MiB }},
		"cpus":                  {"2", func(c Config) bool { return c.CPUs == 2 }},
		"accel":                 {"tcg", func(c Config) bool { return c.Accel == "tcg" }},
		"machine":               {"pc", func(c Config) bool { return c.Machine == "pc" }},
		"cpu-model":             {"core2duo,+ssse3", func(c Config) bool { return c.CPUModel == "core2duo,+ssse3" }},
		"disk-bus":              {"ide", func(c Config) bool { return c.DiskBus == "ide" }},
		"nic":                   {"rtl8139", func(c Config) bool { return c.NIC == "rtl8139" }},
		"provision":             {"console", func(c Config) bool { return c.Provision == "console" }},
		"user-data":             {"#cloud-config\n", func(c Config) bool { return c.UserData == "#cloud-config\n" }},
		"meta-data":             {"instance-id: x", func(c Config) bool { return c.MetaData == "instance-id: x" }},
		"ssh-user":              {"demo", func(c Config) bool { return c.SSHUser == "demo" }},
		"ssh-port":              {"2222", func(c Config) bool { return c.SSHPort == 2222 }},
		"ssh-private-key":       {private, func(c Config) bool { return c.PrivateKey != nil }},
		"ssh-host-key":          {public, func(c Config) bool { return len(c.HostKeys) == 1 }},
		"boot-timeout":          {"1h", func(c Config) bool { return c.BootTimeout == time.Hour }},
		"boot-attempts":         {"3", func(c Config) bool { return c.BootAttempts == 3 }},
		"ready-pattern":         {"login: $", func(c Config) bool { return c.ReadyPattern != nil && c.ReadyPattern.MatchString("hurd login: ") }},
		"forward":               {"tcp 8080:80", func(c Config) bool { return c.Forward == "tcp 8080:80" }},
		"network":               {"restricted", func(c Config) bool { return c.Network == "restricted" }},
		"transport":             {"serial", func(c Config) bool { return c.Transport == "serial" }},
		"console-script":        {"send \"x\"\n", func(c Config) bool { return c.ConsoleScript == "send \"x\"\n" }},
		"serial-port":           {"5555 telnet", func(c Config) bool { return c.SerialPort == SerialPort{Set: true, Port: 5555, Telnet: true} }},
		"qmp":                   {"after-boot: query-status\n", func(c Config) bool { return c.QMP == "after-boot: query-status\n" }},
		"debug":                 {"on-failure", func(c Config) bool { return c.Debug == "on-failure" }},
		"debug-timeout":         {"5m", func(c Config) bool { return c.DebugTimeout == 5*time.Minute }},
		"debug-key":             {public, func(c Config) bool { return len(c.DebugKeys) == 1 }},
		"debug-tunnel":          {"me@example.org", func(c Config) bool { return c.DebugTunnel.User == "me" && c.DebugTunnel.Addr == "example.org:22" }},
		"debug-tunnel-key":      {private, func(c Config) bool { return c.DebugTunnel.Signer != nil }},
		"debug-tunnel-host-key": {public, func(c Config) bool { return len(c.DebugTunnel.HostKeys) == 1 }},
		"hugepages":             {"true", func(c Config) bool { return c.HugePages }},
		"cpu-affinity":          {" 0-1", func(c Config) bool { return c.CPUAffinity == "0-1" }},
		"disk-cache":            {"none", func(c Config) bool { return c.DiskCache == "none" }},
		"disk-aio":              {"native", func(c Config) bool { return c.DiskAIO == "native" }},
		"qemu-trace":            {"guest_errors", func(c Config) bool { return c.QEMUTrace == "guest_errors" }},
		"qemu-args":             {"-msg timestamp=on", func(c Config) bool { return c.QEMUArgs == "-msg timestamp=on" }},
		"benchmark":             {"5", func(c Config) bool { return c.Benchmark == 5 }},
	}
}

// TestEveryInputIsHeard fails for an input that Parse ignores and for one that
// has no entry above.
func TestEveryInputIsHeard(t *testing.T) {
	table := effects(t)
	for _, f := range Fields() {
		effect, ok := table[f.Name]
		if !ok {
			t.Errorf("input %s has no entry in this test", f.Name)
			continue
		}
		in := defaults(t)
		before, err := Parse(in, nil)
		if err != nil || effect.heard(before) {
			t.Errorf("%s: the default already looks like %q (%v)", f.Name, effect.value, err)
		}
		env := []string{"INPUT_RUN=uname", f.EnvName() + "=" + effect.value}
		if f.Name == "artifact-path" {
			env = append(env, "INPUT_ARTIFACT-NAME=x")
		}
		if strings.HasPrefix(f.Name, "debug-tunnel") {
			for name, value := range map[string]string{"": "me@example.org", "-key": table["ssh-private-key"].value, "-host-key": table["ssh-host-key"].value} {
				env = append(env, "INPUT_DEBUG-TUNNEL"+strings.ToUpper(name)+"="+value)
			}
			env = append(env, "INPUT_DEBUG-KEY="+table["ssh-host-key"].value)
		}
		if strings.HasPrefix(f.Name, "debug-") {
			env = append(env, "INPUT_DEBUG=on-failure")
		}
		if f.Name == "disk-aio" {
			env = append(env, "INPUT_DISK-CACHE=none")
		}
		if f.Name == "ssh-host-key" {
			env = append(env, "INPUT_PROVISION=none", "INPUT_SSH-PRIVATE-KEY="+table["ssh-private-key"].value)
		}
		in, _ = FromEnvironment(env)
		after, err := Parse(in, nil)
		if err != nil || !effect.heard(after) {
			t.Errorf("%s: %q was not heard (%v)", f.Name, effect.value, err)
		}
	}
}

// TestAllProblemsAtOnce gives many wrong inputs and wants each named with its
// value and what is allowed.
func TestAllProblemsAtOnce(t *testing.T) {
	locked, _ := testKey(t, "secret")
	in := Inputs{
		Run: " \n", Shell: "{0} {0}", WorkingDirectory: "../src", Timeout: "ten", IdleTimeout: "-3s",
		Image: "", Arch: "arm64", Memory: "lots", CPUs: "0", Accel: "kmv", Machine: "pc,accel=kvm",
		CPUModel: "a b", DiskBus: "a;b", NIC: "x,y", Provision: "magic", UserData: "missing-file",
		SSHUser: "Mallory; rm", SSHPort: "70000", SSHPrivateKey: locked, SSHHostKey: "not a key",
		BootTimeout: "1000h", BootAttempts: "11",
		Prepare: "a\x00b", Snapshot: "sometimes", SnapshotMaxSize: "huge",
		User: "no such name", Sync: "magic", WorkspaceSize: "1", ArtifactName: "a/b", RetentionDays: "91", RootPartition: "none",
		ImageVerify: "maybe", ImageCache: "on", DiskSize: "big", ImageOutput: "../x", AptSnapshot: "yesterday",
		ReadyPattern: "(", Network: "bridge", Transport: "pigeon", ConsoleScript: "missing-file", SerialPort: "5555 ssh", QMP: "missing-file",
		DebugKey: "not a key", DebugTunnel: "nowhere", DebugTunnelKey: locked, DebugTunnelHostKey: "not a key",
		Debug: "always", DebugTimeout: "0s", HugePages: "1G", DiskCache: "directsync", DiskAIO: "none", Benchmark: "0",
	}
	_, err := Parse(in, func(string) ([]byte, error) { return nil, os.ErrNotExist })
	var problems Problems
	if !errors.As(err, &problems) {
		t.Fatalf("err = %v, want Problems", err)
	}
	byInput := map[string]*InputError{}
	for _, p := range problems {
		byInput[p.Input] = p
	}
	for _, f := range Fields() {
		p := byInput[f.Name]
		switch f.Name {
		case "env", "sync-include", "sync-exclude", "copy-back", "artifact-path", "forward", "cpu-affinity", "qemu-trace", "qemu-args", "snapshot-from":
			continue // the packages that read them check them
		case "meta-data", "cache-dir", "token", "image-sha256", "image-sha512", "image-signature", "image-key", "image-mirror":
			continue // any text is good, or package image checks it
		}
		if p == nil {
			t.Errorf("%s: no problem reported", f.Name)
			continue
		}
		if p.Problem == "" || p.Allowed == "" {
			t.Errorf("%s: %q says too little", f.Name, p)
		}
		if f.Secret && p.Value != "" {
			t.Errorf("%s: the secret is quoted", f.Name)
		}
	}
	if text := byInput["accel"].Error(); !strings.Contains(text, `accel: "kmv"`) || !strings.Contains(text, "auto, kvm and tcg") || !strings.Contains(text, "did you mean kvm?") {
		t.Errorf("accel's problem reads %q", text)
	}
	if strings.Contains(err.Error(), "OPENSSH") {
		t.Error("the error quotes the private key")
	}
}

func TestProblems(t *testing.T) {
	private, public := testKey(t, "")
	for _, tc := range []struct {
		name   string
		change func(*Inputs)
		want   string // in the error; empty: valid
	}{
		{"none without keys", func(in *Inputs) { in.Provision = "none" }, "ssh-host-key: is missing"},
		{"none without private key", func(in *Inputs) { in.Provision, in.SSHHostKey = "none", public }, "ssh-private-key: is missing"},
		{"none with keys", func(in *Inputs) { in.Provision, in.SSHHostKey, in.SSHPrivateKey = "none", public, private }, ""},
		{"private key from a file", func(in *Inputs) { in.SSHPrivateKey = "key-file" }, ""},
		{"private key not there", func(in *Inputs) { in.SSHPrivateKey = "no-file" }, "neither a private key nor a file"},
		{"private key mangled", func(in *Inputs) { in.SSHPrivateKey = "-----BEGIN x-----\nfoo" }, "not a private key"},
		{"private key with a passphrase", func(in *Inputs) { in.SSHPrivateKey, _ = testKey(t, "x") }, "passphrase"},
		{"host key without none", func(in *Inputs) { in.SSHHostKey = public }, "use provision: none"},
		{"two host keys and a comment", func(in *Inputs) {
			in.Provision, in.SSHPrivateKey = "none", private
			in.SSHHostKey = "# ours\n" + public + "\n\n[127.0.0.1]:2222 " + public + "\n"
		}, ""},
		{"user-data for ext2", func(in *Inputs) { in.Provision, in.UserData = "ext2", "#cloud-config" }, ""},
		{"user-data from a file", func(in *Inputs) { in.UserData = "key-file" }, ""},
		{"a shell by name", func(in *Inputs) { in.Shell = "sh" }, ""},
		{"a shell without {0}", func(in *Inputs) { in.Shell = "bash -e" }, "has no {0}"},
		{"memory of half a MiB", func(in *Inputs) { in.Memory = "65537K" }, "multiple of 1M"},
		{"memory of nearly nothing", func(in *Inputs) { in.Memory = "16M" }, "too little"},
		{"memory of everything", func(in *Inputs) { in.Memory = "2T" }, "too much"},
		{"a NUL in the script", func(in *Inputs) { in.Run = "a\x00b" }, "NUL"},
		{"a directory in the workspace", func(in *Inputs) { in.WorkingDirectory = "a/../src" }, ""},
		{"a directory above the workspace", func(in *Inputs) { in.WorkingDirectory = "a/../../src" }, "neither a path in the workspace"},
		{"files for no artifact", func(in *Inputs) { in.ArtifactPath = "*.log" }, "name the artifact as well"},
		{"a drive of nearly nothing", func(in *Inputs) { in.WorkspaceSize = "15M" }, "from 16M to 1T"},
		{"a zero timeout", func(in *Inputs) { in.Timeout = "0s" }, "not longer than nothing"},
		{"a pattern of every line", func(in *Inputs) { in.ReadyPattern = "x*" }, "matches every line"},
		{"a raw serial port", func(in *Inputs) { in.SerialPort = "0 raw" }, ""},
		{"a serial port that is none", func(in *Inputs) { in.SerialPort = "65536" }, "is not a port"},
		{"no network for SSH", func(in *Inputs) { in.Network = "none" }, "needs transport: serial"},
		{"no keys for the console", func(in *Inputs) { in.Provision, in.Transport = "none", "serial" }, ""},
		{"no network for the console", func(in *Inputs) { in.Network, in.Transport = "none", "serial" }, ""},
		{"ports for no network", func(in *Inputs) { in.Network, in.Transport, in.Forward = "none", "serial", "tcp 1:1" }, "forward: "},
		{"native without none", func(in *Inputs) { in.DiskAIO = "native" }, "disk-cache: none"},
		{"native with none", func(in *Inputs) { in.DiskAIO, in.DiskCache = "native", "none" }, ""},
		{"a tunnel without keys", func(in *Inputs) { in.DebugTunnel = "me@[::1]:2222" }, "debug-tunnel-host-key: is missing"},
		{"a tunnel's key without a tunnel", func(in *Inputs) { in.DebugTunnelKey = private }, "debug-tunnel-key: is given without debug-tunnel"},
		{"a key for no guest", func(in *Inputs) { in.DebugKey = public }, "debug: on-failure"},
		{"a tunnel for the console", func(in *Inputs) {
			in.Debug, in.Transport, in.DebugKey = "on-failure", "serial", public
			in.DebugTunnel, in.DebugTunnelKey, in.DebugTunnelHostKey = "me@host", private, public
		}, "transport: serial is for guests without one"},
		{"a published machine that is not looked at", func(in *Inputs) { in.SnapshotFrom, in.Snapshot = "ghcr.io/o/n@sha256:00", "save" }, "leave one of them out"},
		{"a tunnel to a port that is none", func(in *Inputs) { in.DebugTunnel = "me@host:ssh" }, "user@host:port"},
		{"a long value", func(in *Inputs) { in.CPUs = strings.Repeat("9", 200) }, `9"...`},
		{"a value of two lines", func(in *Inputs) { in.NIC = "one\ntwo" }, `nic: "one"...`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			in := defaults(t)
			tc.change(&in)
			_, err := Parse(in, func(name string) ([]byte, error) {
				if name == "key-file" {
					return []byte(private), nil
				}
				return nil, os.ErrNotExist
			})
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("err = %v, want %q", err, tc.want)
			}
		})
	}
}

func TestBareShellGetsThePath(t *testing.T) {
	in := defaults(t)
	in.Shell = "zsh"
	if c, err := Parse(in, nil); err != nil || c.Shell != "zsh {0}" {
		t.Errorf("shell = %q, %v", c.Shell, err)
	}
}

func TestUnknownInputs(t *testing.T) {
	in, unknown := FromEnvironment([]string{"INPUT_RUN=true", "INPUT_MEMROY=4G", "INPUT_ZEBRA=1", "INPUT_ARGS=x", "INPUT_CPUS=", "PATH=/bin", "INPUT_SSH_USER=x"})
	want := []string{
		"memroy is not an input of this action and is ignored; did you mean memory?",
		"ssh_user is not an input of this action and is ignored; did you mean ssh-user?",
		"zebra is not an input of this action and is ignored",
	}
	if diff := cmp.Diff(want, unknown); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if in.Memory != "2G" || in.CPUs != "1" {
		t.Errorf("memory %q, cpus %q: an empty input is its default", in.Memory, in.CPUs)
	}
}

func TestEnvNamesKeepHyphens(t *testing.T) {
	for _, f := range Fields() {
		if f.Name == "boot-timeout" && f.EnvName() != "INPUT_BOOT-TIMEOUT" {
			t.Errorf("EnvName = %q", f.EnvName())
		}
	}
}

func TestNearest(t *testing.T) {
	for word, want := range map[string]string{"kmv": "kvm", "tgc": "tcg", "automatic": "", "": "", "KVM": "kvm"} {
		if got := Nearest(word, []string{"auto", "kvm", "tcg"}); got != want {
			t.Errorf("Nearest(%q) = %q, want %q", word, got, want)
		}
	}
}
