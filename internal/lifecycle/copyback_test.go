package lifecycle

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/org/hurd-qemu-action/internal/config"
)

// TestStream takes a workspace there and back over SSH: with a find that lists
// what has changed, and with one that can't.
func TestStream(t *testing.T) {
	for _, tc := range []struct {
		name string
		in   config.Inputs
		find string // replaces the guest's
		want map[string]string
		says []string
	}{
		{
			name: "changed", in: config.Inputs{CopyBack: "changed"},
			want: map[string]string{"same": "1", "changed": "2!", "gone": "3", "sub/new": "4"}, says: []string{"2 files in 3 B"},
		},
		{
			name: "mirror", in: config.Inputs{CopyBack: "mirror"},
			want: map[string]string{"same": "1", "changed": "2!", "sub/new": "4"}, says: []string{"2 files in 3 B, 1 deleted"},
		},
		{
			name: "paths", in: config.Inputs{CopyBack: "sub/**"},
			want: map[string]string{"same": "1", "changed": "2", "gone": "3", "sub/new": "4"}, says: []string{"1 file in 1 B"},
		},
		{
			name: "none", in: config.Inputs{CopyBack: "none"},
			want: map[string]string{"same": "1", "changed": "2", "gone": "3"},
		},
		{
			name: "another find", in: config.Inputs{CopyBack: "mirror"}, find: "exit 1",
			want: map[string]string{"same": "1", "changed": "2!", "sub/new": "4"}, says: []string{"everything is sent", "2 files in 3 B, 1 deleted"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.in.Sync = syncTar
			r, g, log := newGuest(t, tc.in)
			put(t, r.Host.Workspace, map[string]string{"same": "1", "changed": "2", "gone": "3"})
			bring(t, r)
			if diff := cmp.Diff(files(t, r.Host.Workspace), files(t, g.dir)); diff != "" {
				t.Fatal(diff)
			}
			put(t, g.dir, map[string]string{"changed": "2!", "sub/new": "4"})
			if err := os.Remove(filepath.Join(g.dir, "gone")); err != nil {
				t.Fatal(err)
			}
			if tc.find != "" {
				g.without(t, "find", tc.find)
			}
			r.bringBack(t.Context())
			if diff := cmp.Diff(tc.want, files(t, r.Host.Workspace)); diff != "" {
				t.Error(diff)
			}
			for _, text := range tc.says {
				if !strings.Contains(log.String(), text) {
					t.Errorf("no %q in\n%s", text, log)
				}
			}
			if len(r.result.Warnings) > 0 {
				t.Error(r.result.Warnings)
			}
		})
	}
}

// TestNothingChanged: what did not change does not travel, and nobody is warned
// of a stream that was not needed. Something that is only deleted needs none either.
func TestNothingChanged(t *testing.T) {
	r, g, log := newGuest(t, config.Inputs{Sync: syncTar, CopyBack: "mirror"})
	put(t, r.Host.Workspace, map[string]string{"a": "1", "b": "2"})
	bring(t, r)
	if err := os.Remove(filepath.Join(g.dir, "b")); err != nil {
		t.Fatal(err)
	}
	g.without(t, "tar", "echo no tar is needed >&2; exit 2")
	r.bringBack(t.Context())
	if diff := cmp.Diff(map[string]string{"a": "1"}, files(t, r.Host.Workspace)); diff != "" {
		t.Error(diff)
	}
	if len(r.result.Warnings) > 0 || !strings.Contains(log.String(), "0 files in 0 B, 1 deleted") {
		t.Errorf("%v\n%s", r.result.Warnings, log)
	}
}

// TestTarComplains: what a tar sent that could not read everything is taken,
// its complaint is passed on, and nothing is deleted for it.
func TestTarComplains(t *testing.T) {
	r, g, _ := newGuest(t, config.Inputs{Sync: syncTar, CopyBack: "mirror"})
	put(t, r.Host.Workspace, map[string]string{"a": "1", "unreadable": "2"})
	bring(t, r)
	put(t, g.dir, map[string]string{"new": "3"})
	g.without(t, "find", "exit 1")
	g.without(t, "tar", "PATH=${PATH#*:}; tar --exclude=./unreadable \"$@\"; echo 'tar: unreadable: Permission denied' >&2; exit 2")
	r.bringBack(t.Context())
	if diff := cmp.Diff(map[string]string{"a": "1", "unreadable": "2", "new": "3"}, files(t, r.Host.Workspace)); diff != "" {
		t.Error(diff)
	}
	if text := strings.Join(r.result.Warnings, "\n"); !strings.Contains(text, "tar: unreadable: Permission denied") {
		t.Errorf("warnings: %s", text)
	}
}

// TestInterruptedBack says once why nothing came back.
func TestInterruptedBack(t *testing.T) {
	r, g, _ := newGuest(t, config.Inputs{Sync: syncTar})
	put(t, r.Host.Workspace, map[string]string{"a": "1"})
	bring(t, r)
	put(t, g.dir, map[string]string{"a": "changed"})
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(Interrupt{syscall.SIGINT})
	r.ending.interrupted(time.Now().Add(-time.Minute))
	r.bringBack(ctx)
	text := strings.Join(r.result.Warnings, "\n")
	if strings.Count(text, budgetError{}.Error()) != 1 {
		t.Errorf("warnings: %s", text)
	}
}

// TestBackPanics: a mistake of ours in what reads the guest's data costs the
// results, and not the end of the run.
func TestBackPanics(t *testing.T) {
	r, g, _ := newGuest(t, config.Inputs{Sync: syncTar})
	bring(t, r)
	put(t, g.dir, map[string]string{"a": "1"})
	r.checkout.tree = nil
	r.bringBack(t.Context())
	if text := strings.Join(r.result.Warnings, "\n"); !strings.Contains(text, "internal error") {
		t.Errorf("warnings: %s", text)
	}
}

func TestWarnHidesSecrets(t *testing.T) {
	r, log := newRunLog()
	r.mask.Mask("s3cret-value")
	r.warn("Title", "not copied: s3cret-value")
	if text := log.String() + strings.Join(r.result.Warnings, "\n"); strings.Contains(text, "s3cret") || !strings.Contains(text, "not copied: ***") {
		t.Error(text)
	}
}

func TestBounded(t *testing.T) {
	var b strings.Builder
	w := &bounded{w: &b, left: 4}
	if n, err := w.Write([]byte("123")); n != 3 || err != nil {
		t.Error(n, err)
	}
	if n, err := w.Write([]byte("45")); n != 0 || err == nil || errors.Is(err, errUnread) {
		t.Error(n, err)
	}
	if b.String() != "123" {
		t.Error(b.String())
	}
}
