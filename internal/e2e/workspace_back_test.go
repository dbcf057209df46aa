package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// backRun begins a run in a workspace that holds a few files.
func backRun(t *testing.T, s setup) *program {
	t.Helper()
	if s.workspace == "" {
		s.workspace = t.TempDir()
	}
	write(t, s.workspace, "kept", "as it was", "changed", "as it was", "gone", "it", "dir/gone", "too", "src/lib/file", "deep", "build/old.o", "object", "build/sub/old.o", "object")
	s.args = append([]string{"run", "--image=selftest", "--accel=tcg", "--memory=512"}, s.args...)
	return start(t, s)
}

// holds holds files of the workspace against pairs of a name and what it holds;
// "" for what must not be there.
func (p *program) holds(pairs ...string) {
	p.t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		got, err := os.ReadFile(filepath.Join(p.workspace, pairs[i]))
		if want := pairs[i+1]; string(got) != want || (err == nil) != (want != "") {
			p.t.Errorf("%s holds %.100q (%v), want %q", pairs[i], got, err, want)
		}
	}
	if p.t.Failed() {
		p.t.Logf("stderr:\n%s", p.stderr)
	}
}

// TestE2ECopyBack chooses what travels.
func TestE2ECopyBack(t *testing.T) {
	needGuest(t)
	t.Parallel()
	const script = `
pwd
echo changed >"$GITHUB_WORKSPACE/changed"
cd "$GITHUB_WORKSPACE"
rm -r gone dir
mkdir -p build/logs
echo 1 >build/logs/a.log
echo 2 >build/logs/b.txt
ls build/*.o || :
`
	for _, tc := range []struct {
		name   string
		args   []string
		script string
		stdout string
		stderr []string
		holds  []string
	}{
		{
			"mirror", []string{"--sync=disk", "--copy-back=mirror", "--sync-exclude=*.o\n!sub/old.o", "--working-directory=src/lib"},
			script + "mknod device b 8 0; chmod 6711 src/lib/file; mkdir build/new; echo theirs >build/old.o",
			"/github/workspace/src/lib\n",
			[]string{"3 deleted", `"device": files of this type`, `"build/old.o": the host has its own`},
			[]string{"kept", "as it was", "changed", "changed\n", "gone", "", "dir/gone", "", "src/lib/file", "deep", "build/old.o", "object", "build/sub/old.o", "object", "build/logs/a.log", "1\n"},
		},
		{
			"patterns", []string{"--sync=tar", "--copy-back=build/**/*.log\ngone", "--sync-include=/build/\n/gone\n/dir/", "--working-directory=WORKSPACE/build"}, script,
			"/github/workspace/build\nbuild/old.o\n", []string{"1 file in 2 B"},
			[]string{"changed", "as it was", "dir/gone", "too", "build/logs/a.log", "1\n", "build/logs/b.txt", ""},
		},
		{
			"none", []string{"--sync=disk", "--copy-back=none"}, script, "/github/workspace\nbuild/old.o\n", nil,
			[]string{"changed", "as it was", "build/logs/a.log", ""},
		},
		{
			"the home directory", []string{"--workspace=WORKSPACE"}, "pwd; test ! -e /github", "/root\n",
			[]string{"does not go into the guest", "is more than a project; name another with --workspace, or use sync: disk"},
			[]string{"changed", "as it was"},
		},
		{
			"the drive can't be attached", []string{"--user-data", "#cloud-config\nruncmd: [[sh, -c, 'rm /bin/mount; printf \"#!/bin/sh\\necho no mount today >&2; exit 32\\n\" >/bin/mount; chmod +x /bin/mount']]\n"},
			strings.Replace(script, "pwd\n", "pwd; unalias mount 2>/dev/null || :\n", 1), "/github/workspace\nbuild/old.o\n",
			[]string{"warning: The workspace goes over SSH: which is slow: its drive could not be attached: no mount today", "Copy in: "},
			[]string{"changed", "changed\n", "build/logs/a.log", "1\n", "gone", "it"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			for i := range tc.args {
				tc.args[i] = strings.ReplaceAll(tc.args[i], "WORKSPACE", dir)
			}
			s := setup{workspace: dir, args: append(tc.args, "--run", tc.script)}
			if strings.HasPrefix(tc.name, "the home") {
				s.env = []string{"HOME=" + dir}
			}
			p := backRun(t, s)
			if status := p.wait(); status != 0 {
				t.Errorf("exit status = %d", status)
			}
			if p.stdout.String() != tc.stdout {
				t.Errorf("stdout = %q, want %q", p.stdout, tc.stdout)
			}
			has(t, "stderr", p.stderr.String(), tc.stderr...)
			p.holds(tc.holds...)
		})
	}
}

// TestE2EComesBack ends runs in all ways that leave the workspace in the guest.
func TestE2EComesBack(t *testing.T) {
	needGuest(t)
	const work = "echo changed >changed; mkdir made; echo new >made/file; rm gone; "
	for _, tc := range []struct {
		name   string
		args   []string
		script string
		end    func(*testing.T, *program)
		status int
		says   []string
	}{
		{"timeout by disk", []string{"--sync=disk", "--timeout=2s"}, "sleep 100", nil, 124, []string{"ran longer than 2s"}},
		{"timeout by tar", []string{"--sync=tar", "--timeout=2s"}, "sleep 100", nil, 124, []string{"ran longer than 2s"}},
		{"SIGINT by disk", []string{"--sync=disk"}, "sleep 100", interrupt, 130, []string{"canceled by signal 2"}},
		{"SIGINT by tar", []string{"--sync=tar"}, "sleep 100", interrupt, 130, []string{"canceled by signal 2"}},
		{"SIGINT while files are open", []string{"--sync=disk"}, "(trap '' INT TERM HUP; setsid sh -c 'while :; do sleep 1; done' <changed >>held &) ; sleep 100", interrupt, 130, []string{"canceled by signal 2"}},
		{
			"QEMU is killed", []string{"--sync=disk"}, "sync; echo synced >&2; sleep 100",
			func(t *testing.T, p *program) {
				p.stderr.await(t, "\nsynced\n")
				must(t, syscall.Kill(p.qemu(), syscall.SIGKILL))
			},
			125, []string{"killed by signal 9", "The last changes to the workspace may be missing", "what the guest had written to the disk is taken"},
		},
		{
			"the kernel panics", []string{"--sync=disk"}, "sync; echo c >/proc/sysrq-trigger; sleep 100", nil,
			125, []string{"panic", "The last changes to the workspace may be missing"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.end == nil { // the others are held against time
				t.Parallel()
			}
			p := backRun(t, setup{args: append(tc.args, "--run", work+"echo in the guest >&2; "+tc.script)})
			if tc.end != nil {
				p.stderr.await(t, "\nin the guest\n")
				tc.end(t, p)
			}
			p.stderr.await(t, "\nin the guest\n")
			began := time.Now()
			if status := p.wait(); status != tc.status {
				t.Errorf("exit status = %d, want %d", status, tc.status)
			}
			if took := time.Since(began); took > 20*time.Second {
				t.Errorf("it took %v to end", took)
			}
			has(t, "stderr", p.stderr.String(), tc.says...)
			p.holds("changed", "changed\n", "made/file", "new\n", "kept", "as it was", "build/old.o", "object")
		})
	}
}

// interrupt ends a run as the runner does, and holds it against the time that
// the runner leaves.
func interrupt(t *testing.T, p *program) {
	t.Helper()
	p.record()
	began := time.Now()
	must(t, p.cmd.Process.Signal(syscall.SIGINT))
	go func() {
		time.Sleep(7 * time.Second)
		_ = p.cmd.Process.Kill() // which is another status than 130
	}()
	t.Cleanup(func() { t.Logf("ended %v after the signal at most", time.Since(began).Round(10*time.Millisecond)) })
}

// slowTar has the guest's tar send the beginning of a stream, and then nothing.
const slowTar = `
cat >/bin/slow <<'END'
#!/bin/sh
exec 3>&1
/bin/tar.real "$@" | { head -c 1500000; echo stalled >/dev/console; sleep 1000; }
END
mv /bin/tar /bin/tar.real
chmod +x /bin/slow
mv /bin/slow /bin/tar
mkdir big
i=100; while test $i -lt 300; do dd if=/dev/urandom of=big/$i bs=20000 count=1 2>/dev/null; i=$((i+1)); done
echo >changed
`

// TestE2EInterruptedCopyBack interrupts a copy back that takes too long: what
// has come stays, and what has not is named.
func TestE2EInterruptedCopyBack(t *testing.T) {
	needGuest(t)
	t.Parallel()
	for _, tc := range []struct {
		name, script string
		says         []string
	}{
		{"all", "", []string{"everything is sent", "of what was sent until then, "}},
		{"listed", findScript, []string{"Did not come back", `"big/`, "it did not come", "more\n"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			giveFind(t, dir)
			p := backRun(t, setup{workspace: dir, args: []string{"--sync=tar", "--run", tc.script + slowTar + "echo ready >&2"}})
			p.stderr.await(t, "==> Copy back")
			time.Sleep(2 * time.Second) // the stream stalls at once, and for good
			interrupt(t, p)
			if status := p.wait(); status != 130 {
				t.Errorf("exit status = %d, want 130: not all of the results are there", status)
			}
			has(t, "stderr", p.stderr.String(), append(tc.says, "Not all came back from the guest")...)
			if got, _ := filepath.Glob(filepath.Join(dir, "big/*")); len(got) == 0 || len(got) >= 200 {
				t.Errorf("%d files came back", len(got))
			}
		})
	}
}
