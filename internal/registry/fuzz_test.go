package registry

import (
	"errors"
	"strings"
	"testing"
)

// FuzzParse holds that what is a reference is one as it is printed, too, has a
// host, and that an error says what kind it is.
func FuzzParse(f *testing.F) {
	for _, text := range []string{
		"ghcr.io/o/n@sha256:" + hex64, "ghcr.io/o/n:1@sha256:" + hex64, "[::1]:5000/a:1", "https://h.example/m?x=1@sha256:" + hex64,
		"https://u:p@h.example/m@sha256:" + hex64, "http://127.0.0.1/%2e@sha256:" + hex64, "a/b/c", "://", "@sha256:",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := Parse(text)
		if err != nil {
			if !errors.Is(err, ErrReference) {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		again, err := Parse(r.String())
		if err != nil || again.String() != r.String() || again.Digest != r.Digest {
			t.Errorf("%q is printed as %q, which is %q, %v", text, r, again, err)
		}
		if strings.ContainsAny(r.String(), "\n\x00") || r.URL == nil && r.Repo.Host() == "" || r.URL != nil && (r.URL.Host == "" || r.Digest == "") {
			t.Errorf("%q is %+v", text, r)
		}
	})
}
