package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// awkward is an environment of names that our own programs use and values that
// no shell may touch.
const awkward = `export A='it'\''s "$x" $(y) \
 end
' d=1 dir=2 own=3 start=4 status=5 report=6 name=7
export OUTPUT="$hurd_files/output" TEMP_DIR="$hurd_files/temp"
`

func TestRunScriptEnv(t *testing.T) {
	for _, w := range worlds() {
		t.Run(w.name, func(t *testing.T) {
			s := w.in(t)
			c := dialed(t, s.listen())
			var out bytes.Buffer
			text := `printf '%s|' "$A" $d $dir $own $start $status $report $name "${hurd_files-unset}"
case $OUTPUT in */files/output) test -f "$OUTPUT" && echo file ;; esac
cd "$TEMP_DIR" && cat ../event.json && exit 3`
			r, err := c.RunScript(t.Context(), Script{Text: text, Env: []byte(awkward), Files: []File{
				{Name: "output", Collect: 10}, {Name: "temp/"}, {Name: "event.json", Content: []byte("{}\x00\xff\n")},
			}}, &out, nil)
			if err != nil || r.Status != 3 {
				t.Errorf("%+v, %v", r, err)
			}
			want := "it's \"$x\" $(y) \\\n end\n|1|2|3|4|5|6|7|unset|file\n{}\x00\xff\n"
			if out.String() != want {
				t.Errorf("got  %q\nwant %q", &out, want)
			}
			if diff := cmp.Diff(map[string]Collected{"output": {Content: []byte{}}}, r.Files); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestRunScriptEnvIsSecret: the values are in no program's arguments, and not
// in the guest's file system once the script runs.
func TestRunScriptEnvIsSecret(t *testing.T) {
	s := newServer(t)
	c := dialed(t, s.listen())
	var out bytes.Buffer
	text := `d=$(dirname "$0")
stat -c '%a %s' "$d/env" "$d/files"
test "$A" = s3cr3t && echo here
cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\0' ' ' | grep -c 's3cr3[t]' || true
grep -rl 's3cr3[t]' "$d" || true`
	text = strings.Replace(text, "s3cr3t", "s3cr''3t", 1)
	_, err := c.RunScript(t.Context(), Script{Text: text, Env: []byte("export A='s3cr3t'\n")}, &out, nil)
	if got := out.String(); err != nil || !strings.HasPrefix(got, "600 0\n700 ") || !strings.HasSuffix(got, "\nhere\n0\n") {
		t.Errorf("%q, %v", &out, err)
	}
}

// collectedFiles has one file of each kind that a script may leave.
func collectedFiles() (Script, map[string]Collected) {
	s := Script{
		Env: []byte(`export D="$hurd_files"`),
		Files: []File{
			{Name: "binary", Collect: 1000}, {Name: "long", Collect: 4}, {Name: "exact", Collect: 4}, {Name: "kept", Content: []byte("as it was\n"), Collect: 100},
			{Name: "gone", Collect: 100}, {Name: "link", Collect: 100}, {Name: "dir", Collect: 100}, {Name: "fifo", Collect: 100}, {Name: "replaced", Collect: 100},
			{Name: "uninteresting"}, {Name: "newlines", Collect: 100},
		},
		Text: `cd "$D"
printf 'a\0\377\n\n' >binary
printf '12345678' >long
printf '1234' >exact
rm gone link dir fifo
ln -s /etc/passwd link
mkdir dir
mkfifo fifo
echo new >x && mv x replaced
printf '\n\n' >newlines
`,
	}
	return s, map[string]Collected{
		"binary": {[]byte("a\x00\xff\n\n"), 5}, "long": {[]byte("1234"), 8}, "exact": {[]byte("1234"), 4}, "kept": {[]byte("as it was\n"), 10},
		"replaced": {[]byte("new\n"), 4}, "newlines": {[]byte("\n\n"), 2},
	}
}

// TestRunScriptFiles collects the files after every end that a script can have.
func TestRunScriptFiles(t *testing.T) {
	for _, w := range worlds() {
		for end, status := range map[string]int{"exit 0": 0, "exit 7": 7, "kill -9 $$": 137} {
			t.Run(w.name+"/"+end, func(t *testing.T) {
				server := w.in(t)
				c := dialed(t, server.listen())
				s, want := collectedFiles()
				s.Text += end
				r, err := c.RunScript(t.Context(), s, nil, nil)
				if err != nil || r.Status != status {
					t.Errorf("%+v, %v", r, err)
				}
				if diff := cmp.Diff(want, r.Files); diff != "" {
					t.Error(diff)
				}
				if left, _ := filepath.Glob(filepath.Join(server.dir, "hurd-qemu-action.*")); len(left) != 0 {
					t.Errorf("left behind: %v", left)
				}
			})
		}
	}
}

// TestRunScriptFilesStopped: a script that is ended keeps its files, also one
// that has to be killed.
func TestRunScriptFilesStopped(t *testing.T) {
	for name, tail := range map[string]string{"obedient": "sleep 1000", "deaf": "trap '' TERM; sleep 1000; sleep 1000"} {
		t.Run(name, func(t *testing.T) {
			server := newServer(t)
			c := dialed(t, server.listen())
			s, want := collectedFiles()
			s.Text += "echo ready\n" + tail
			s.KillGrace = 300 * time.Millisecond
			ctx, cancel := context.WithCancelCause(t.Context())
			cause := errors.New("timeout")
			begin := time.Now()
			r, err := c.RunScript(ctx, s, writerFunc(func(p []byte) (int, error) {
				cancel(cause)
				return len(p), nil
			}), nil)
			if took := time.Since(begin); !errors.Is(err, cause) || took > 3300*time.Millisecond {
				t.Errorf("after %s: %v", took, err)
			}
			if diff := cmp.Diff(want, r.Files); diff != "" {
				t.Error(diff)
			}
			if left, _ := filepath.Glob(filepath.Join(server.dir, "hurd-qemu-action.*")); len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// TestRunScriptFilesWithErrors: when the script could not start, or its output
// could not be passed on, the files are there, and the directory is not.
func TestRunScriptFilesWithErrors(t *testing.T) {
	full := errors.New("no space left")
	for name, tc := range map[string]struct {
		change func(*Script)
		writer func(p []byte) (int, error)
		as     any
	}{
		"no directory": {change: func(s *Script) { s.Dir = "/no/such" }, as: new(*DirError)},
		"no shell":     {change: func(s *Script) { s.Shell = "no-such-shell {0}" }, as: new(*ShellError)},
		"writer":       {change: func(s *Script) { s.Text += "echo x" }, writer: func([]byte) (int, error) { return 0, full }},
	} {
		t.Run(name, func(t *testing.T) {
			server := newServer(t)
			c := dialed(t, server.listen())
			s, _ := collectedFiles()
			tc.change(&s)
			r, err := c.RunScript(t.Context(), s, writerFunc(tc.writer), nil)
			if err == nil || tc.as != nil && !errors.As(err, tc.as) || tc.as == nil && !errors.Is(err, full) {
				t.Errorf("err = %v", err)
			}
			if got := string(r.Files["kept"].Content); got != "as it was\n" {
				t.Errorf("files = %v", r.Files)
			}
			if left, _ := filepath.Glob(filepath.Join(server.dir, "hurd-qemu-action.*")); len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

func TestRunScriptFileNames(t *testing.T) {
	s := newServer(t)
	c := dialed(t, s.listen())
	for _, name := range []string{"", "/etc/passwd", "..", "../x", "a/b", "-x", "a b", ".hidden", "a'b", "X"} {
		_, err := c.RunScript(t.Context(), Script{Files: []File{{Name: name}}}, nil, nil)
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("a script can't have a file of the name %q", name)) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// TestRunScriptLargeUpload moves a file that is much longer than a pipe or a
// window takes.
func TestRunScriptLargeUpload(t *testing.T) {
	s := newServer(t)
	c := dialed(t, s.listen())
	content := bytes.Repeat([]byte("0123456789abcdef"), 256<<10) // 4 MiB
	r, err := c.RunScript(t.Context(), Script{Text: "exit 0", Files: []File{
		{Name: "before", Content: []byte("b"), Collect: 10}, {Name: "large", Content: content, Collect: 8 << 20}, {Name: "after", Content: []byte("a"), Collect: 10},
	}}, nil, nil)
	if err != nil || !bytes.Equal(r.Files["large"].Content, content) || string(r.Files["before"].Content)+string(r.Files["after"].Content) != "ba" {
		t.Errorf("%v: %d bytes came back of %d", err, len(r.Files["large"].Content), len(content))
	}
}

// TestCollectNoise has a login shell that prints first, more than we would keep.
func TestCollectNoise(t *testing.T) {
	s := newServer(t)
	bin := t.TempDir()
	writeProgram(t, bin+"/sh", "#!/bin/sh\necho Welcome\nprintf '\\nMARK\\nexit 0\\n'\nexec /bin/sh \"$@\"\n")
	s.env[0] = "PATH=" + bin + ":" + os.Getenv("PATH")
	c := dialed(t, s.listen())
	r, err := c.RunScript(t.Context(), Script{Text: "exit 4", Files: []File{{Name: "f", Content: []byte("x"), Collect: 5}}}, nil, nil)
	if err != nil || r.Status != 4 || string(r.Files["f"].Content) != "x" {
		t.Errorf("%+v, %v", r, err)
	}
}

// FuzzCollect: whatever a guest answers, no more is kept than was asked for, and
// only what was asked for.
func FuzzCollect(f *testing.F) {
	f.Add("noise\nMexit 0M5\nhelloM-1\nM", 3)
	f.Add("MMM", 3)
	f.Add("MrunningM99999999999999999999\nxM-7\nMMMM", 100)
	f.Fuzz(func(t *testing.T, answer string, room int) {
		out := &limited{room: int64(max(room, 0))}
		for _, part := range strings.SplitAfter(answer, "M") {
			if n, err := out.Write([]byte(part)); n != len(part) || err != nil {
				t.Fatalf("%d, %v", n, err)
			}
		}
		if out.buf.Len() > max(room, 0) || !strings.HasPrefix(answer, out.buf.String()) {
			t.Fatalf("%d bytes were kept", out.buf.Len())
		}
		record, files, ok := parseCollected(bytes.ReplaceAll(out.buf.Bytes(), []byte("M"), []byte("\nMARK\n")), "MARK", []File{{Name: "a", Collect: 3}, {Name: "b", Collect: 3}})
		if !ok && (record != "" || files != nil) {
			t.Fatalf("%q, %v", record, files)
		}
		for name, c := range files {
			if name != "a" && name != "b" || len(c.Content) > 3 || c.Size < int64(len(c.Content)) {
				t.Fatalf("%s: %+v", name, c)
			}
		}
	})
}

// TestRunScriptCollectWithin has a guest that takes longer to answer than is
// allowed for one cause, and not for another.
func TestRunScriptCollectWithin(t *testing.T) {
	patient, hasty := errors.New("timeout"), errors.New("interrupted")
	for cause, collected := range map[error]int{patient: 1, hasty: 0} {
		t.Run(cause.Error(), func(t *testing.T) {
			s := newServer(t)
			slow := make(chan struct{})
			answer := sync.OnceFunc(func() { close(slow) })
			s.command = func(line string, _ sshChannel) (uint32, bool) {
				if strings.Contains(line, "stop.sh") && strings.Contains(line, "KILL") {
					<-slow
				}
				return 0, false
			}
			c := dialed(t, s.listen())
			ctx, cancel := context.WithCancelCause(t.Context())
			r, err := c.RunScript(ctx, Script{
				Text: "echo ready; exec sleep 1000", KillGrace: 100 * time.Millisecond, Files: []File{{Name: "f", Collect: 5}},
				CollectWithin: func(err error) time.Duration {
					if errors.Is(err, patient) {
						time.AfterFunc(200*time.Millisecond, answer)
						return time.Minute
					}
					return 100 * time.Millisecond
				},
			}, writerFunc(func(p []byte) (int, error) {
				cancel(cause)
				return len(p), nil
			}), nil)
			if !errors.Is(err, cause) || len(r.Files) != collected {
				t.Errorf("%+v, %v", r, err)
			}
			answer() // frees what waits still
		})
	}
}
