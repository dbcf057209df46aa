package provision

import (
	"flag"
	"os"
	"os/exec"
	"strings"
	"testing"
)

var unprivilegedImage = flag.String("unprivileged-image", "", "what TestWithoutPrivileges gives to the process that it starts")

// TestWithoutPrivileges prepares and fills an image in a process that has no
// capability at all.
func TestWithoutPrivileges(t *testing.T) {
	if *unprivilegedImage != "" {
		withoutPrivileges(t, *unprivilegedImage)
		return
	}
	tools(t, "setpriv", "qemu-img", "qemu-io")
	image := standIn(t)
	if os.Getuid() != 0 { // who may not give up what he does not have
		withoutPrivileges(t, image)
		return
	}
	cmd := exec.Command("setpriv", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all",
		os.Args[0], "-test.v", "-test.run=^TestWithoutPrivileges$", "-unprivileged-image="+image)
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: TestWithoutPrivileges") {
		t.Errorf("%v\n%s", err, out)
	}
}

func withoutPrivileges(t *testing.T, image string) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for _, set := range []string{"CapPrm", "CapEff", "CapAmb"} {
		if !strings.Contains(string(status), set+":\t0000000000000000\n") {
			t.Errorf("%s is not empty:\n%s", set, status)
		}
	}
	p := mustPrepare(t, image, Options{Console: true})
	overlay := overlayOn(t, image)
	if err := Fill(t.Context(), overlay, p, runKeys()); err != nil {
		t.Fatal(err)
	}
	root := openRoot(t, flattened(t, overlay), p.Guest.Root)
	for _, slot := range p.Slots {
		checkSlot(t, root, slot, runKeys())
	}
}
