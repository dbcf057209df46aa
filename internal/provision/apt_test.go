package provision

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestEditSources(t *testing.T) {
	const before = `# deb http://deb.debian.org/debian-ports sid main
deb http://deb.debian.org/debian-ports sid main
deb [trusted=yes] https://ftp.example.org/pub/mirror/debian-ports/ unreleased main
deb-src http://deb.debian.org/debian sid main
deb http://security.debian.org/debian-security stable-security main
deb http://snapshot.debian.org/archive/debian-ports/20250101T000000Z/ sid main
deb http://example.org/debian-like x main
deb http://example.org/packages ./
URIs: http://deb.debian.org/debian http://deb.debian.org/debian-ports/
`
	const after = `# deb http://deb.debian.org/debian-ports sid main
deb http://snapshot.debian.org/archive/debian-ports/20260314T000000Z/ sid main
deb [trusted=yes] http://snapshot.debian.org/archive/debian-ports/20260314T000000Z/ unreleased main
deb-src http://snapshot.debian.org/archive/debian/20260314T000000Z/ sid main
deb http://snapshot.debian.org/archive/debian-security/20260314T000000Z/ stable-security main
deb http://snapshot.debian.org/archive/debian-ports/20260314T000000Z/ sid main
deb http://example.org/debian-like x main
deb http://example.org/packages ./
URIs: http://snapshot.debian.org/archive/debian/20260314T000000Z/ http://snapshot.debian.org/archive/debian-ports/20260314T000000Z/
`
	got := EditSources([]byte(before), "20260314T000000Z")
	if diff := cmp.Diff(after, string(got)); diff != "" {
		t.Error(diff)
	}
	if again := EditSources(got, "20260314T000000Z"); string(again) != after {
		t.Errorf("again:\n%s", again)
	}
	if got := EditSources(nil, "20260314T000000Z"); len(got) != 0 {
		t.Errorf("of nothing: %q", got)
	}
}
