package platform

import (
	"strings"
	"testing"
)

func TestParseArch(t *testing.T) {
	for _, ok := range []Arch{AMD64, I386} {
		if got, err := ParseArch(string(ok)); got != ok || err != nil {
			t.Errorf("ParseArch(%q) = %q, %v", ok, got, err)
		}
	}
	for _, bad := range []string{"", "arm64", "AMD64", "x86_64"} {
		if got, err := ParseArch(bad); err == nil || !strings.Contains(err.Error(), "use amd64 or i386") {
			t.Errorf("ParseArch(%q) = %q, %v; want an error that names what is allowed", bad, got, err)
		}
	}
}
