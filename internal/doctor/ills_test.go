package doctor

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/org/hurd-qemu-action/internal/units"
)

// ill is a host with one thing that is not as it should be.
type ill struct {
	check, name string
	ill         func(w *world)
	want        Verdict
	says, fix   string // what the text, and the advice, contain
}

func ills(list ...[]ill) (all []ill) {
	for _, l := range list {
		all = append(all, l...)
	}
	return all
}

var allIlls = ills(illQEMU, illKVM, illRoom, illStores, illNetwork, illJob, illGuests)

func withQEMU(change func(*QEMU)) func(*world) {
	return func(w *world) {
		q, _ := w.QEMU(context.Background())
		change(&q)
		w.QEMU = func(context.Context) (QEMU, error) { return q, nil }
	}
}

func starting(text string) func(*world) {
	return func(w *world) { w.Start = func(context.Context) error { return errors.New(text) } }
}

func without(program string) func(*world) {
	return func(w *world) { w.runs[program] = &exec.Error{Name: program, Err: exec.ErrNotFound} }
}

var illQEMU = []ill{
	{"qemu", "missing", func(w *world) {
		w.QEMU = func(context.Context) (QEMU, error) {
			return QEMU{}, &exec.Error{Name: "qemu-system-x86_64", Err: exec.ErrNotFound}
		}
	}, Broken, "not found", "apt-get install qemu-system-x86"},
	{"qemu", "does not answer", func(w *world) {
		w.QEMU = func(context.Context) (QEMU, error) {
			return QEMU{}, errors.New("libfoo.so.1: cannot open shared object file")
		}
	}, Broken, "libfoo.so.1", "a library may be missing"},
	{"qemu", "too old", withQEMU(func(q *QEMU) { q.Version = "6.2.0" }), Broken, "6.2.0", "Install QEMU 7 or later"},
	{"qemu", "without a card", withQEMU(func(q *QEMU) { q.Missing = []string{"nic e1000"} }), Broken, "no nic e1000", "with all of its x86 devices"},
	{"qemu", "of Debian 12", withQEMU(func(q *QEMU) { q.Version, q.PrivateRAM = "7.2.22", false }), Limited, "share no memory", "QEMU 10"},
	{"qemu", "without VNC", withQEMU(func(q *QEMU) { q.VNC = false }), Limited, "no VNC", "QEMU 10"},
	{"qemu", "of the far future", withQEMU(func(q *QEMU) { q.Version, q.Shared = "15.0.0", false }), Limited, "no machine type 7.2", ""},

	{"start", "no firmware", starting("qemu ended: status 1: qemu: could not find 'bios-256k.bin'"), Broken, "bios-256k", "apt-get install seabios"},
	{"start", "seccomp", starting("failed to install seccomp syscall filter in the kernel"), Broken, "seccomp", "seccomp profile"},
	{"start", "no memory", starting("cannot set up guest memory 'ram': Cannot allocate memory"), Broken, "guest memory", "ulimit -v"},
	{"start", "no slirp", starting("network backend 'user' is not compiled into this binary"), Broken, "not compiled", "user networking"},
	{"start", "a busy host", starting("QEMU's monitor did not answer within 10s"), Broken, "did not answer", "too busy"},
	{"start", "who knows", starting("line one\nline two"), Broken, "line one line two", "qemu.log"},
	{"start", "no QEMU", func(w *world) { w.QEMU = func(context.Context) (QEMU, error) { return QEMU{}, exec.ErrNotFound } }, Skipped, "no QEMU", ""},

	{"sandbox", "none", withQEMU(func(q *QEMU) { q.Sandbox = false }), Limited, "no seccomp filter", "built with seccomp"},
	{"sandbox", "a user", func(*world) {}, Fine, "runs as this user, runner", ""},
	{"sandbox", "root", func(w *world) { w.UID = 0 }, Fine, "becomes nobody", ""},
	{"sandbox", "root of a container of one user", func(w *world) { w.UID = 0; w.put("proc/self/uid_map", "         0       1001          1\n") }, Fine, "stays this container's root", ""},
	{"sandbox", "root of a container of many users", func(w *world) { w.UID = 0; w.put("proc/self/uid_map", "0 1001 1\n1 100000 65536\n") }, Fine, "becomes nobody", ""},

	{"tools", "qemu-img", without("qemu-img"), Broken, "qemu-img is missing", "apt-get install qemu-utils."},
	{"tools", "several", func(w *world) { without("qemu-io")(w); without("debugfs")(w); without("e2fsck")(w) }, Broken, "debugfs is missing; e2fsck is missing", "install qemu-utils e2fsprogs."},
	{"tools", "resize2fs", without("resize2fs"), Broken, "resize2fs is missing", "e2fsprogs"},
	{"tools", "broken", func(w *world) { w.runs["mke2fs"] = errors.New("status 127") }, Broken, "mke2fs does not run (status 127)", "e2fsprogs"},
	{"tools", "usage of resize2fs", func(w *world) { w.runs["resize2fs"] = errors.New("status 1") }, Fine, "all there", ""},
	{"unpackers", "no xz", without("xz"), Slow, "several times slower", "xz-utils"},
	{"unpackers", "no zstd", without("zstd"), Fine, "our own code", ""},
	{"disk-modes", "no io_uring", func(w *world) {
		w.DiskMode = func(_ context.Context, _, aio string) error {
			if aio == "io_uring" {
				return unix.EPERM
			}
			return nil
		}
	}, Fine, "disk-aio: native works as well; disk-cache: unsafe with disk-aio: io_uring does not work (operation not permitted)", ""},
	{"disk-modes", "no QEMU", func(w *world) { w.QEMU = func(context.Context) (QEMU, error) { return QEMU{}, exec.ErrNotFound } }, Skipped, "no QEMU", ""},
}

func withKVM(state string, change ...func(*world)) func(*world) {
	return func(w *world) {
		w.KVM = func(context.Context) (KVM, error) {
			return KVM{State: state, Reason: "the reason", Device: "/dev/kvm"}, nil
		}
		for _, c := range change {
			c(w)
		}
	}
}

func container(w *world) { w.put(".dockerenv", "") }

var illKVM = []ill{
	{"kvm", "absent from a host", withKVM(KVMAbsent), Slow, "the reason; guests are emulated", "modprobe kvm_intel"},
	{"kvm", "absent from AMD's", withKVM(KVMAbsent, func(w *world) { w.put("proc/cpuinfo", "flags : fpu svm\n") }), Slow, "", "modprobe kvm_amd"},
	{"kvm", "absent from a virtual host", withKVM(KVMAbsent, func(w *world) { w.put("proc/cpuinfo", "flags : fpu hypervisor\n") }), Slow, "", "nested virtualization in the hypervisor"},
	{"kvm", "absent from a container", withKVM(KVMAbsent, container), Slow, "", "--device /dev/kvm"},
	{"kvm", "absent from a job's container", withKVM(KVMAbsent, container, func(w *world) { w.job() }), Slow, "", "on the runner itself"},
	{"kvm", "absent from ARM", withKVM(KVMAbsent, func(w *world) { w.Arch = "arm64" }), Slow, "", "the KVM of arm64 runs no guests of x86"},
	{"kvm", "denied, with a group", withKVM(KVMDenied), Slow, "", "sudo usermod -aG kvm runner"},
	{"kvm", "denied, of root's group", withKVM(KVMDenied, func(w *world) { w.nodes["/dev/kvm"] = Node{Mode: fs.ModeDevice | 0o600} }), Slow, "", "sudo chown root:kvm /dev/kvm"},
	{"kvm", "denied to root", withKVM(KVMDenied, func(w *world) { w.UID = 0 }), Slow, "", "--device /dev/kvm"},
	{"kvm", "not built", withKVM(KVMNotBuilt), Slow, "", "built with KVM"},
	{"kvm", "hangs", withKVM(KVMDead), Slow, "", "nested virtualization that works"},
	{"kvm", "no answer as KVM", withKVM(KVMBroken), Slow, "", "Use another host"},
	{"kvm", "refused", withKVM(KVMRefused), Slow, "", "Read what QEMU says"},
	{"kvm", "wanted", withKVM(KVMAbsent, func(w *world) { w.Accel = AccelKVM }), Broken, "the reason", "modprobe"},
	{"kvm", "and no TCG", withKVM(KVMAbsent, withQEMU(func(q *QEMU) { q.TCG = false })), Broken, "no TCG", "modprobe"},
	{"kvm", "not wanted", withKVM(KVMAbsent, func(w *world) { w.Accel = AccelTCG }), Skipped, "accel is tcg", ""},
	{"kvm", "not known", func(w *world) { w.KVM = func(context.Context) (KVM, error) { return KVM{}, errors.New("no QEMU") } }, Broken, "no QEMU", "report this"},
	{"kvm", "without QEMU", func(w *world) {
		w.QEMU = func(context.Context) (QEMU, error) { return QEMU{}, exec.ErrNotFound }
		w.KVM = func(context.Context) (KVM, error) { return KVM{}, exec.ErrNotFound }
	}, Skipped, "no QEMU", ""},
}

func withMemory(m Memory) func(*world) {
	return func(w *world) { w.Memory = func() (Memory, error) { return m, nil } }
}

func withSpace(dir string, s Space) func(*world) {
	return func(w *world) { w.spare[dir] = s }
}

func withLimit(resource int, n uint64) func(*world) {
	return func(w *world) { w.limit[resource] = n }
}

func refusing(what string, err error) func(*world) {
	return func(w *world) { w.deny[what] = &fs.PathError{Op: "open", Path: what, Err: err} }
}

var illRoom = []ill{
	{"memory", "too small", withMemory(Memory{Total: gib, Available: gib}), Broken, "this host's 1 GiB", "memory: 768M"},
	{"memory", "of a container, too small", withMemory(Memory{Total: gib, Available: gib, Limited: true}), Broken, "limit of 1 GiB", "docker run --memory"},
	{"memory", "used up", withMemory(Memory{Total: 8 * gib, Available: gib / 2}), Broken, "will be killed", "end what else uses"},
	{"memory", "short", withMemory(Memory{Total: 8 * gib, Available: 2 * gib}), Slow, "swaps", "memory: 1G"},
	{"memory", "unknown", func(w *world) { w.Memory = func() (Memory, error) { return Memory{}, errors.New("no meminfo") } }, Broken, "no meminfo", "Mount /proc"},
	{"hugepages", "none", func(w *world) { w.HugePages = func() error { return errors.New("set more aside") } }, Fine, "set more aside", ""},
	{"cpus", "one", func(w *world) { w.CPUs = func() int { return 1 } }, Slow, "1 processor:", "boot-timeout"},
	{"cpus", "fewer than the guest's", func(w *world) { w.CPUs = func() int { return 2 }; w.Need.CPUs = 4 }, Slow, "the guest has 4", "cpus: 1"},
	{"cpus", "half of one (version 2)", func(w *world) { w.put("sys/fs/cgroup/cpu.max", "50000 100000\n") }, Slow, "grants 0.5", "docker run --cpus"},
	{"cpus", "half of one (version 1)", func(w *world) {
		w.put("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "50000\n")
		w.put("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n")
	}, Slow, "grants 0.5", "CPUQuota="},
	{"cpus", "a quota that is enough", func(w *world) { w.put("sys/fs/cgroup/cpu.max", "250000 100000\n") }, Fine, "grants 2.5", ""},
	{"load", "high", func(w *world) { w.put("proc/loadavg", "9.00 1 1 1/1 1\n") }, Slow, "9.0 on 4 processors", "top"},
	{"load", "not told", func(w *world) { delete(w.files, "proc/loadavg") }, Skipped, "does not tell", ""},

	{"temp-space", "full", withSpace("/tmp", Space{Free: units.MiB, Total: gib}), Broken, "1 MiB free", "RUNNER_TEMP"},
	{"temp-space", "full while it is written", refusing("write /tmp", unix.ENOSPC), Broken, "no space left", "Free space there"},
	{"temp-space", "small", withSpace("/tmp", Space{Free: gib, Total: gib}), Limited, "is lost", "Free space"},
	{"temp-space", "memory", withSpace("/tmp", Space{Free: 8 * gib, Total: 8 * gib, Type: "tmpfs"}), Limited, "tmpfs", "Use a disk"},
	{"temp-space", "missing", refusing("write /tmp", unix.ENOENT), Broken, "no such file", "Make the directory"},
	{"store-space", "too small for the image", withSpace("/cache/images", Space{Free: gib, Total: 10 * gib}), Broken, "debian takes 5 GiB", "image prune"},
	{"store-space", "read-only", refusing("write /cache/images", unix.EROFS), Broken, "read-only", "Set cache-dir"},
	{"store-space", "read-only, and the image is in it", both(refusing("write /cache/images", unix.EROFS), func(w *world) { w.StoreNeed = func() units.Bytes { return 0 } }), Limited, "none can be added", "Set cache-dir"},
	{"store-space", "somebody else's", refusing("write /cache/images", unix.EACCES), Broken, "permission denied", "cache-dir"},
	{"store-space", "no inodes", withSpace("/cache/images", Space{Free: 50 * gib, Total: 100 * gib, Nodes: 10, Inodes: 1000}), Broken, "only 10 files", "inodes"},
	{"store-space", "without a limit of inodes", withSpace("/cache/images", Space{Free: 50 * gib, Total: 100 * gib}), Fine, "50 GiB free", ""},
	{"store-space", "far away", withSpace("/cache/images", Space{Free: 50 * gib, Total: 100 * gib, Type: "nfs"}), Slow, "on nfs", "disk of this host"},
	{"store-space", "to be made", func(w *world) {
		delete(w.nodes, "/cache/images")
		w.nodes["/"] = Node{Mode: fs.ModeDir}
		w.spare["/"] = Space{Free: gib, Total: gib}
	}, Broken, "in /,", "cache-dir"},
	{"workspace", "not ours", refusing("write /work", unix.EACCES), Broken, "/work: permission denied", "right to write"},
	{"workspace", "no space asked", func(w *world) { w.Space = func(string) (Space, error) { return Space{}, errors.New("stale handle") } }, Broken, "stale handle", "right to write"},

	{"limits", "files", withLimit(unix.RLIMIT_NOFILE, 64), Broken, "only 64 files", "ulimit -n 1024"},
	{"limits", "addresses", withLimit(unix.RLIMIT_AS, 1<<30), Broken, "1 GiB of addresses", "ulimit -v"},
	{"limits", "file size", withLimit(unix.RLIMIT_FSIZE, 1<<30), Broken, "a file may have only 1 GiB", "ulimit -f"},
	{"limits", "processes", withLimit(unix.RLIMIT_NPROC, 20), Limited, "20 processes", "ulimit -u"},
	{"limits", "processes of a container", func(w *world) { w.put("sys/fs/cgroup/pids.max", "50\n") }, Limited, "50 processes", "--pids-limit"},
	{"limits", "locked memory", withLimit(unix.RLIMIT_MEMLOCK, 8<<20), Fine, "8 MiB may be locked", ""},
	{"limits", "two of them", func(w *world) { withLimit(unix.RLIMIT_NPROC, 20)(w); withLimit(unix.RLIMIT_NOFILE, 64)(w) }, Broken, "64 files may be open; only 20", "ulimit -n"},
	{"clock", "of 1970", func(w *world) { w.now = time.Unix(0, 0) }, Broken, "1970", "timedatectl"},
}

var illStores = []ill{
	{"images", "unreadable", func(w *world) { w.Images = func() ([]Entry, error) { return nil, errors.New("listing: denied") } }, Broken, "denied", "read /cache/images"},
	{"images", "damaged", func(w *world) {
		w.Images = func() ([]Entry, error) {
			return []Entry{{Name: "0123456789abcdef0123456789", Problem: "the image store is damaged: x"}, {Name: "b", InUse: true}, {Name: "c", Partial: true}}, nil
		}
	}, Broken, "1 in use by a run that goes on, 1 received in part", "image rm 0123456789abcdef0123."},
	{"images", "empty", func(w *world) { w.Images = func() ([]Entry, error) { return nil, nil } }, Fine, "nothing in /cache/images yet", ""},
	{"snapshots", "damaged", func(w *world) {
		w.Snapshots = func() ([]Entry, error) { return []Entry{{Name: "s", Problem: "cut"}}, nil }
	}, Broken, "cut", "snapshot rm s."},
	{"image", "missing", func(w *world) {
		w.Image = func(context.Context) (string, error) { return "", errors.New("looking at x.qcow2: no such file") }
	}, Broken, "no such file", "Correct the input image"},
	{"image", "none named", func(w *world) { w.Image = nil }, Skipped, "--image", ""},
}

func heads(answer any) func(*world) {
	return func(w *world) {
		for _, f := range w.Downloads() {
			for _, a := range f.Addresses {
				w.heads[a] = answer
			}
		}
		w.heads["https://results.example/"] = answer
	}
}

func file(change func(*Download)) func(*world) {
	return func(w *world) {
		list := w.Downloads()
		change(&list[0])
		w.Downloads = func() []Download { return list }
	}
}

func both(a, b func(*world)) func(*world) { return func(w *world) { a(w); b(w) } }

func env(pairs ...string) func(*world) {
	return func(w *world) {
		for i := 0; i < len(pairs); i += 2 {
			w.env[pairs[i]] = pairs[i+1]
		}
	}
}

var illNetwork = []ill{
	{"loopback", "down", refusing("listen 127.0.0.1:0", unix.EADDRNOTAVAIL), Broken, "can be had", "ip link set lo up"},
	{"loopback", "behind a firewall", func(w *world) { w.dials["127.0.0.1:4"] = syscall.EHOSTUNREACH }, Broken, "can't be reached", "firewall"},
	{"sockets", "a share", refusing("socket /tmp", unix.EOPNOTSUPP), Broken, "not supported", "local file system"},
	{"sockets", "a long path", func(w *world) { w.Paths.Temp = "/" + strings.Repeat("t", 90) }, Broken, "91 bytes", "shorter path"},
	{"proxy", "none", func(*world) {}, Fine, "none is set", ""},
	{"proxy", "there", env("HTTPS_PROXY", "http://user:secret@proxy.example:3128"), Fine, "proxy.example:3128 (HTTPS_PROXY)", ""},
	{"proxy", "without a port", env("https_proxy", "proxy.example"), Fine, "proxy.example:80", ""},
	{"proxy", "gone", both(env("HTTPS_PROXY", "http://user:secret@proxy.example:3128"), func(w *world) { w.dials["proxy.example:3128"] = syscall.ECONNREFUSED }), Broken, "can't be reached", "NO_PROXY"},
	{"proxy", "nonsense", env("HTTP_PROXY", "http://"), Broken, "is not an address", "http://proxy.example.org:3128"},
	{"proxy", "CGI", env("HTTP_PROXY", "http://p.example:1", "REQUEST_METHOD", "GET"), Limited, "not used", "small letters"},
	{"proxy", "of all", env("ALL_PROXY", "socks5://p.example"), Limited, "ALL_PROXY", "HTTPS_PROXY"},
	{"downloads", "not found", heads(404), Broken, "a.xz, and in 1 other place: HTTP status 404 (Not Found)", "moved or is not public"},
	{"downloads", "in the second place", func(w *world) { w.heads[server+"latest/a.xz"] = 404 }, Fine, server + "13.0/a.xz, 354 MiB", ""},
	{"downloads", "trouble", heads(503), Broken, "503", "try later"},
	{"downloads", "no name", heads(&net.DNSError{Err: "no such host", Name: "images.example"}), Broken, "no such host", "resolv.conf"},
	{"downloads", "no trust", heads(x509.UnknownAuthorityError{}), Broken, "unknown authority", "ca-certificates"},
	{"downloads", "a firewall", heads(syscall.ECONNREFUSED), Broken, "refused", "image-mirror"},
	{"downloads", "a proxy", both(heads(errors.New("Forbidden")), env("HTTPS_PROXY", "http://p.example:1")), Broken, "Forbidden", "Look at the proxy"},
	{"downloads", "who knows", heads(errors.New("odd")), Broken, "odd", "image pull"},
	{"downloads", "in the store", both(heads(404), file(func(d *Download) { d.Stored = true })), Fine, "in the image store", ""},
	{"downloads", "not wanted", both(heads(404), file(func(d *Download) { d.Wanted = false })), Limited, "404", "image-mirror"},
	{"downloads", "slow", heads(3 * time.Second), Slow, "took 3.0 s", "mirror"},
	{"downloads", "none", func(w *world) { w.Downloads = func() []Download { return nil } }, Skipped, "no address is known", ""},
	{"downloads", "without an address", file(func(d *Download) { d.Addresses = nil }), Skipped, "no address", ""},
	{"downloads", "a signed address", both(file(func(d *Download) { d.Addresses = []string{"https://h.example/a?sig=secret"} }), func(w *world) {
		w.heads["https://h.example/a?sig=secret"] = 403
	}), Broken, "https://h.example/a: HTTP status 403", "try later"},
}

func inJob(change ...func(*world)) func(*world) {
	return func(w *world) {
		w.job()
		for _, c := range change {
			c(w)
		}
	}
}

// token is one that ends at a time.
func token(ends time.Time) string {
	return "x." + base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"exp":%d}`, ends.Unix())) + ".y"
}

func docker(said any) func(*world) {
	return func(w *world) { w.dials["/var/run/docker.sock"] = said }
}

func noDocker(w *world) { delete(w.nodes, "/var/run/docker.sock") }

var illJob = []ill{
	{"docker", "none on a host", noDocker, Limited, "there is no /var/run/docker.sock", "apt-get install docker.io"},
	{"docker", "none in a container", both(noDocker, container), Fine, "needs none", ""},
	{"docker", "another one", both(noDocker, env("DOCKER_HOST", "tcp://me:secret@d.example:2375")), Limited, "DOCKER_HOST is tcp://d.example:2375", ""},
	{"docker", "a directory", func(w *world) { w.nodes["/var/run/docker.sock"] = Node{Mode: fs.ModeDir} }, Limited, "is no socket", "Remove it"},
	{"docker", "denied", docker(&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", unix.EACCES)}), Limited, "by user runner", "usermod -aG docker runner"},
	{"docker", "nobody listens", docker(&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", unix.ECONNREFUSED)}), Broken, "nobody listens", "systemctl start docker"},
	{"docker", "says something else", docker("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"), Broken, "no JSON", "systemctl restart docker"},
	{"docker", "refuses", docker("HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n"), Broken, "HTTP status 500", "journalctl"},
	{"docker", "says nothing", docker(nil), Broken, "longer than 3s", "restart docker"},
	{"docker", "no version", docker("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"), Broken, "names no version", "restart"},

	{"runner", "none", func(*world) {}, Skipped, "no job", ""},
	{"runner", "no workspace", inJob(env("GITHUB_WORKSPACE", "")), Broken, "GITHUB_WORKSPACE is not set", "Pass the runner's variables"},
	{"runner", "a workspace elsewhere", inJob(env("GITHUB_WORKSPACE", "/home/runner/work/x/x")), Broken, "which is no directory here", "Mount the workspace"},
	{"runner", "before 2.329", inJob(env("RUNNER_TEMP", "/home/runner/work/_temp")), Limited, "so that /tmp is used", "2.329"},
	{"runner", "no outputs", inJob(env("GITHUB_OUTPUT", "")), Limited, "GITHUB_OUTPUT (not set)", "GITHUB_OUTPUT"},
	{"runner", "a summary elsewhere", inJob(env("GITHUB_STEP_SUMMARY", "/elsewhere")), Limited, "loses the job summary", "GITHUB_STEP_SUMMARY"},
	{"services", "of a run step", inJob(env("ACTIONS_RESULTS_URL", "", "ACTIONS_RUNTIME_TOKEN", "")), Limited, "are not set", "not to run steps"},
	{"services", "no address", inJob(env("ACTIONS_RESULTS_URL", "")), Limited, "ACTIONS_RESULTS_URL is not set", "Enterprise"},
	{"services", "no token", inJob(env("ACTIONS_RUNTIME_TOKEN", "")), Limited, "ACTIONS_RUNTIME_TOKEN is not set", "Pass it on"},
	{"services", "an address that is none", inJob(env("ACTIONS_RESULTS_URL", "results")), Broken, "is not an address", "Pass it on"},
	{"services", "a token that is none", inJob(env("ACTIONS_RUNTIME_TOKEN", "secret")), Broken, "can't be read", "Pass it on"},
	{"services", "a token that has expired", inJob(env("ACTIONS_RUNTIME_TOKEN", token(time.Date(2026, 11, 24, 11, 0, 0, 0, time.UTC)))), Broken, "expired at 2026-11-24T11:00:00Z", "clock"},
	{"services", "a token that is good", inJob(env("ACTIONS_RUNTIME_TOKEN", token(time.Date(2026, 11, 24, 13, 0, 0, 0, time.UTC)))), Fine, "are there", ""},
	{"services-network", "unreachable", inJob(heads(&net.DNSError{Err: "no such host"})), Broken, "results.example can't be reached", "resolv.conf"},
	{"services-network", "any answer", inJob(heads(404)), Fine, "answers", ""},
	{"services-network", "slow", inJob(heads(3 * time.Second)), Slow, "after ", "slow"},
}

func withMachine(m Machine, err error) func(*world) {
	return func(w *world) { w.Machine = func(context.Context, string) (Machine, error) { return m, err } }
}

func withStatus(status string) func(*world) { return withMachine(Machine{Status: status}, nil) }

func stat(text string) func(*world) { return func(w *world) { w.put("proc/99/stat", text) } }

// console makes the serial log say something.
func console(text string, ago time.Duration) func(*world) {
	return func(w *world) {
		guests, _ := w.Guests(context.Background())
		name := guests[0].Serial
		if err := errors.Join(os.WriteFile(name, []byte(text), 0o600), os.Chtimes(name, w.now, w.now.Add(-ago))); err != nil {
			panic(err)
		}
	}
}

func guest(change func(*Guest)) func(*world) {
	return func(w *world) {
		guests, err := w.Guests(context.Background())
		change(&guests[0])
		w.Guests = func(context.Context) ([]Guest, error) { return guests, err }
	}
}

var illGuests = []ill{
	{"guest-process", "stopped", stat("99 (qemu) T 1"), Broken, "process 99 (qemu) is stopped", "kill -CONT 99"},
	{"guest-process", "a zombie", stat("99 (qemu) Z 1"), Broken, "has ended", "End the run"},
	{"guest-process", "waits for a disk", stat("99 (qemu) D 1"), Slow, "waits for a disk", "dmesg"},
	{"guest-process", "just ended", stat(""), Skipped, "has just ended", ""},
	{"guest-process", "in another container", func(w *world) { w.put("proc/net/unix", "") }, Skipped, "another container", ""},
	{"guest-process", "another user's", func(w *world) { delete(w.files, "proc/99/fd/7") }, Skipped, "another user", ""},
	{"guest-monitor", "gone", withMachine(Machine{}, &fs.PathError{Op: "dial", Err: unix.ENOENT}), Broken, "socket is gone", "run has ended"},
	{"guest-monitor", "refuses", withMachine(Machine{}, os.NewSyscallError("connect", unix.ECONNREFUSED)), Broken, "refuses connections", "qemu.log"},
	{"guest-monitor", "denied", withMachine(Machine{}, os.NewSyscallError("connect", unix.EACCES)), Broken, "may not be used", "as root"},
	{"guest-monitor", "silent", func(w *world) {
		w.Machine = func(ctx context.Context, _ string) (Machine, error) { <-ctx.Done(); return Machine{}, ctx.Err() }
	}, Broken, "says nothing", "one client at a time"},
	{"guest-monitor", "odd", withMachine(Machine{}, errors.New("the peer does not speak QMP")), Broken, "speak QMP", "qemu.log"},
	{"guest-monitor", "paused", withStatus("paused"), Broken, "paused", "qmp cont"},
	{"guest-monitor", "a full disk", withStatus("io-error"), Broken, "can't be read or written", "Free space"},
	{"guest-monitor", "KVM has failed", withStatus("internal-error"), Broken, "accelerator", "accel: tcg"},
	{"guest-monitor", "being loaded", withStatus("inmigrate"), Limited, "being loaded", "Wait"},
	{"guest-monitor", "a new state", withStatus("dreaming\x1b[2J"), Fine, "the machine is dreaming[2J", ""},
	{"guest-ssh", "refused", func(w *world) {
		w.dials["127.0.0.1:34615"] = syscall.ECONNREFUSED
		w.dials["127.0.0.1:8080"] = syscall.ECONNREFUSED
	}, Broken, "127.0.0.1:34615", "firewall"},
	{"guest-ssh", "no sshd", func(w *world) { w.dials["127.0.0.1:34615"] = ""; w.dials["127.0.0.1:8080"] = "" }, Limited, "nothing in the guest listens", "sshd does not run"},
	{"guest-ssh", "silent", func(w *world) { w.dials["127.0.0.1:34615"] = nil; w.dials["127.0.0.1:8080"] = nil }, Slow, "nothing was said within 8s", "boots still"},
	{"guest-ssh", "another server", func(w *world) { w.dials["127.0.0.1:34615"] = "220 mail\r\n" }, Broken, `does not speak SSH: "220 mail"`, "ssh-port"},
	{"guest-ssh", "another port", func(w *world) {
		w.dials["127.0.0.1:34615"], w.dials["127.0.0.1:8080"] = "", "SSH-2.0-dropbear\n"
	}, Fine, "port 80, answers: SSH-2.0-dropbear", ""},
	{"guest-ssh", "no port", withMachine(Machine{Status: "running"}, nil), Skipped, "no port", ""},
	{"guest-ssh", "no monitor", withMachine(Machine{}, errors.New("x")), Skipped, "does not tell", ""},
	{"guest-console", "panic", console("booting\npanic: no root\n", time.Second), Broken, "GNU Mach panicked", "Look at the lines around it"},
	{"guest-console", "empty", console("", time.Second), Slow, "nothing was printed", "boot loader"},
	{"guest-console", "quiet", console("booting\n", 10*time.Minute), Slow, "for 10m0s", "it hangs"},
	{"guest-console", "unknown", guest(func(g *Guest) { g.Serial = "" }), Skipped, "not known", ""},
	{"guest-console", "gone", guest(func(g *Guest) { g.Serial = "/nonexistent/serial.log" }), Skipped, "no such file", ""},
	{"guest-console", "a directory", guest(func(g *Guest) { g.Serial = "/" }), Skipped, "no file", ""},
	{"leftovers", "one", guest(func(g *Guest) { g.Alive = false }), Limited, "the run was killed", "rm -r /tmp/hurd-qemu-action-1."},
	{"guest-monitor", "none runs", guest(func(g *Guest) { g.Alive = false }), Skipped, "no guest runs", ""},
	{"guest-monitor", "none of that name", func(w *world) {
		w.Guests = func(context.Context) ([]Guest, error) { return nil, errors.New(`no guest is called "7"`) }
	}, Broken, `called "7"`, "without --guest"},
}

// TestIlls: each verdict of each check, with what is said and what is advised.
func TestIlls(t *testing.T) {
	seen := map[string]map[Verdict]bool{}
	for _, tc := range allIlls {
		t.Run(tc.check+"/"+tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := healthy(t)
				tc.ill(w)
				found := findings(t, w, Options{}, tc.check)
				if len(found) != 1 {
					t.Fatalf("%d findings: %+v", len(found), found)
				}
				f := found[0]
				if f.Verdict != tc.want || !strings.Contains(f.Text, tc.says) || !strings.Contains(strings.Join(f.Fix, "\n"), tc.fix) {
					t.Errorf("%s: %q, %q;\nwant %s: %q, %q", f.Verdict, f.Text, f.Fix, tc.want, tc.says, tc.fix)
				}
				all := f.Text + strings.Join(f.Fix, " ")
				if strings.Contains(all, "secret") || strings.Contains(all, "\n") || strings.Contains(all, "\x1b") {
					t.Errorf("it tells too much: %q", all)
				}
				if f.Verdict.Good() != (len(f.Fix) == 0) || len(f.Fix) > 0 && !strings.HasSuffix(f.Fix[0], ".") {
					t.Errorf("%s, and what to do is %q", f.Verdict, f.Fix)
				}
			})
		})
		if seen[tc.check] == nil {
			seen[tc.check] = map[Verdict]bool{}
		}
		seen[tc.check][tc.want] = true
	}
	for _, c := range Checks() {
		if len(seen[c.Name]) == 0 {
			t.Errorf("no test makes %s ill", c.Name)
		}
	}
}
