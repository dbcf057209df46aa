package guest

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRecord(t *testing.T) {
	for _, tc := range []struct {
		record string
		ssh    ExitStatus
		want   Result
		fails  bool
	}{
		{"exit 7", ExitStatus{Code: 7}, Result{Status: 7}, false},
		{"exit 137", ExitStatus{Code: 137}, Result{Status: 137}, false},
		{"signal 9", ExitStatus{Code: 255}, Result{Status: 137, Signal: 9}, false},
		{"running", ExitStatus{Code: 3}, Result{Status: 3}, false},
		{"", ExitStatus{Code: 3}, Result{Status: 3}, false},
		{"", ExitStatus{Code: -1, Signal: "KILL"}, Result{}, true},
		{"exit 256", ExitStatus{Code: -1}, Result{}, true},
		{"signal 0", ExitStatus{Code: -1}, Result{}, true},
		{"exit -1", ExitStatus{Code: 1}, Result{Status: 1}, false},
	} {
		var r Result
		if err := r.read(tc.record, tc.ssh, Script{}); cmp.Diff(tc.want, r) != "" || (err != nil) != tc.fails {
			t.Errorf("%q, %+v: %+v, %v", tc.record, tc.ssh, r, err)
		}
	}
}

// FuzzRecord: whatever a guest has recorded, a result is one that a shell could
// give, and a signal agrees with its status.
func FuzzRecord(f *testing.F) {
	for _, seed := range []string{"exit 7", "signal 9", "nodir", "noshell zsh", "nouser why", "running", "exit 99999999999999999999", "signal -1"} {
		f.Add(seed, 255)
	}
	f.Fuzz(func(t *testing.T, record string, code int) {
		var r Result
		err := r.read(record, ExitStatus{Code: int(int8(code))}, Script{Dir: "/dir", User: "someone"})
		if err != nil && cmp.Diff(Result{}, r) != "" {
			t.Fatalf("%+v and %v", r, err)
		}
		if r.Status < 0 || r.Status > 255 || r.Signal != 0 && r.Status != 128+r.Signal {
			t.Fatalf("%q gives %+v", record, r)
		}
		var dir *DirError
		if errors.As(err, &dir) && dir.Dir != "/dir" {
			t.Fatalf("%v", err)
		}
		var user *UserError
		if errors.As(err, &user) && user.User != "someone" {
			t.Fatalf("%v", err)
		}
	})
}
