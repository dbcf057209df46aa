package spelling

import (
	"slices"
	"testing"
)

func TestNear(t *testing.T) {
	known := []string{"query-status", "query-stats", "query-cpus-fast", "stop", "cont"}
	for word, want := range map[string][]string{
		"query-statsu": {"query-stats", "query-status"}, // alike near: by name
		"QUERY-STATUS": {"query-status", "query-stats"},
		"xtop":         {"stop"},
		"frobnicate":   nil,
		"":             nil,
	} {
		if got := Near(word, known); !slices.Equal(got, want) {
			t.Errorf("Near(%q) = %q, want %q", word, got, want)
		}
	}
}

func FuzzDistance(f *testing.F) {
	f.Add("q35", "pc-q35-7.2")
	f.Add("", "x")
	f.Add("tgc", "tcg")
	f.Fuzz(func(t *testing.T, a, b string) {
		if len(a) > 300 || len(b) > 300 {
			return
		}
		d := Distance(a, b)
		if d != Distance(b, a) || (d == 0) != (a == b) || d > max(len(a), len(b)) || d < max(len(a), len(b))-min(len(a), len(b)) {
			t.Fatalf("Distance(%q, %q) = %d", a, b, d)
		}
	})
}
