package lifecycle

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/org/hurd-qemu-action/internal/qemu"
)

func TestFindRunning(t *testing.T) {
	temp := t.TempDir()
	if _, err := FindRunning(t.Context(), temp, ""); !errors.Is(err, ErrNoGuest) {
		t.Errorf("nothing runs: %v", err)
	}
	one, two := filepath.Join(temp, runPrefix+"1"), filepath.Join(temp, runPrefix+"2")
	dead := filepath.Join(temp, runPrefix+"3")
	for _, dir := range []string{one, two, dead} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dead, qemu.SocketName), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	listen := func(dir string) {
		l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", filepath.Join(dir, qemu.SocketName))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
	}
	listen(one)
	if got, err := FindRunning(t.Context(), temp, ""); got != one || err != nil {
		t.Errorf("the only one: %q, %v", got, err)
	}
	listen(two)
	if _, err := FindRunning(t.Context(), temp, ""); err == nil || !strings.Contains(err.Error(), one) || !strings.Contains(err.Error(), two) || strings.Contains(err.Error(), dead) {
		t.Errorf("two run: %v", err)
	}
	for _, which := range []string{two, filepath.Join(two, qemu.SocketName), "2"} {
		if got, err := FindRunning(t.Context(), temp, which); got != two || err != nil {
			t.Errorf("%q: %q, %v", which, got, err)
		}
	}
	if _, err := FindRunning(t.Context(), temp, "7"); err == nil || !strings.Contains(err.Error(), "no guest is called") {
		t.Errorf("none of that name: %v", err)
	}
}
