package cli

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	testFunction = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)\w+)\(`)
	testName     = regexp.MustCompile("`(\\w+)`")
)

// guideRows are what docs/guide.md must have an answer to, by a word of the
// first column: the sections and examples of the guide.
var guideRows = []string{
	"TCG workflow", "KVM workflow", "Verify KVM", "QMP helper", "Send keys", "Screenshot", "Telnet console", "Socat", "Wait for the boot prompt",
	"Expect", "user-data", "meta-data", "Seed ISO", "SSH key pair", "SSH keys in secrets", "Example 1", "Example 2", "Example 3",
	"Troubleshooting 1", "Troubleshooting 2", "Troubleshooting 3", "Troubleshooting 4", "Troubleshooting 5",
	"Timeout", "cleanup", "Artifact", "Caching", "Matrix", "Security: SSH keys", "secrets management", "network isolation", "checksums, signatures",
	"Tuning TCG", "Tuning KVM", "Metrics", "Structured logging",
	"if=virtio", "virtio-net-pci", "seed ISO on virtio", "multi-queue", "cloud-init on the Hurd", "systemctl", "-smp 4", "cache=writeback,aio=native", "-net tap",
}

// TestGuide holds that every row of docs/guide.md names tests that exist, and
// that no section of the guide is without a row.
func TestGuide(t *testing.T) {
	text, err := os.ReadFile("../../docs/guide.md")
	if err != nil {
		t.Fatal(err)
	}
	known := testNames(t)
	var firsts []string
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| ---") || strings.HasPrefix(line, "| guide |") {
			continue
		}
		cells := strings.Split(strings.ReplaceAll(strings.TrimSuffix(strings.TrimSpace(line), " |"), `\|`, ""), " | ")
		first := strings.TrimPrefix(cells[0], "| ")
		firsts = append(firsts, first)
		names := testName.FindAllStringSubmatch(cells[len(cells)-1], -1)
		if rest := strings.Trim(testName.ReplaceAllString(cells[len(cells)-1], ""), " "); rest != "" || !strings.HasSuffix(strings.TrimSpace(line), " |") {
			t.Errorf("%q does not end with the names of its tests: %q", first, rest)
		}
		if len(names) == 0 {
			t.Errorf("%q is shown by no test", first)
		}
		for _, n := range names {
			if !known[n[1]] {
				t.Errorf("%q is said to be shown by %s, which is no test", first, n[1])
			}
		}
	}
	all := strings.Join(firsts, "\n")
	for _, want := range guideRows {
		if !strings.Contains(all, want) {
			t.Errorf("no row is about %q", want)
		}
	}
}

// testNames finds the tests of the module.
func testNames(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	err := filepath.WalkDir("..", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range testFunction.FindAllSubmatch(text, -1) {
			names[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}
