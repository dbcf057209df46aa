package lifecycle

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// hintsOf gives the lines of a console to a run, in pieces as well, and returns
// those after which the guest's SSH server is asked at once.
func hintsOf(lines []string) (hinted []string, seen int) {
	hint := make(chan struct{}, 1)
	r := &run{}
	see := r.seeBoot(func(time.Time, string) { seen++ }, hint)
	for _, line := range lines {
		for _, text := range []string{line[:len(line)/2], line} {
			see(time.Now(), text)
			select {
			case <-hint:
				hinted = append(hinted, text)
			default:
			}
		}
	}
	return hinted, seen
}

// TestSeeBoot: a real Hurd names its SSH server and then asks for a login; the
// rest of its boot is no reason to ask.
func TestSeeBoot(t *testing.T) {
	text, err := os.ReadFile("../../testdata/serial/boot-good.log")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	hinted, seen := hintsOf(lines)
	if want := []string{"rc: dropbear started", "login> "}; !slices.Equal(hinted, want) || seen != 2*len(lines) {
		t.Errorf("asked after %q, and %d of %d lines were passed on", hinted, seen, 2*len(lines))
	}
	for line, yes := range map[string]bool{
		"Starting OpenBSD Secure Shell server: sshd.":                 true,
		"[  OK  ] Started ssh.service - OpenBSD Secure Shell server.": true,
		"debian login: ": true, "rcS: sshd listens": true, "Debian GNU/Hurd sid debian console": false, "ssh-keygen: generating": false,
	} {
		if hinted, _ := hintsOf([]string{line}); (len(hinted) > 0) != yes {
			t.Errorf("%q: asked after %q", line, hinted)
		}
	}
	hinted, _ = hintsOf(slices.Repeat([]string{"sshd a", "sshd b"}, 10))
	if len(hinted) != hintsMost {
		t.Errorf("asked %d times, want %d at most", len(hinted), hintsMost)
	}
}
